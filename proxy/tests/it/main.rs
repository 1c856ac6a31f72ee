//! The proxy on real sockets: certificates made here, policies as text, applications that say what they received.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod app;
mod certificates;
mod client;
mod custom;
mod custom_body;
mod custom_dial;
mod custom_h2;
mod disguise;
mod flood;
mod http1;
mod http2;
mod issuer;
mod life;
mod modes;
mod outbound;
mod provider;
mod revoked;
mod tcp;
mod tokens;
mod world;
