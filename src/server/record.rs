//! The authorization service's record: a spool like a proxy's, delivered to the store of the same process.
//!
//! It begins with the first decision. An enforcer that was killed leaves a gap in the audit log, because nobody can know what it
//! had not yet written; a server that nobody ever asked is no enforcer, and must not leave one.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use palisade_audit::{Connect, Forwarder, ForwarderConfig, NanoClock, Recorder, RecorderConfig, Spooler};
use palisade_authz::{DecisionRecord, DecisionSink};
use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::exit;
use crate::sink::event;

/// The service's name in the audit log. No workload's: what it guards is different with each question.
pub(super) const ENFORCER: &str = "palisade-authz";

/// Pause before a record that cannot be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Takes decisions; cheap to clone.
#[derive(Clone)]
pub(super) struct Record(Arc<Shared>);

struct Shared {
    config: RecorderConfig,
    /// The socket on which this process takes its own events.
    ingest: PathBuf,
    recorder: OnceLock<Recorder>,
    metrics: Arc<OnceLock<Registry>>,
    opening: Mutex<()>,
    told: AtomicBool,
    parts: mpsc::UnboundedSender<(Spooler, Forwarder)>,
}

/// What writes and sends the record, once there is one.
pub(super) struct Delivery(mpsc::UnboundedReceiver<(Spooler, Forwarder)>);

impl Record {
    /// A record in `data_dir`; one that an earlier run left is opened at once, because it may hold what is still to be delivered.
    pub(super) async fn new(data_dir: &Path, ingest: &Path) -> Result<(Self, Delivery)> {
        let (parts, receiver) = mpsc::unbounded_channel();
        let config = RecorderConfig::new(data_dir.join("authz-audit"), ENFORCER);
        let left = config.dir.exists();
        let record = Self(Arc::new(Shared {
            config,
            ingest: ingest.to_path_buf(),
            recorder: OnceLock::new(),
            metrics: Arc::default(),
            opening: Mutex::new(()),
            told: AtomicBool::new(false),
            parts,
        }));
        if left {
            record.0.open().await.map_err(exit::usage)?;
        }
        Ok((record, Delivery(receiver)))
    }

    /// The record's metrics, once there are any.
    pub(super) fn metrics(&self) -> Arc<OnceLock<Registry>> {
        Arc::clone(&self.0.metrics)
    }
}

impl Shared {
    async fn open(&self) -> Result<(), String> {
        let _opening = self.opening.lock().await;
        if self.recorder.get().is_some() {
            return Ok(());
        }
        let config = self.config.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut registry = Registry::default();
            Recorder::open(&config, NanoClock::system(), &mut registry).map(|recording| (recording, registry))
        });
        let opened = opened.await.map_err(|error| error.to_string())?;
        let (recording, registry) = opened.map_err(|error| exit::chain(&error))?;
        let ingest = self.ingest.clone();
        let connect: Connect = Arc::new(move || {
            let channel = palisade_wire::channel::unix(&ingest);
            Box::pin(async move { Ok(channel) })
        });
        let (recorder, spooler, forwarder) = recording.forward(ForwarderConfig::default(), connect);
        // Nobody else sets either, and whoever delivers lives as long as the process.
        let _ = self.metrics.set(registry);
        let _ = self.parts.send((spooler, forwarder));
        let _ = self.recorder.set(recorder);
        Ok(())
    }

    /// The recorder; waits for as long as it cannot be opened, and requests with it.
    async fn recorder(&self) -> &Recorder {
        loop {
            if let Some(recorder) = self.recorder.get() {
                return recorder;
            }
            if let Err(error) = self.open().await {
                if !self.told.swap(true, Ordering::AcqRel) {
                    tracing::error!(error, "decisions cannot be recorded; they wait until they can be");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl DecisionSink for Record {
    fn has_room(&self) -> bool {
        self.0.recorder.get().is_some_and(Recorder::has_room)
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async { self.0.recorder().await.room().await })
    }

    fn record(&self, record: DecisionRecord) {
        match self.0.recorder.get() {
            Some(recorder) => recorder.record(event(record)),
            // Whoever decides asks for room first, and there is none without a recorder.
            None => tracing::error!(reason = record.reason, "a decision was made before there was a record of them"),
        }
    }
}

impl Delivery {
    /// Writes and sends until `drained`, then what is left.
    pub(super) async fn run(mut self, drained: CancellationToken) -> Result<(), String> {
        let begun = drained.run_until_cancelled(self.0.recv()).await.flatten();
        let Some((spooler, forwarder)) = begun.or_else(|| self.0.try_recv().ok()) else { return Ok(()) };
        let writing = async { spooler.run(drained.clone()).await.map_err(|error| exit::chain(&error)) };
        let sending = async {
            forwarder.run(drained.clone()).await;
            Ok(())
        };
        // A writer that fails ends the process: what cannot be recorded must not be decided.
        tokio::try_join!(writing, sending).map(|_| ())
    }
}
