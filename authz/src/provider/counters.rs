//! What happened to the checks of one provider, by Envoy's names where it has them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the provider was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that the provider let pass.
    pub ok: u64,
    /// Requests that it refused.
    pub denied: u64,
    /// Checks without a usable answer, whatever became of the request.
    pub error: u64,
    /// Of those, the ones that passed because the provider fails open.
    pub failure_mode_allowed: u64,
    /// Of `error`: no answer in time.
    pub timeout: u64,
    /// Of `error`: an answer that cannot be obeyed or forwarded.
    pub invalid: u64,
    /// Of `error`: not even tried, because the circuit was open or too many checks were waiting.
    pub rejected: u64,
    /// Connections opened.
    pub connections: u64,
    /// Checks that were asked again on a fresh connection, because a used one had died.
    pub retries: u64,
}

/// The same, counting.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) ok: AtomicU64,
    pub(super) denied: AtomicU64,
    pub(super) error: AtomicU64,
    pub(super) failure_mode_allowed: AtomicU64,
    pub(super) timeout: AtomicU64,
    pub(super) invalid: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) retries: AtomicU64,
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn now(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            ok: read(&self.ok),
            denied: read(&self.denied),
            error: read(&self.error),
            failure_mode_allowed: read(&self.failure_mode_allowed),
            timeout: read(&self.timeout),
            invalid: read(&self.invalid),
            rejected: read(&self.rejected),
            connections: read(&self.connections),
            retries: read(&self.retries),
        }
    }
}
