//! The standalone source: a directory of the same YAML beside the proxy, with no control plane at all.
//!
//! Everything in the directory is the snapshot: there is nobody to scope it, and selection by namespace and labels happens
//! in the proxy anyway.

use std::sync::Arc;

use palisade_watch::{Directory, DirectoryConfig, State};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::publish::Publisher;
use super::{Apply, Metrics, RawSnapshot};

/// Snapshots of a watched directory.
pub struct DirectorySource {
    directory: Directory,
    state: watch::Receiver<State>,
    publisher: Publisher,
}

impl DirectorySource {
    /// Reads the directory and applies it (blocking). A directory that is broken or missing yields no snapshot until it is
    /// repaired; [`Self::state`] says why.
    pub fn new(config: DirectoryConfig, apply: Apply, registry: &mut Registry) -> Self {
        let metrics = Metrics::default();
        metrics.register_outcomes(registry);
        let directory = Directory::open(config);
        let state = directory.subscribe();
        let publisher = Publisher::new(apply, metrics.outcomes);
        let source = Self { directory, state, publisher };
        let first = source.state.borrow().good.as_ref().map(|good| good.snapshot());
        if let Some(snapshot) = first {
            let revision = snapshot.revision.clone();
            let taken = source.publisher.take(Arc::new(snapshot));
            log(&revision, taken);
        }
        source
    }

    /// The snapshot in use, now and after every change; `None` until there was one.
    pub fn snapshots(&self) -> watch::Receiver<Option<Arc<RawSnapshot>>> {
        self.publisher.subscribe()
    }

    /// What of the directory is in force, and what is wrong with it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.directory.subscribe()
    }

    /// Follows the directory until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { directory, mut state, publisher } = self;
        let applying = async {
            while let Some(Ok(())) = shutdown.run_until_cancelled(state.changed()).await {
                let good = state.borrow_and_update().good.clone();
                let Some(snapshot) = good.map(|good| good.snapshot()) else { continue };
                if publisher.revision().as_deref() == Some(snapshot.revision.as_str()) {
                    continue;
                }
                let revision = snapshot.revision.clone();
                log(&revision, publisher.offer(Arc::new(snapshot)).await);
            }
        };
        tokio::join!(directory.run(shutdown.clone()), applying);
    }
}

fn log(revision: &str, taken: Result<(), String>) {
    match taken {
        Ok(()) => tracing::info!(revision, "snapshot in force"),
        Err(reason) => tracing::error!(revision, reason, "snapshot refused, the one in use stays"),
    }
}

#[cfg(test)]
mod tests;
