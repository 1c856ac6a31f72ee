//! What every long-running process shares: logs, health, metrics, signals, and an orderly end.

mod addresses;
mod clock;
mod core_dump;
mod health;
mod http;
mod shutdown;
mod supervisor;
mod telemetry;

pub(crate) use addresses::Addresses;
pub(crate) use clock::SystemClock;
pub(crate) use core_dump::forgo_core_dumps;
pub(crate) use health::Health;
pub(crate) use http::{Pages, bind, serve};
pub(crate) use shutdown::on_signal;
pub(crate) use supervisor::Supervisor;
pub(crate) use telemetry::{LogOptions, init};
