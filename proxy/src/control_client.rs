//! Where a proxy's snapshots come from: the control plane ([`ControlClient`]), or a directory of its own ([`DirectorySource`]).
//!
//! Both hand every snapshot to the proxy first (`apply`: it compiles it, or says why it cannot), and publish it only when the
//! proxy has taken it. What was taken stays until something better is: the control plane may be away for days, refuse this
//! proxy, or send what this proxy cannot read, and traffic is decided by the last good snapshot all the same. A proxy that
//! never had one publishes nothing, and serves nobody.

mod backoff;
mod directory;
mod publish;
mod session;
mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use palisade_identity::Clock;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub use directory::DirectorySource;
pub use palisade_watch::{DirectoryConfig, Snapshot as RawSnapshot};

use backoff::Backoff;
use publish::{OutcomeLabels, Outcomes, Publisher};
use store::{LoadError, Store};

/// Takes a snapshot into use, or says why it cannot be: then the old one stays, and the control plane is told. Runs on a
/// thread where blocking is fine.
pub type Apply = Arc<dyn Fn(&RawSnapshot) -> Result<(), String> + Send + Sync>;

/// Makes a channel to the control plane, connecting lazily, with the identity that is current now. Called for every
/// connection, so that each presents the newest certificate. The channel must notice a dead server by itself, as those of
/// `palisade_wire::channel` do.
pub type ChannelFactory = Arc<dyn Fn() -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> + Send + Sync>;

/// Whose snapshots, and how they are kept.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Namespace and name of this proxy's WorkloadEntry.
    pub workload: (String, String),
    /// Directory of the last good snapshot; made with mode 0700 where it is missing.
    pub state_dir: PathBuf,
    /// First delay before connecting again.
    pub backoff_min: Duration,
    /// Longest delay before connecting again; a connection that lived this long was a good one.
    pub backoff_max: Duration,
    /// How long connecting and being accepted may take.
    pub connect_timeout: Duration,
}

impl ClientConfig {
    /// This workload with the defaults: back-off from 10 ms to 5 s, 10 s to connect.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            workload: (namespace.into(), name.into()),
            state_dir: state_dir.into(),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
        }
    }

    fn node(&self) -> String {
        format!("{}/{}", self.workload.0, self.workload.1)
    }
}

/// Where the client stands with the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStatus {
    /// A stream is open and accepted.
    pub connected: bool,
    /// Revision in use.
    pub revision: Option<String>,
    /// The snapshot in use was read from disk; the control plane has sent nothing since, as it does not where nothing changed.
    pub from_disk: bool,
    /// Why there is no connection, or why a snapshot was refused; `None` when neither is so.
    pub problem: Option<String>,
}

/// Why a client cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The state directory cannot be made or read.
    #[error("state directory `{}` cannot be used", dir.display())]
    StateDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kept snapshot was written by a later release: going back would lose it, which is for the operator to decide.
    #[error("snapshot `{}` is of format {found}, this release reads up to {known}: remove it or start a newer release", file.display())]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
        /// Newest format this release knows.
        known: u32,
    },
}

/// The proxy's end of the delta xDS stream.
pub struct ControlClient {
    config: ClientConfig,
    channels: ChannelFactory,
    publisher: Publisher,
    store: Store,
    clock: Arc<dyn Clock>,
    status: watch::Sender<ClientStatus>,
    metrics: Metrics,
}

#[derive(Clone, Default)]
struct Metrics {
    connected: Gauge,
    outcomes: Outcomes,
}

impl ControlClient {
    /// Loads the last good snapshot from disk and applies it (blocking), so that the proxy works before the control plane
    /// answers and while it is down. A snapshot that cannot be used is named in the log and left out.
    ///
    /// # Errors
    /// The state directory cannot be used, or was written by a newer release.
    pub fn new(
        config: ClientConfig,
        channels: ChannelFactory,
        apply: Apply,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Self, ClientError> {
        let metrics = Metrics::register(registry);
        let store = Store::open(&config.state_dir, config.node())?;
        let publisher = Publisher::new(apply, metrics.outcomes.clone());
        let mut status = ClientStatus::default();
        match store.load() {
            Ok(None) => tracing::info!(directory = %config.state_dir.display(), "no snapshot on disk"),
            Ok(Some(kept)) => {
                let revision = kept.snapshot.revision.clone();
                match publisher.take(Arc::new(kept.snapshot)) {
                    Ok(()) => {
                        tracing::info!(revision, saved = kept.saved, "last good snapshot loaded from disk");
                        (status.revision, status.from_disk) = (Some(revision), true);
                    }
                    Err(reason) => tracing::error!(revision, reason, "snapshot on disk cannot be used"),
                }
            }
            Err(LoadError::Newer { file, found, known }) => {
                return Err(ClientError::NewerFormat { file, found, known });
            }
            Err(error @ LoadError::Unusable { .. }) => tracing::error!(%error, "snapshot on disk is left out"),
        }
        let status = watch::Sender::new(status);
        Ok(Self { config, channels, publisher, store, clock, status, metrics })
    }

    /// The snapshot in use, now and after every change; `None` until there was one.
    pub fn snapshots(&self) -> watch::Receiver<Option<Arc<RawSnapshot>>> {
        self.publisher.subscribe()
    }

    /// Where the client stands.
    pub fn status(&self) -> watch::Receiver<ClientStatus> {
        self.status.subscribe()
    }

    /// Keeps a stream to the control plane until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.keep_connected()).await;
        self.disconnected(None);
    }

    async fn keep_connected(&self) {
        let mut backoff = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        loop {
            let began = Instant::now();
            let mut heard = false;
            let reason = match self.session(&mut heard).await {
                Ok(()) => "control plane ended the stream".to_owned(),
                Err(reason) => reason,
            };
            if heard || began.elapsed() >= self.config.backoff_max {
                backoff.reset();
            }
            let delay = backoff.next_delay();
            self.disconnected(Some((reason, delay)));
            tokio::time::sleep(delay).await;
        }
    }

    /// Notes the end of a stream; says it loudly only when it is news.
    fn disconnected(&self, failed: Option<(String, Duration)>) {
        self.metrics.connected.set(0);
        self.status.send_modify(|status| {
            status.connected = false;
            if let Some((reason, delay)) = failed {
                if status.problem.as_ref() == Some(&reason) {
                    tracing::debug!(reason, ?delay, "control plane still not reached");
                } else {
                    tracing::warn!(reason, ?delay, "not connected to the control plane, the last good snapshot stays");
                }
                status.problem = Some(reason);
            }
        });
    }
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self { connected: Gauge::default(), outcomes: Family::default() };
        registry.register(
            "palisade_xds_connected",
            "1 while the stream to the control plane is open",
            metrics.connected.clone(),
        );
        metrics.register_outcomes(registry);
        metrics
    }

    fn register_outcomes(&self, registry: &mut Registry) {
        registry.register("palisade_snapshots", "Snapshots offered to the proxy, by outcome", self.outcomes.clone());
        for outcome in [OutcomeLabels::APPLIED, OutcomeLabels::REFUSED] {
            drop(self.outcomes.get_or_create(&outcome));
        }
    }
}

#[cfg(test)]
mod tests;
