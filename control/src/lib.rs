#![doc = include_str!("../README.md")]

mod authorize;
mod index;
mod metrics;
mod proxies;
mod server;
mod service;
mod stream;
#[cfg(test)]
mod testing;

pub use proxies::{Nack, ProxyStatus};
pub use server::{Control, ControlConfig, ControlStatus, Handle};
pub use service::{DiscoveryServer, DiscoveryService};
