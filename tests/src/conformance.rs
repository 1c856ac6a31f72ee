//! Our engine beside a real Envoy: random policies and requests, decided by both.
//!
//! The engine decides as the product calls it. The Envoy is configured by a translation of its own ([`translate`]), which
//! Istio's golden files judge. Where the two disagree Envoy is right, and the case is made small before it is printed.
//!
//! ```text
//! generate -> scenes (one workload each) -> oracle (one Envoy, a listener a scene) ─┐
//!                                        └-> ours (CompiledSet, Authenticator) ─────┴-> compare -> shrink -> report
//! ```

#![expect(
    clippy::indexing_slicing,
    reason = "of JSON: what is not there reads as null, and is only written to objects made on the spot"
)]

mod compare;
pub mod dice;
mod generate;
mod identities;
mod oracle;
mod ours;
mod report;
pub mod run;
mod scene;
mod shrink;
pub mod translate;
