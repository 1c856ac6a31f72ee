//! Chains that were accepted lately, so that the same chain need not be verified again.
//!
//! A peer's chain is verified in the handshake, once more when the accepted connection asks who is there, and on each of its next
//! connections: nearly always the same bytes, and two signatures each time. The answer is a function of the chain, the bundles and
//! the time. The memory belongs to one set of bundles, so it holds, by hash of the whole chain, the accepted peer and the
//! span of time in which every certificate of its path is within its dates. Refusals are not remembered.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::VerifiedPeer;
use crate::bundle::to_array;

/// How many chains a generation holds. There are two, so at most twice as many are remembered, under a kilobyte each.
const GENERATION: usize = 1024;

pub(crate) type ChainHash = [u8; 32];

/// SHA-256 over all certificates, each after its length: equal only for equal chains.
pub(crate) fn hash(chain: &[CertificateDer<'_>]) -> ChainHash {
    let mut context = Context::new(&SHA256);
    for der in chain {
        context.update(&der.len().to_be_bytes());
        context.update(der);
    }
    to_array(context.finish().as_ref())
}

/// A span of time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: UnixTime,
    pub(crate) until: UnixTime,
}

impl Window {
    pub(crate) fn contains(self, now: UnixTime) -> bool {
        self.from <= now && now <= self.until
    }

    pub(crate) fn intersect(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }
}

type Generation = HashMap<ChainHash, (VerifiedPeer, Window)>;

/// Two generations: when the young one is full the old one is forgotten, and what is still asked for moves up.
#[derive(Default)]
pub(crate) struct Memo(Mutex<(Generation, Generation)>);

impl Memo {
    pub(crate) fn get(&self, chain: &ChainHash, now: UnixTime) -> Option<VerifiedPeer> {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (young, old) = &mut *generations;
        if let Some((peer, window)) = young.get(chain) {
            return window.contains(now).then(|| peer.clone());
        }
        let (peer, window) = old.remove(chain)?;
        let found = window.contains(now).then(|| peer.clone());
        insert(&mut generations, *chain, (peer, window));
        found
    }

    pub(crate) fn put(&self, chain: ChainHash, peer: VerifiedPeer, window: Window) {
        insert(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), chain, (peer, window));
    }
}

fn insert((young, old): &mut (Generation, Generation), chain: ChainHash, entry: (VerifiedPeer, Window)) {
    if young.len() >= GENERATION {
        *old = std::mem::take(young);
    }
    young.insert(chain, entry);
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

#[cfg(test)]
mod tests;
