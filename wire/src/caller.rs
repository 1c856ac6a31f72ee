//! Who is calling, as the transport proved it. Services read it from the request's extensions
//! and decide for themselves what it is good for; nothing a caller writes can change it.

use std::net::SocketAddr;
use std::sync::Arc;

use palisade_identity::{CertificateDer, VerifiedPeer};

/// The other end of the connection a request came in on; in every request's extensions.
///
/// On TLS `address` is set and `peer` if a certificate was presented (it is verified by then; `stranger` if it was let in
/// unverified); on a
/// Unix socket only `unix`.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The verified SPIFFE identity; `None` if the client presented no certificate.
    pub peer: Option<Arc<VerifiedPeer>>,
    /// The chain of a client that is nobody of the trust bundle and that [`ServerTls::admits`](crate::serve::ServerTls::admits)
    /// let in all the same, leaf first: its key was proven at the handshake, and nothing else. It is worth nothing to a
    /// service that does not judge it itself.
    pub stranger: Option<Arc<[CertificateDer<'static>]>>,
    /// Where the TCP connection came from.
    pub address: Option<SocketAddr>,
    /// The process on the other end of a Unix socket.
    pub unix: Option<UnixCaller>,
}

impl Caller {
    /// The caller of a request served by this crate; `None` for one that came another way.
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Option<&Self> {
        request.extensions().get()
    }

    /// The address as text, `unix:<pid>` for a Unix socket, empty if unknown: for logs and rows.
    #[must_use]
    pub fn describe(&self) -> String {
        match (&self.address, &self.unix) {
            (Some(address), _) => address.to_string(),
            (None, Some(unix)) => format!("unix:{}", unix.pid),
            (None, None) => String::new(),
        }
    }
}

/// Credentials the kernel recorded when the process connected (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixCaller {
    /// Process id in our namespace; 0 if the process cannot be seen from it.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// When the process began, in clock ticks since the machine's start: with the id it names this very process for as long as
    /// the machine runs, whatever else gets the same id later. `None` if the process could not be held while it was read:
    /// it was gone, or is not visible from here.
    pub started: Option<u64>,
}
