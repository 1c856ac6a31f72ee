#![doc = include_str!("../README.md")]

pub mod check;
pub mod eval;
pub mod explain;
mod input;
mod traps;
mod world;

pub use input::InputError;
pub use world::{Alone, Preparing, World};
