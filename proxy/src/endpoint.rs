//! One place that connections are opened to: the application, or another workload; with its pool of idle connections.
//!
//! A pooled connection is used again only under the certificate and trust it was opened with (one endpoint expects one
//! identity, so nobody else's connection can be handed out), and only while the peer's certificate holds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use palisade_identity::SpiffeId;

use crate::connect::{Connected, TlsConfigs};
use crate::h2::H2Pool;
use crate::leg::Leg;

/// Most idle connections kept to one place.
const MOST_IDLE: usize = 512;

/// Where to connect, and who must answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EndpointKey {
    pub(crate) address: SocketAddr,
    /// The one ID the peer must prove; none means plaintext.
    pub(crate) identity: Option<SpiffeId>,
}

/// An idle HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) leg: Leg,
    /// Certificate epoch it was opened under; 0 for plaintext.
    pub(crate) epoch: u64,
    /// Unix seconds after which it is not used.
    pub(crate) expires: u64,
    /// Tick after which it is not used, by the server's own hint or our limit.
    until_tick: u64,
    since_tick: u64,
}

/// An endpoint with its pool.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) key: EndpointKey,
    pub(crate) tls: TlsConfigs,
    pub(crate) h2: H2Pool,
    in_flight: AtomicUsize,
    idle: Mutex<Vec<Idle>>,
}

impl Endpoint {
    pub(crate) fn new(key: EndpointKey) -> Endpoint {
        Endpoint {
            key,
            tls: TlsConfigs::default(),
            h2: H2Pool::default(),
            in_flight: AtomicUsize::new(0),
            idle: Mutex::default(),
        }
    }

    /// A pooled connection that can carry another request. For a request that must not be sent twice (`cautious`) only
    /// one that was used within the last second and is silent by the kernel's word.
    pub(crate) fn checkout(&self, epoch: u64, tick: u64, now: u64, cautious: bool) -> Option<Idle> {
        loop {
            let mut idle = self.lock().pop()?;
            let wanted_epoch = if self.key.identity.is_some() { epoch } else { 0 };
            let fresh = !cautious || tick.saturating_sub(idle.since_tick) <= 1;
            let valid = idle.epoch == wanted_epoch && idle.expires > now && tick <= idle.until_tick && fresh;
            if valid && idle.leg.stands_idle(cautious) {
                return Some(idle);
            }
        }
    }

    /// Keeps a connection whose last exchange ended cleanly. `hint` is the server's own idle timeout in seconds.
    pub(crate) fn checkin(&self, mut leg: Leg, connected: Connected, tick: u64, keep: Duration, hint: Option<u64>) {
        leg.release();
        let keep = hint.map_or(keep.as_secs(), |hint| hint.saturating_sub(1).min(keep.as_secs()));
        let idle =
            Idle { leg, epoch: connected.epoch, expires: connected.expires, until_tick: tick + keep, since_tick: tick };
        let mut pool = self.lock();
        if keep > 0 && pool.len() < MOST_IDLE {
            pool.push(idle);
        }
    }

    /// Counts something under way until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Endpoint>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    /// Requests and connections under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Closes idle connections that are over their time, closed by the peer, or of an older certificate.
    fn sweep(&self, epoch: u64, tick: u64, now: u64) {
        let wanted_epoch = if self.key.identity.is_some() { epoch } else { 0 };
        // Taken out for the check: whoever wants a connection meanwhile opens one instead of waiting.
        let taken = std::mem::take(&mut *self.lock());
        let kept = taken.into_iter().filter_map(|mut idle| {
            let valid = idle.epoch == wanted_epoch && idle.expires > now && tick <= idle.until_tick;
            (valid && idle.leg.stands_idle(false)).then_some(idle)
        });
        let mut kept: Vec<Idle> = kept.collect();
        let mut pool = self.lock();
        kept.append(&mut pool);
        *pool = kept;
        drop(pool);
        self.h2.sweep(wanted_epoch, now);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something under way to an endpoint.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Endpoint>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All endpoints in use, shared by the listeners, so that two listeners of one service share a pool.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    all: Mutex<HashMap<EndpointKey, Arc<Endpoint>>>,
}

impl Endpoints {
    /// The endpoint of that key.
    pub(crate) fn get(&self, key: EndpointKey) -> Arc<Endpoint> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(key.clone()).or_insert_with(|| Arc::new(Endpoint::new(key))).clone()
    }

    /// Tidies all pools and forgets endpoints that nobody holds.
    pub(crate) fn sweep(&self, epoch: u64, tick: u64, now: u64) {
        let endpoints: Vec<Arc<Endpoint>> = {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
            all.values().cloned().collect()
        };
        for endpoint in endpoints {
            endpoint.sweep(epoch, tick, now);
        }
    }
}
