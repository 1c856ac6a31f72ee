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
    parents: HashMap<SpiffeId, Group>,
    identities: HashMap<SpiffeId, Group>,
}

impl EntryMap {
    pub(super) fn new(all: ById) -> Self {
        Self {
            parents: grouped(&all, |entry| entry.parent_id.as_ref()),
            identities: grouped(&all, |entry| Some(&entry.spiffe_id)),
            all,
        }
    }

    /// Those whose parent this agent is.
    pub(super) fn of_parent(&self, agent: &SpiffeId) -> Group {
        self.parents.get(agent).cloned().unwrap_or_default()
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
