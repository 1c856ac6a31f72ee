//! Where registration entries come from.

use std::fmt::Debug;

use palisade_identity::SpiffeId;
use palisade_wire::agents::Entry;
use tokio::sync::watch;

/// Says that entries have changed; its sender gone means that they never will again.
pub type EntryChanges = watch::Receiver<()>;

/// The registration entries of the trust domain.
pub trait EntrySource: Debug + Send + Sync {
    /// Those an agent may serve: whose parent it is, and those without a parent. In a stable order.
    fn for_agent(&self, agent: &SpiffeId) -> Vec<Entry>;

    /// The entry `id`, if `agent` may serve it.
    fn get(&self, agent: &SpiffeId, id: &str) -> Option<Entry> {
        self.for_agent(agent).into_iter().find(|entry| entry.id == id)
    }

    /// Tells of changes from now on.
    fn changes(&self) -> EntryChanges;
}

/// No entries at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEntries;

impl EntrySource for NoEntries {
    fn for_agent(&self, _: &SpiffeId) -> Vec<Entry> {
        Vec::new()
    }

    fn changes(&self) -> EntryChanges {
        watch::Sender::new(()).subscribe()
    }
}
