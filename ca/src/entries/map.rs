//! All entries of one moment, and the groups in which they are asked for: an agent, or an issuance, must not look at all of them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use palisade_identity::SpiffeId;

use super::Entry;

pub(super) type ById = BTreeMap<String, Arc<Entry>>;
/// In the order of their IDs.
pub(super) type Group = Arc<Vec<Arc<Entry>>>;

/// The entries of one moment: a map from ID to entry.
#[derive(Debug, Default)]
pub struct EntryMap {
    all: ById,
    /// By parent, with the revision in which the group became what it is.
    parents: HashMap<SpiffeId, (u64, Group)>,
    identities: HashMap<SpiffeId, Group>,
    /// Grows with each change of anything.
    revision: u64,
    /// The revision in which a parent last lost all it had.
    emptied: u64,
}

impl EntryMap {
    /// What `all` is after `before`.
    pub(super) fn new(all: ById, before: &Self) -> Self {
        let revision = before.revision + 1;
        let since = |(parent, group): (SpiffeId, Group)| match before.parents.get(&parent) {
            Some((since, same)) if *same == group => (parent, (*since, group)),
            _ => (parent, (revision, group)),
        };
        let parents: HashMap<_, _> = grouped(&all, |entry| entry.parent_id.as_ref()).into_iter().map(since).collect();
        let all_kept = before.parents.keys().all(|parent| parents.contains_key(parent));
        let emptied = if all_kept { before.emptied } else { revision };
        Self { identities: grouped(&all, |entry| Some(&entry.spiffe_id)), all, parents, revision, emptied }
    }

    /// Those whose parent this agent is.
    pub(super) fn of_parent(&self, agent: &SpiffeId) -> Group {
        self.parents.get(agent).map(|(_, group)| Arc::clone(group)).unwrap_or_default()
    }

    /// Another number after each change of [`of_parent`](Self::of_parent), also after one that was undone.
    pub(super) fn mark(&self, agent: &SpiffeId) -> u64 {
        self.parents.get(agent).map_or(self.emptied, |(since, _)| *since)
    }

    /// Those that give this identity.
    pub(super) fn of_identity(&self, id: &SpiffeId) -> Group {
        self.identities.get(id).cloned().unwrap_or_default()
    }
}

impl Deref for EntryMap {
    type Target = BTreeMap<String, Arc<Entry>>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

fn grouped(all: &ById, by: impl Fn(&Entry) -> Option<&SpiffeId>) -> HashMap<SpiffeId, Group> {
    let mut groups = HashMap::<_, Vec<_>>::new();
    for entry in all.values() {
        if let Some(key) = by(entry) {
            groups.entry(key.clone()).or_default().push(Arc::clone(entry));
        }
    }
    groups.into_iter().map(|(key, group)| (key, Arc::new(group))).collect()
}
