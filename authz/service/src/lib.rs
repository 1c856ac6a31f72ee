#![doc = include_str!("../README.md")]

mod authzen;
mod caller;
mod check;
mod desk;
mod dial;
mod doubts;
mod forwarded;
mod listen;
mod metrics;
mod question;
pub mod reason;
mod service;
mod sets;
mod source;
mod upload;
mod words;
mod workload;

pub use caller::Callers;
pub use desk::Now;
pub use listen::{Limits, ListenError, Port, Security};
pub use service::{Service, ServiceConfig};
pub use source::{PolicySnapshot, PolicySource};
pub use workload::{LookupError, WORKLOAD_KEY};
