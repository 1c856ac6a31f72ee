//! The record from end to end: a real spool, a real gRPC connection on loopback, a real SQLite file.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "it/follow.rs"]
mod follow;
#[path = "it/ingest.rs"]
mod ingest;
#[path = "it/loss.rs"]
mod loss;
#[path = "it/pipeline.rs"]
mod pipeline;
#[path = "it/query.rs"]
mod query;
#[path = "it/render.rs"]
mod render;
#[path = "it/store.rs"]
mod store;
#[path = "it/support.rs"]
mod support;
