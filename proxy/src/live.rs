//! Every open connection (and long stream) of the proxy, so that policy, expiry and shutdown reach those already let in.
//!
//! An entry is made before its first decision: a policy change between the two cannot be missed. Whoever serves the
//! connection polls its [`Signal`] beside its sockets; nobody else touches the sockets.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;
use palisade_identity::TrustBundles;

/// Finish what is under way, then close.
pub(crate) const DRAIN: u8 = 1;
/// Close now.
pub(crate) const CUT: u8 = 2;
/// The snapshot changed: judge again.
pub(crate) const REJUDGE: u8 = 4;

/// What the rest of the proxy says to the task that serves a connection.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    flags: AtomicU8,
    waker: AtomicWaker,
}

impl Signal {
    /// Raises flags and wakes the task.
    pub(crate) fn raise(&self, flags: u8) {
        self.flags.fetch_or(flags, Ordering::SeqCst);
        self.waker.wake();
    }

    /// The flags now; the task is woken when more are raised.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> u8 {
        self.waker.register(cx.waker());
        self.flags.load(Ordering::SeqCst)
    }

    /// The flags now.
    pub(crate) fn flags(&self) -> u8 {
        self.flags.load(Ordering::SeqCst)
    }

    /// Whether a new judgement is due. Asking clears it.
    pub(crate) fn take_rejudge(&self) -> bool {
        self.flags.fetch_and(!REJUDGE, Ordering::SeqCst) & REJUDGE != 0
    }
}

/// What is known of an open connection without asking its task.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) signal: Signal,
    /// The application's port for an inbound connection; none for outbound ones.
    pub(crate) inbound_port: Option<u16>,
    /// No certificate was verified.
    pub(crate) plaintext: bool,
    /// Serial number of the peer's certificate, once one is verified.
    peer_serial: OnceLock<Box<str>>,
    /// That certificate is revoked: why the connection was cut.
    revoked: AtomicBool,
    /// Unix seconds at which the peer's certificate ends; `u64::MAX` without one.
    pub(crate) expires: AtomicU64,
    /// Tick at which the connection became idle; 0 while it is in use.
    pub(crate) idle_since: AtomicU64,
}

impl Entry {
    /// An entry for a connection that is in use.
    pub(crate) fn new(inbound_port: Option<u16>, plaintext: bool, expires: u64) -> Entry {
        Entry {
            signal: Signal::default(),
            inbound_port,
            plaintext,
            peer_serial: OnceLock::new(),
            revoked: AtomicBool::new(false),
            expires: AtomicU64::new(expires),
            idle_since: AtomicU64::new(0),
        }
    }
}

impl Entry {
    /// Notes who is at the other end. Whoever calls this must then ask [`cut_if_denied`](Self::cut_if_denied) with the trust of
    /// that moment, as a revocation may have come since the handshake.
    pub(crate) fn peer(&self, serial: &str) {
        // One entry has one peer: the first stays.
        let _ = self.peer_serial.set(serial.into());
    }

    /// Ends the connection if `trust` denies its peer.
    pub(crate) fn cut_if_denied(&self, trust: &TrustBundles) {
        if self.peer_serial.get().is_some_and(|serial| trust.denies(serial)) {
            self.revoked.store(true, Ordering::SeqCst);
            self.signal.raise(CUT);
        }
    }

    /// Whether its peer's revocation has ended it.
    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }
}

/// The registry of open connections.
#[derive(Debug, Default)]
pub(crate) struct Live {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    /// What was said to everybody, and is said to newcomers, too.
    raised: u8,
    open: HashMap<u64, Arc<Entry>>,
}

impl Live {
    /// Registers a connection until the guard is dropped.
    pub(crate) fn open(self: &Arc<Live>, entry: Arc<Entry>) -> Open {
        let mut entries = self.lock();
        entries.next += 1;
        let id = entries.next;
        if entries.raised != 0 {
            entry.signal.raise(entries.raised);
        }
        entries.open.insert(id, entry.clone());
        Open { live: self.clone(), id, entry }
    }

    /// Calls `visit` with each open connection.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Entry)) {
        self.lock().open.values().for_each(|entry| visit(entry));
    }

    /// Raises flags on every open connection, and on every one that is opened from now on.
    pub(crate) fn raise_for_good(&self, flags: u8) {
        let mut entries = self.lock();
        entries.raised |= flags;
        entries.open.values().for_each(|entry| entry.signal.raise(flags));
    }

    /// Number of open connections.
    pub(crate) fn len(&self) -> usize {
        self.lock().open.len()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // The map is consistent between any two statements: a panic elsewhere does not spoil it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a connection registered.
#[derive(Debug)]
pub(crate) struct Open {
    live: Arc<Live>,
    id: u64,
    entry: Arc<Entry>,
}

impl std::ops::Deref for Open {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.live.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_reach_open_connections_only() {
        let live = Arc::new(Live::default());
        let first = live.open(Arc::new(Entry::new(Some(80), true, u64::MAX)));
        drop(live.open(Arc::new(Entry::new(None, false, u64::MAX))));
        assert_eq!(live.len(), 1);
        live.for_each(|entry| entry.signal.raise(REJUDGE));
        assert!(first.signal.take_rejudge());
        assert!(!first.signal.take_rejudge());
        first.signal.raise(DRAIN | CUT);
        assert_eq!(first.signal.flags(), DRAIN | CUT);
        drop(first);
        assert_eq!(live.len(), 0);
        live.raise_for_good(DRAIN);
        let late = live.open(Arc::new(Entry::new(None, false, u64::MAX)));
        assert_eq!(late.signal.flags(), DRAIN, "who comes late hears it, too");
    }
}
