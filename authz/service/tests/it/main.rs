//! The service on real sockets: a gRPC client that speaks as Envoy does, and HTTP as an AuthZEN enforcer does.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod authzen;
mod callers;
mod limits;
mod mapping;
mod pki;
mod readings;
mod records;
mod refusals;
mod tokens;
mod world;
