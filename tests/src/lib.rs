#![doc = include_str!("../README.md")]

pub mod bench;
pub mod http;
pub mod mesh;
mod process;
mod wait;

pub use process::{Palisade, binary};
pub use wait::{poll, poll_async, skip};
