//! What the engine decides: traps and tables of Istio's semantics, an independent slow evaluator, and the
//! promises of the decision itself.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod allocation;
mod ask;
mod compiling;
mod crowds;
mod explaining;
mod large;
mod normalisation;
mod phases;
mod properties;
mod providers;
mod records;
mod rows;
mod slow;
mod tables;
mod traps_http;
mod traps_l4;
mod unknown;
