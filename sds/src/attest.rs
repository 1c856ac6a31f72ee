//! Who is asking on the socket: what the kernel says about the process, as selectors.
//!
//! The socket itself can be reached by every local user: nothing but the kernel's word about the caller counts, and nothing that
//! the caller could have written itself. The process is looked at anew for each call, and is proved before and after to be the one
//! that connected; what cannot be learned about it is missing from its selectors, so that entries which ask for it do not match.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_identity::error_chain;
use palisade_wire::{Caller, UnixCaller};
use tokio::sync::Semaphore;
use tonic::{Request, Status};

use binary::Binaries;
pub(crate) use process::ProcessError;

mod binary;
mod cgroup;
mod process;
mod selectors;
mod users;

/// Most processes looked at in one moment: reading is quick, hashing a binary for the first time is not.
const MAX_AT_ONCE: usize = 8;
/// What a caller without an identity is told, whatever the reason.
pub(crate) const DENIED: &str = "no identity issued";

/// Looks at callers of the socket.
#[derive(Debug, Clone)]
pub(crate) struct Attestor {
    binaries: Arc<Binaries>,
    slots: Arc<Semaphore>,
}

/// What is known about one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The process as it connected.
    pub(crate) caller: UnixCaller,
    /// `kind:value`, in the manner of SPIRE.
    pub(crate) selectors: BTreeSet<String>,
    /// Kinds of selectors that could not be learned, each with the reason.
    pub(crate) unknown: Vec<(&'static str, String)>,
}

/// Why nothing is known about a caller. The caller itself is told only that it has no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttestError {
    /// The kernel said nothing about the peer.
    #[error("the caller's credentials are unknown")]
    NoCredentials,
    /// The process is not what it was, or cannot be looked at.
    #[error("the calling process cannot be attested")]
    Process(#[source] ProcessError),
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopping,
}

impl AttestError {
    /// Is there nobody any more to be attested?
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self, Self::Process(ProcessError::Gone(_) | ProcessError::Recycled(_)))
    }
}

impl Attestor {
    pub(crate) fn new() -> Self {
        Self { binaries: Arc::default(), slots: Arc::new(Semaphore::new(MAX_AT_ONCE)) }
    }

    /// What is known about the caller of a request; or logs why nothing is, and refuses.
    ///
    /// # Errors
    /// PERMISSION_DENIED with a constant text.
    pub(crate) async fn admit<T>(&self, request: &Request<T>) -> Result<Evidence, Status> {
        let peer = Caller::of(request).and_then(|caller| caller.unix);
        self.look(peer).await.map_err(|why| {
            let (uid, gid, pid) = peer.map_or((None, None, None), |p| (Some(p.uid), Some(p.gid), Some(p.pid)));
            tracing::warn!(uid, gid, pid, reason = %error_chain(&why), "a caller of the workload socket was refused");
            Status::permission_denied(DENIED)
        })
    }

    /// Reads everything about the process that has this number now, for the operator: it has not connected.
    pub(crate) async fn look_at(&self, pid: i32) -> Result<Evidence, AttestError> {
        let caller = process::by_number(pid).map_err(AttestError::Process)?;
        self.look(Some(caller)).await
    }

    /// Reads everything about a process.
    pub(crate) async fn look(&self, peer: Option<UnixCaller>) -> Result<Evidence, AttestError> {
        let caller = peer.ok_or(AttestError::NoCredentials)?;
        let _slot = self.slots.acquire().await.map_err(|_| AttestError::Stopping)?;
        let binaries = Arc::clone(&self.binaries);
        let read = tokio::task::spawn_blocking(move || selectors::collect(caller, &binaries));
        read.await.map_err(|_| AttestError::Stopping)?.map_err(AttestError::Process)
    }
}

impl Evidence {
    /// Says on the log that no identity is meant for the process, and what it showed.
    pub(crate) fn log_refusal(&self) {
        let UnixCaller { uid, gid, pid, .. } = self.caller;
        tracing::warn!(uid, gid, pid, selectors = ?self.selectors, "no identity is registered for a caller");
    }
}

#[cfg(test)]
mod tests;
