//! Who is asking on the socket, and whether it may have the identity.
//!
//! The socket itself can be reached by every local user: nothing but the kernel's word about the caller counts. Until
//! registration entries exist, the one identity goes to the users named in the configuration and to nobody else.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_wire::{Caller, UnixCaller};
use tonic::{Request, Status};

/// Decides about callers of the socket.
#[derive(Debug, Clone)]
pub(crate) struct Attestor {
    uids: Arc<BTreeSet<u32>>,
}

/// Why a caller gets nothing. The caller itself is told only that it has no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefuseCallerError {
    /// The kernel said nothing about the peer.
    #[error("the caller's credentials are unknown")]
    NoCredentials,
    /// The peer lives in a process namespace that is not visible from here, so nothing about it can be checked.
    #[error("the caller's process is not visible from here")]
    Hidden,
    /// No identity is meant for that user.
    #[error("no identity is registered for user {0}")]
    User(u32),
}

impl Attestor {
    /// Admits the processes of these users; of the agent's own effective user if there are none.
    pub(crate) fn new(uids: &[u32]) -> Self {
        let own = || rustix::process::geteuid().as_raw();
        let uids = if uids.is_empty() { BTreeSet::from([own()]) } else { uids.iter().copied().collect() };
        Self { uids: Arc::new(uids) }
    }

    /// Admits the caller of a request, or logs and refuses.
    ///
    /// # Errors
    /// PERMISSION_DENIED with a constant text.
    pub(crate) fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let peer = Caller::of(request).and_then(|caller| caller.unix);
        self.judge(peer).map_err(|why| {
            let (uid, gid, pid) = peer.map_or((None, None, None), |p| (Some(p.uid), Some(p.gid), Some(p.pid)));
            tracing::warn!(uid, gid, pid, reason = %why, "a caller of the workload socket was refused");
            Status::permission_denied("no identity issued")
        })
    }

    fn judge(&self, peer: Option<UnixCaller>) -> Result<(), RefuseCallerError> {
        let peer = peer.ok_or(RefuseCallerError::NoCredentials)?;
        if peer.pid == 0 {
            return Err(RefuseCallerError::Hidden);
        }
        if self.uids.contains(&peer.uid) { Ok(()) } else { Err(RefuseCallerError::User(peer.uid)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, pid: i32) -> Option<UnixCaller> {
        Some(UnixCaller { uid, gid: 7, pid })
    }

    #[test]
    fn users_named_are_admitted_and_no_others() {
        let attestor = Attestor::new(&[1000, 1001]);
        assert_eq!(attestor.judge(peer(1000, 5)), Ok(()));
        assert_eq!(attestor.judge(peer(1001, 5)), Ok(()));
        assert_eq!(attestor.judge(peer(0, 5)), Err(RefuseCallerError::User(0)), "root is nobody special");
        assert_eq!(attestor.judge(peer(1000, 0)), Err(RefuseCallerError::Hidden));
        assert_eq!(attestor.judge(None), Err(RefuseCallerError::NoCredentials));
    }

    #[test]
    fn without_names_only_the_own_user() {
        let own = rustix::process::geteuid().as_raw();
        let attestor = Attestor::new(&[]);
        assert_eq!(attestor.judge(peer(own, 5)), Ok(()));
        assert_eq!(attestor.judge(peer(own + 1, 5)), Err(RefuseCallerError::User(own + 1)));
    }

    #[test]
    fn a_request_without_credentials_is_denied_with_a_constant_text() {
        let status = Attestor::new(&[]).admit(&Request::new(())).unwrap_err();
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert_eq!(status.message(), "no identity issued");
    }
}
