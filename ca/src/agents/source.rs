//! Where registration entries come from.

use std::fmt::Debug;
use std::pin::Pin;

use futures_util::Stream;
use palisade_identity::SpiffeId;
use palisade_wire::agents::Entry;

/// An item for every change, several at once may be one; its end means that there will be none any more. Of a `watch` channel:
/// `Box::pin(WatchStream::from_changes(receiver).map(drop))`.
pub type EntryChanges = Pin<Box<dyn Stream<Item = ()> + Send>>;

/// The registration entries of the trust domain.
pub trait EntrySource: Debug + Send + Sync {
    /// Those an agent may serve: whose parent it is. In a stable order.
    fn for_agent(&self, agent: &SpiffeId) -> Vec<Entry>;

    /// The entry `id`, if `agent` may serve it.
    fn get(&self, agent: &SpiffeId, id: &str) -> Option<Entry> {
        self.for_agent(agent).into_iter().find(|entry| entry.id == id)
    }

    /// Tells of changes to those of `agent` from now on: of every change after this call. Of another agent's it need not hear.
    fn changes(&self, agent: &SpiffeId) -> EntryChanges;
}

/// No entries at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEntries;

impl EntrySource for NoEntries {
    fn for_agent(&self, _: &SpiffeId) -> Vec<Entry> {
        Vec::new()
    }

    fn changes(&self, _: &SpiffeId) -> EntryChanges {
        Box::pin(futures_util::stream::empty())
    }
}
