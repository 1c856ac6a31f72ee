//! What every connection of one proxy shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use palisade_authz::DecisionSink;
use palisade_identity::Clock;
use palisade_policies::{MtlsMode, Workload};
use tokio_util::sync::CancellationToken;

use crate::callers::Callers;
use crate::certs::Certs;
use crate::config::Limits;
use crate::endpoint::Endpoints;
use crate::live::{CUT, DRAIN, Entry, Live, REJUDGE};
use crate::metrics::Metrics;
use crate::snapshot::ProxySnapshot;

/// Shared state of a proxy.
pub(crate) struct Core {
    pub(crate) workload: Workload,
    pub(crate) limits: Limits,
    pub(crate) certs: Certs,
    pub(crate) snapshot: ArcSwapOption<ProxySnapshot>,
    pub(crate) sink: Arc<dyn DecisionSink>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) live: Arc<Live>,
    /// Open connections to other workloads, pooled ones included.
    pub(crate) upstreams: Arc<Live>,
    pub(crate) endpoints: Endpoints,
    pub(crate) callers: Callers,
    /// Accepted connections not yet closed.
    pub(crate) accepted: AtomicUsize,
    /// Seconds since start, from 1; coarse on purpose, so that no request reads a clock for it.
    pub(crate) tick: AtomicU64,
    pub(crate) draining: AtomicBool,
    /// Ends the wait for a first byte.
    pub(crate) closing: CancellationToken,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("workload", &self.workload.name).finish_non_exhaustive()
    }
}

impl Core {
    /// Now, Unix seconds.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now().as_secs()
    }

    /// Now, for those who reckon with more than seconds.
    pub(crate) fn wall_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.now())
    }

    /// The coarse tick.
    pub(crate) fn tick(&self) -> u64 {
        self.tick.load(Ordering::Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes a new snapshot into use, then has everything open judged again. Plaintext connections to a port that became
    /// STRICT end here: no request of theirs could be let in again.
    pub(crate) fn swap(self: &Arc<Core>, snapshot: Option<Arc<ProxySnapshot>>) {
        let Some(snapshot) = snapshot else { return };
        snapshot.used_by(self);
        tracing::info!(revision = &*snapshot.revision, "snapshot in use");
        self.snapshot.store(Some(snapshot.clone()));
        self.live.for_each(|entry| {
            let strict = |port| snapshot.mode(port) == MtlsMode::Strict;
            let refused = entry.plaintext && entry.inbound_port.is_some_and(strict);
            entry.signal.raise(if refused { CUT | REJUDGE } else { REJUDGE });
        });
    }

    /// Takes the newest certificate and trust into use, and ends what is open with peers that they deny.
    pub(crate) fn take_identity(&self) {
        self.certs.refresh();
        let Some(epoch) = self.certs.current() else { return };
        if !epoch.identity.bundles.denied().is_empty() {
            for open in [&self.live, &self.upstreams] {
                open.for_each(|entry| entry.cut_if_denied(&epoch.identity.bundles));
            }
        }
    }

    /// Would peers accept the certificate in use? Not once it is revoked or has ended.
    pub(crate) fn has_usable_identity(&self) -> bool {
        let epoch = self.certs.current();
        epoch.is_some_and(|epoch| epoch.identity.svid.usable(&epoch.identity.bundles, self.clock.now()).is_ok())
    }

    /// Notes the peer of an open connection, and ends it if that peer is denied by now.
    pub(crate) fn note_peer(&self, entry: &Entry, serial: &str) {
        entry.peer(serial);
        if let Some(epoch) = self.certs.current() {
            entry.cut_if_denied(&epoch.identity.bundles);
        }
    }

    /// Once a second: connections whose peer's certificate ends now, idle ones over their time, pools.
    pub(crate) fn sweep(&self) {
        let tick = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        let now = self.now();
        let idle_limit = self.limits.idle_timeout.as_secs().max(1);
        self.live.for_each(|entry| {
            let idle = entry.idle_since.load(Ordering::Relaxed);
            let expired = entry.expires.load(Ordering::Relaxed) <= now;
            if expired || (idle != 0 && tick.saturating_sub(idle) > idle_limit) {
                entry.signal.raise(DRAIN);
            }
        });
        self.endpoints.sweep(self.certs.number(), tick, now);
    }

    /// Says to everything open: finish and go.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.closing.cancel();
        self.live.raise_for_good(DRAIN);
    }

    /// Says to everything still open: go.
    pub(crate) fn cut_all(&self) {
        self.live.raise_for_good(CUT);
    }
}
