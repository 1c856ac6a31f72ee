//! Who still calls in plaintext: the evidence that decides when a port can become STRICT.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Addresses remembered; further ones are counted together.
const MOST: usize = 1024;

/// One plaintext caller.
#[derive(Debug)]
pub(crate) struct Caller {
    /// `<namespace>/<workload>` at that address: a hint, not an identity.
    pub(crate) hint: Option<String>,
    /// The application's port called.
    pub(crate) port: u16,
    pub(crate) connections: AtomicU64,
    pub(crate) requests: AtomicU64,
    /// Unix seconds of the last connection.
    pub(crate) last: AtomicU64,
}

/// Plaintext callers by address and port.
#[derive(Debug, Default)]
pub(crate) struct Callers {
    seen: Mutex<HashMap<(IpAddr, u16), Arc<Caller>>>,
    /// Connections of callers beyond those remembered.
    pub(crate) others: AtomicU64,
}

impl Callers {
    /// Notes a plaintext connection.
    pub(crate) fn connection(&self, ip: IpAddr, port: u16, hint: Option<String>, now: u64) -> Option<Arc<Caller>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST && !seen.contains_key(&(ip, port)) {
            self.others.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let caller = seen.entry((ip, port)).or_insert_with(|| {
            let (connections, requests, last) = Default::default();
            Arc::new(Caller { hint, port, connections, requests, last })
        });
        caller.connections.fetch_add(1, Ordering::Relaxed);
        caller.last.store(now, Ordering::Relaxed);
        Some(caller.clone())
    }

    /// All remembered, ordered by address.
    pub(crate) fn all(&self) -> Vec<(IpAddr, Arc<Caller>)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = seen.iter().map(|((ip, _), caller)| (*ip, caller.clone())).collect();
        all.sort_by_key(|(ip, caller)| (*ip, caller.port));
        all
    }
}
