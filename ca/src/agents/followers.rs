//! Who follows the authority, and which bundle each has installed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_identity::SpiffeId;

use crate::authority::FollowerStatus;

/// Text of a peer that is kept.
const LONGEST: usize = 512;

/// The live streams. A stream is in here from before its first state is sent until it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followers(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    live: BTreeMap<u64, FollowerStatus>,
    /// How many streams of an ID have ended and were not opened again. Many agents may have one ID, and those that are there do
    /// not speak for the one that is not.
    gone: BTreeMap<String, usize>,
}

impl Followers {
    /// Counts a stream until the guard is dropped.
    pub(crate) fn join(&self, id: &SpiffeId, address: String) -> Following {
        let mut table = self.lock();
        table.next += 1;
        let number = table.next;
        if let Some(gone) = table.gone.remove(id.as_str()).filter(|gone| *gone > 1) {
            table.gone.insert(id.as_str().to_owned(), gone - 1);
        }
        let (bundle_digest, rejected) = (String::new(), String::new());
        table.live.insert(number, FollowerStatus { id: id.as_str().to_owned(), address, bundle_digest, rejected });
        Following { followers: self.clone(), number }
    }

    /// IDs of those that have not acknowledged the bundle of this digest, each once.
    pub(crate) fn waiting(&self, digest: &str) -> Vec<String> {
        let table = self.lock();
        let waiting = table.live.values().filter(|follower| follower.bundle_digest != digest);
        let ids: BTreeSet<_> = waiting.map(|follower| follower.id.clone()).collect();
        ids.into_iter().collect()
    }

    /// IDs of which every agent is there that was.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let table = self.lock();
        let ids = table.live.values().map(|follower| &follower.id);
        ids.filter(|id| !table.gone.contains_key(*id)).cloned().collect()
    }

    /// IDs that any agent follows or has followed with.
    pub(crate) fn seen(&self) -> BTreeSet<String> {
        let table = self.lock();
        table.live.values().map(|follower| &follower.id).chain(table.gone.keys()).cloned().collect()
    }

    /// Another authority signs now: who missed its root is not waited for any more.
    pub(crate) fn forget_gone(&self) {
        self.lock().gone.clear();
    }

    pub(crate) fn all(&self) -> Vec<FollowerStatus> {
        self.lock().live.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One live stream.
#[derive(Debug)]
pub(crate) struct Following {
    followers: Followers,
    number: u64,
}

impl Following {
    /// The stream's agent says what it has installed.
    pub(crate) fn report(&self, bundle_digest: &str, rejected: &str) {
        let cut = |text: &str| text.chars().take(LONGEST).collect::<String>();
        if let Some(follower) = self.followers.lock().live.get_mut(&self.number) {
            follower.bundle_digest = cut(bundle_digest).to_ascii_lowercase();
            follower.rejected = cut(rejected);
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut table = self.followers.lock();
        if let Some(follower) = table.live.remove(&self.number) {
            *table.gone.entry(follower.id).or_default() += 1;
        }
    }
}
