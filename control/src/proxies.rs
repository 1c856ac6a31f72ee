//! The proxies that are connected, and what each of them has and refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_identity::SpiffeId;
use tokio_util::sync::CancellationToken;

use crate::authorize::Node;
use crate::metrics::Metrics;

/// Streams that one workload may hold: a proxy that reconnects may have a dead one or two behind it.
const STREAMS_PER_WORKLOAD: usize = 4;

/// One connected proxy.
#[derive(Clone, Debug)]
pub struct ProxyStatus {
    /// `<namespace>/<workload>`.
    pub node: String,
    /// The SPIFFE ID it presented.
    pub identity: String,
    /// When the stream opened, in seconds since 1970.
    pub connected_since: u64,
    /// Revision that was last sent on this stream.
    pub sent: Option<String>,
    /// Revision that the proxy said it has: by an ACK, or when it reconnected.
    pub acked: Option<String>,
    /// Its last refusal, until it accepts something.
    pub nack: Option<Nack>,
}

/// A snapshot that a proxy refused; it goes on with the one it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The refused revision.
    pub revision: String,
    /// The proxy's reason.
    pub message: String,
}

/// Registry of open streams.
#[derive(Clone, Debug)]
pub(crate) struct Proxies {
    inner: Arc<Mutex<Inner>>,
    limit: usize,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    streams: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    status: ProxyStatus,
    superseded: CancellationToken,
}

/// A registered stream; leaves the registry when dropped.
#[derive(Debug)]
pub(crate) struct Session {
    id: u64,
    proxies: Proxies,
    /// Cancelled when newer streams of the same workload have taken its place.
    pub(crate) superseded: CancellationToken,
}

impl Proxies {
    pub(crate) fn new(limit: usize, metrics: Metrics) -> Self {
        Self { inner: Arc::default(), limit, metrics }
    }

    /// Registers a stream; `None` when the server is full. A workload beyond its own limit loses its oldest stream.
    pub(crate) fn register(&self, node: &Node, identity: &SpiffeId, now: u64) -> Option<Session> {
        let mut inner = self.lock();
        let own = || inner.streams.iter().filter(|(_, entry)| entry.status.node == node.as_str());
        if own().count() >= STREAMS_PER_WORKLOAD {
            let oldest = own().map(|(id, _)| *id).next();
            if let Some(entry) = oldest.and_then(|id| inner.streams.remove(&id)) {
                entry.superseded.cancel();
            }
        } else if inner.streams.len() >= self.limit {
            return None;
        }
        let id = inner.next;
        inner.next += 1;
        let superseded = CancellationToken::new();
        let status = ProxyStatus {
            node: node.to_string(),
            identity: identity.to_string(),
            connected_since: now,
            sent: None,
            acked: None,
            nack: None,
        };
        inner.streams.insert(id, Entry { status, superseded: superseded.clone() });
        self.count(&inner);
        Some(Session { id, proxies: self.clone(), superseded })
    }

    /// Every connected proxy, by workload.
    pub(crate) fn list(&self) -> Vec<ProxyStatus> {
        let mut all: Vec<_> = self.lock().streams.values().map(|entry| entry.status.clone()).collect();
        all.sort_by(|a, b| a.node.cmp(&b.node));
        all
    }

    fn count(&self, inner: &Inner) {
        self.metrics.connected.set(i64::try_from(inner.streams.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    pub(crate) fn update(&self, change: impl FnOnce(&mut ProxyStatus)) {
        if let Some(entry) = self.proxies.lock().streams.get_mut(&self.id) {
            change(&mut entry.status);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut inner = self.proxies.lock();
        inner.streams.remove(&self.id);
        self.proxies.count(&inner);
    }
}
