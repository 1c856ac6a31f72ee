//! Request authentication, row by row of the reference (sections 7.2 to 7.6, traps 28 to 32 and 47), against
//! answers of a real Envoy, under attack, and with key sets fetched from real sockets.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test helpers")]

mod attacks;
mod cache;
mod effects;
mod fetch;
mod golden;
mod key_sets;
mod kit;
mod outcomes;
mod places;
mod properties;
mod server;
mod several;
mod traps;
