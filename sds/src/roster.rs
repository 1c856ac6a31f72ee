//! What the server gives to this agent besides its own certificate: entries, tokens' keys, taints; and the certificates made for
//! the entries. One immutable state, replaced as a whole, read without waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub(crate) use entry::{Entries, Entry};
pub(crate) use held::{Held, issuers};
pub(crate) use places::Place;
use places::Places;
use rejections::Rejections;
pub(crate) use rejections::{Reasons, Rejection};

mod entry;
mod held;
mod places;
mod rejections;

/// The state of this moment, and who wants to know when it changes.
pub(crate) struct Roster {
    state: ArcSwap<State>,
    writing: Mutex<()>,
    changed: Arc<watch::Sender<()>>,
    places: Places,
    rejections: Rejections,
}

/// Everything that may change while the agent runs. Parts that did not change are shared with the state before.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// What is registered; `None` until the server, or the disk, has said.
    pub(crate) entries: Option<Arc<Entries>>,
    /// Certificates by entry.
    pub(crate) svids: Arc<BTreeMap<String, Arc<Held>>>,
    /// JWK Sets of the keys that sign tokens, by trust domain; each as the server sent it.
    pub(crate) jwks: Arc<BTreeMap<String, String>>,
    /// Authorities whose leaves must go, by subject key identifier, with the epoch in which that was learned.
    pub(crate) tainted: Arc<BTreeMap<String, u64>>,
    /// Grows with each lesson about taints.
    pub(crate) epoch: u64,
}

impl Default for Roster {
    fn default() -> Self {
        let changed = Arc::new(watch::Sender::new(()));
        let (places, rejections) = (Places::default(), Rejections::default());
        Self { state: ArcSwap::default(), writing: Mutex::default(), changed, places, rejections }
    }
}

impl Roster {
    /// The state of this moment.
    pub(crate) fn now(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Changes the state, and tells everybody.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = State::clone(&self.state.load());
        change(&mut state);
        self.state.store(Arc::new(state));
        self.wake();
    }

    /// Wakes at each change after this call, and when [`Roster::wake`] says so.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Something beside the state has changed that its readers combine with it: the agent's own identity.
    pub(crate) fn wake(&self) {
        self.places.open();
        self.changed.send_replace(());
    }

    /// For a subscriber that is about to look at the state: to be kept from when it has answered to what it saw.
    pub(crate) fn place(&self) -> Place {
        self.places.newest()
    }

    /// For a subscriber that cannot use the bundle that it was given, as long as that is so.
    pub(crate) fn reject(&self, reason: &str) -> Rejection {
        self.rejections.add(reason)
    }

    /// Why subscribers do not have the bundle of this moment, though they have answered.
    pub(crate) fn rejections(&self) -> watch::Receiver<Reasons> {
        self.rejections.subscribe()
    }

    /// Waits until every subscriber has answered to the state of this moment.
    pub(crate) async fn acknowledged(&self) {
        self.places.all_moved_on().await;
    }
}

impl State {
    /// Must a certificate go whose chain names these authorities, asked for in that epoch?
    ///
    /// One that was asked for after the taint was learned is as good as the server can make it, and is not asked for again.
    pub(crate) fn is_tainted(&self, issuers: &[String], epoch: u64) -> bool {
        issuers.iter().filter_map(|issuer| self.tainted.get(issuer)).any(|learned| epoch < *learned)
    }

    /// Takes the server's list of tainted authorities over.
    pub(crate) fn taint(&mut self, authorities: &[String]) {
        let news = authorities.iter().any(|authority| !self.tainted.contains_key(authority));
        if news {
            self.epoch += 1;
        }
        let learned = |authority: &String| self.tainted.get(authority).copied().unwrap_or(self.epoch);
        self.tainted = Arc::new(authorities.iter().map(|one| (one.clone(), learned(one))).collect());
    }
}
