#![doc = include_str!("../README.md")]

pub mod backend;
pub mod bench;
pub mod clock;
pub mod conformance;
pub mod disk;
pub mod envoy;
pub mod http;
pub mod mesh;
mod preload;
mod process;
pub mod shop;
mod wait;

pub use process::{Finished, Palisade, binary, run};
pub use wait::{poll, poll_async, poll_for, skip};
