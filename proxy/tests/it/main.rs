//! The proxy on real sockets: certificates made here, policies as text, applications that say what they received.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod app;
mod certificates;
mod client;
mod disguise;
mod flood;
mod http1;
mod http2;
mod life;
mod modes;
mod outbound;
mod tcp;
mod world;
