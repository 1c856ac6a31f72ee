//! Who asks, and what its word is good for.
//!
//! An enforcer tells this service who *its* client is. Whoever can reach the port could tell anything, so that word counts only
//! from a caller that proved itself: by mutual TLS with an identity that may ask, or, where the operator says so, by being on
//! the same machine.

use std::collections::BTreeSet;

use palisade_identity::SpiffeId;
use palisade_policies::WorkloadEntry;
use palisade_wire::Caller;

use crate::source::PolicySnapshot;

/// Which callers count.
#[derive(Debug, Clone, Default)]
pub struct Callers {
    /// Identities that may ask about every workload, and whose word about their clients counts: gateways. A caller with any
    /// other identity may ask about workloads of its own identity, as a sidecar does.
    pub trusted: BTreeSet<SpiffeId>,
    /// Whether the word of a caller without TLS counts. Such a port is only ever opened on loopback, and every process of the
    /// machine can reach it.
    pub trust_loopback: bool,
}

/// What is known about one caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its word counts, for every workload.
    Trusted,
    /// Its word counts, for workloads of this identity.
    Own(SpiffeId),
    /// It may ask, and its word about its client does not count.
    Unproven,
}

impl Callers {
    pub(crate) fn standing(&self, caller: &Caller) -> Standing {
        match &caller.peer {
            Some(peer) if self.trusted.contains(peer.id()) => Standing::Trusted,
            Some(peer) => Standing::Own(peer.id().clone()),
            None if self.trust_loopback => Standing::Trusted,
            None => Standing::Unproven,
        }
    }
}

impl Standing {
    /// Whether this caller may ask about that workload at all.
    pub(crate) fn may_ask(&self, snapshot: &PolicySnapshot, entry: &WorkloadEntry) -> bool {
        match self {
            Self::Trusted | Self::Unproven => true,
            Self::Own(id) => snapshot.identity_of(entry).as_ref() == Some(id),
        }
    }

    /// Whether what it says about its client counts.
    pub(crate) fn is_proven(&self) -> bool {
        *self != Self::Unproven
    }
}
