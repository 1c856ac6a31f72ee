//! The crate from outside: real certificates made by rcgen, real handshakes over rustls.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bundles;
mod certs;
mod handshake;
mod matrix;
mod paths;
mod pinned;
mod remembered;
mod resumption;
mod stolen;
mod svids;
mod wire;
