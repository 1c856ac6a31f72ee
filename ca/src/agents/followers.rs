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
}

impl Followers {
    /// Counts a stream until the guard is dropped.
    pub(crate) fn join(&self, id: &SpiffeId, address: String) -> Following {
        let mut table = self.lock();
        table.next += 1;
        let number = table.next;
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

    /// IDs of all.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.lock().live.values().map(|follower| follower.id.clone()).collect()
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
        self.followers.lock().live.remove(&self.number);
    }
}
