//! What the engine decides: traps and tables of Istio's semantics, an independent slow evaluator, and the
//! promises of the decision itself.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod allocation;
mod ask;
mod normalisation;
mod phases;
mod properties;
mod records;
mod slow;
mod tables;
mod traps_http;
mod traps_l4;
mod unknown;
