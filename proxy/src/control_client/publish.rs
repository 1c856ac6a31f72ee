//! Apply first, publish after: the one order in which a snapshot comes into use, whatever its source.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::watch;

use super::{Apply, RawSnapshot};

/// Snapshots offered, by what became of them.
pub(super) type Outcomes = Family<OutcomeLabels, Counter>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    outcome: &'static str,
}

impl OutcomeLabels {
    pub(super) const APPLIED: Self = Self { outcome: "applied" };
    pub(super) const REFUSED: Self = Self { outcome: "refused" };
}

/// The snapshot in use and the way to replace it. Clones share both.
#[derive(Clone)]
pub(super) struct Publisher {
    apply: Apply,
    snapshots: watch::Sender<Option<Arc<RawSnapshot>>>,
    outcomes: Outcomes,
}

impl Publisher {
    pub(super) fn new(apply: Apply, outcomes: Outcomes) -> Self {
        Self { apply, snapshots: watch::Sender::new(None), outcomes }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<RawSnapshot>>> {
        self.snapshots.subscribe()
    }

    /// Revision in use.
    pub(super) fn revision(&self) -> Option<String> {
        self.snapshots.borrow().as_ref().map(|snapshot| snapshot.revision.clone())
    }

    /// Offers a snapshot, blocking while the proxy compiles it. Refused, the one in use stays.
    pub(super) fn take(&self, snapshot: Arc<RawSnapshot>) -> Result<(), String> {
        let taken = (self.apply)(&snapshot);
        let outcome = if taken.is_ok() { OutcomeLabels::APPLIED } else { OutcomeLabels::REFUSED };
        self.outcomes.get_or_create(&outcome).inc();
        if taken.is_ok() {
            self.snapshots.send_replace(Some(snapshot));
        }
        taken
    }

    /// [`Self::take`] away from the threads that serve other tasks.
    pub(super) async fn offer(&self, snapshot: Arc<RawSnapshot>) -> Result<(), String> {
        let publisher = self.clone();
        let taken = tokio::task::spawn_blocking(move || publisher.take(snapshot));
        taken.await.unwrap_or_else(|error| Err(format!("applying the snapshot failed: {error}")))
    }
}
