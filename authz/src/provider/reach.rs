//! Where a provider is, and how long getting there may take.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::time::{Instant, timeout};

use super::Limits;
use super::answer::Failure;
use super::counters::{Counters, count};
use super::dial::{Dial, Io};

/// When a connection came about, and when it was last used.
#[derive(Clone, Copy)]
pub(super) struct Age {
    opened: Instant,
    used: Instant,
}

/// The way to one provider.
pub(super) struct Reach {
    dial: Arc<dyn Dial>,
    host: String,
    port: u16,
    connect_timeout: Duration,
    max_rest: Duration,
    max_age: Duration,
    now: fn() -> Instant,
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
        let Limits { connect_timeout, max_answer, max_rest, max_age, now, .. } = *limits;
        Self { dial, host, port, connect_timeout, max_rest, max_age, now, origin, max_answer, counters }
    }

    /// Of a connection that comes about now.
    pub(super) fn newborn(&self) -> Age {
        let now = (self.now)();
        Age { opened: now, used: now }
    }

    /// The age of a connection that was just used.
    pub(super) fn rests(&self, age: Age) -> Age {
        Age { used: (self.now)(), ..age }
    }

    /// Whether the connection is too old to be used again.
    pub(super) fn is_over(&self, age: Age) -> bool {
        (self.now)().saturating_duration_since(age.opened) >= self.max_age
    }

    /// The same, or whether it rested too long.
    pub(super) fn is_stale(&self, age: Age) -> bool {
        self.is_over(age) || (self.now)().saturating_duration_since(age.used) >= self.max_rest
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
