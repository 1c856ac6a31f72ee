//! Where a provider is, and how long getting there may take.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::time::timeout;

use super::Limits;
use super::answer::Failure;
use super::counters::{Counters, count};
use super::dial::{Dial, Io};

/// The way to one provider.
pub(super) struct Reach {
    dial: Arc<dyn Dial>,
    host: String,
    port: u16,
    connect_timeout: Duration,
    /// `http://host`, as Istio sets the authority of gRPC; none where the host cannot be written so.
    pub(super) origin: Option<Uri>,
    pub(super) max_answer: usize,
    pub(super) counters: Arc<Counters>,
}

impl Reach {
    /// `service` is `host` or `namespace/host`.
    pub(super) fn new(service: &str, port: u16, dial: Arc<dyn Dial>, limits: &Limits, counters: Arc<Counters>) -> Self {
        let host = service.rsplit('/').next().unwrap_or(service).to_owned();
        let authority = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.clone() };
        let origin = Uri::builder().scheme("http").authority(authority).path_and_query("/").build().ok();
        let (connect_timeout, max_answer) = (limits.connect_timeout, limits.max_answer);
        Self { dial, host, port, connect_timeout, origin, max_answer, counters }
    }

    /// A byte stream to the provider.
    pub(super) async fn dial(&self) -> Result<Box<dyn Io>, Failure> {
        let io = self.dial.dial(&self.host, self.port).await.map_err(Failure::Unreachable)?;
        count(&self.counters.connections);
        Ok(io)
    }

    /// Getting connected, for no longer than that may take.
    pub(super) async fn in_time<T>(&self, connecting: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let late = |_| Failure::Unreachable(io::Error::from(io::ErrorKind::TimedOut));
        timeout(self.connect_timeout, connecting).await.map_err(late)?
    }
}
