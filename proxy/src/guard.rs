//! The question every waiting loop asks beside its sockets: may this go on?

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;

use crate::live::{CUT, DRAIN, REJUDGE, Signal};

/// Asks the signal, and the policy when it changed.
pub(crate) struct Guard<'a> {
    signal: &'a Signal,
    /// Judges again on the newest snapshot; true when what is under way is now denied.
    denied_now: &'a mut (dyn FnMut() -> bool + Send),
    /// Bytes have no end to wait for: what is not drained by shutdown but by expiry ends at once.
    draining: Option<&'a AtomicBool>,
}

impl std::fmt::Debug for Guard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("signal", &self.signal).finish_non_exhaustive()
    }
}

/// Why something under way has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Shutdown, expiry, or STRICT against plaintext.
    Told,
    /// The newest policy denies it.
    Denied,
}

impl<'a> Guard<'a> {
    pub(crate) fn new(signal: &'a Signal, denied_now: &'a mut (dyn FnMut() -> bool + Send)) -> Guard<'a> {
        Guard { signal, denied_now, draining: None }
    }

    /// For opaque connections: an expired peer ends at once, a shutdown leaves them until its deadline.
    pub(crate) fn ending_at_drain(
        signal: &'a Signal,
        denied_now: &'a mut (dyn FnMut() -> bool + Send),
        draining: &'a AtomicBool,
    ) -> Guard<'a> {
        Guard { signal, denied_now, draining: Some(draining) }
    }

    /// Some when it must end now.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Option<Cut> {
        let flags = self.signal.poll(cx);
        if flags & CUT != 0 {
            return Some(Cut::Told);
        }
        if flags & DRAIN != 0 && self.draining.is_some_and(|draining| !draining.load(Ordering::Relaxed)) {
            return Some(Cut::Told);
        }
        if flags & REJUDGE != 0 && self.signal.take_rejudge() && (self.denied_now)() {
            return Some(Cut::Denied);
        }
        None
    }
}
