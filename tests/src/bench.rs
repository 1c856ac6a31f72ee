//! The parts of the benchmarks: a load whose latencies can be trusted, a backend, and the kernel's accounting of others.

pub mod authz;
pub mod backend;
pub mod cpu;
pub mod identity;
pub mod load;
pub mod proxy;
