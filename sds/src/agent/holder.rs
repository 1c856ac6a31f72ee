//! The identity of this moment, and who wants to know when it changes.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use palisade_identity::Identity;
use rustls_pki_types::UnixTime;
use tokio::sync::watch;

use super::health::{Health, IdentityState};
use crate::metrics::Metrics;

type Callback = Arc<dyn Fn() + Send + Sync>;

/// Readers never wait: the data plane asks on every connection.
pub(super) struct Holder {
    current: ArcSwapOption<Identity>,
    callbacks: Mutex<Vec<Callback>>,
    ready: watch::Sender<bool>,
    last_error: ArcSwapOption<String>,
    metrics: Metrics,
}

impl Holder {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            callbacks: Mutex::default(),
            ready: watch::Sender::new(false),
            last_error: ArcSwapOption::empty(),
            metrics,
        }
    }

    pub(super) fn current(&self) -> Option<Arc<Identity>> {
        self.current.load_full()
    }

    pub(super) fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    pub(super) fn on_change(&self, callback: Box<dyn Fn() + Send + Sync>) {
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner).push(callback.into());
    }

    /// Replaces the identity by a newer one, then tells everybody.
    pub(super) fn install(&self, identity: Arc<Identity>, now: UnixTime) {
        self.last_error.store(None);
        self.replace(identity, now);
    }

    /// Replaces the trust around the certificate in hand, then tells everybody.
    pub(super) fn replace(&self, identity: Arc<Identity>, now: UnixTime) {
        self.current.store(Some(identity));
        self.refresh(now);
        // Called outside of the lock: a callback may register another.
        let callbacks = self.callbacks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for callback in callbacks {
            callback();
        }
    }

    /// Remembers why there is no newer identity.
    pub(super) fn failed(&self, error: String) {
        self.last_error.store(Some(Arc::new(error)));
    }

    /// Brings readiness and the metric up to date with the clock. Returns whether it changed.
    pub(super) fn refresh(&self, now: UnixTime) -> bool {
        let state = self.state(now);
        self.metrics.identity(state.label());
        let usable = matches!(state, IdentityState::Usable { .. });
        self.ready.send_if_modified(|ready| std::mem::replace(ready, usable) != usable)
    }

    pub(super) fn health(&self, now: UnixTime) -> Health {
        let last_error = self.last_error.load_full().map(|error| error.as_ref().clone());
        Health { identity: self.state(now), last_error }
    }

    fn state(&self, now: UnixTime) -> IdentityState {
        self.current().map_or(IdentityState::Missing, |identity| IdentityState::of(&identity, now))
    }
}
