//! The listeners every gRPC service of this project stands behind: one way to accept, to prove who
//! calls, to bound what a caller can hold, and to stop.
//!
//! HTTP/2 is served with hyper directly, not with tonic's server: a connection must end when the
//! certificate it was opened with expires, a peer that says nothing must be dropped before and
//! after the handshake alike, and what outlives the drain deadline must be cut.

use std::sync::Arc;
use std::time::Duration;

use palisade_identity::{VerifiedPeer, VerifyError};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

mod accept;
mod authority;
mod connection;
mod gather;
mod pages;
mod pin;
mod socket;
mod turn;

pub use pages::{Page, Pages, pages};
pub use socket::{SocketError, UnixSocket};

/// What one listener lets its callers hold.
#[derive(Clone, Debug)]
pub struct Limits {
    /// To the client's first byte, again for the TLS handshake, and again to the HTTP/2 preface.
    pub handshake_timeout: Duration,
    /// Connections over TLS that are taken on at once: from the handshake to the first answer, and a tenth of a second at most.
    pub newcomers: usize,
    /// Connections at once, handshakes included; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Open streams on one connection.
    pub max_concurrent_streams: u32,
    /// Bytes of one request's header list (HTTP/2 accounting: 32 bytes are added for each field).
    pub max_header_list: u32,
    /// Streams a client may reset before they were served; one more closes the connection.
    pub max_pending_resets: usize,
    /// A connection silent for so long is pinged.
    pub keepalive_interval: Duration,
    /// A ping unanswered for so long closes the connection.
    pub keepalive_timeout: Duration,
    /// After shutdown or expiry, open requests get so long to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            newcomers: 64,
            max_connections: 16_384,
            max_concurrent_streams: 1_024,
            max_header_list: 16 * 1_024,
            max_pending_resets: 64,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

/// Where a TLS listener gets its certificate and its judgement of clients. Asked for each
/// connection, so certificates and trust bundles rotate without a restart.
pub trait ServerTls: Send + Sync + 'static {
    /// The configuration for the next handshake; its ALPN should be `h2`.
    fn config(&self) -> Arc<ServerConfig>;

    /// Judges the chain a client presented, leaf first.
    ///
    /// # Errors
    /// The connection is closed.
    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedPeer, VerifyError>;

    /// Whether a chain that [`verify`](Self::verify) refused may stay, as [`Caller::stranger`](crate::Caller::stranger).
    fn admits(&self, _chain: &[CertificateDer<'_>]) -> bool {
        false
    }

    /// The time by which a connection outlives its client's certificate.
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }

    /// Wakes when a client that was let in may have to go, so that [`revokes`](Self::revokes) is asked; `None` if that never
    /// happens.
    fn changes(&self) -> Option<watch::Receiver<()>> {
        None
    }

    /// Whether a client that [`verify`](Self::verify) let in must go.
    fn revokes(&self, _peer: &VerifiedPeer) -> bool {
        false
    }
}

/// A pair of closures: the configuration, and the judgement of a presented chain.
impl<C, V> ServerTls for (C, V)
where
    C: Fn() -> Arc<ServerConfig> + Send + Sync + 'static,
    V: Fn(&[CertificateDer<'_>]) -> Result<VerifiedPeer, VerifyError> + Send + Sync + 'static,
{
    fn config(&self) -> Arc<ServerConfig> {
        (self.0)()
    }

    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedPeer, VerifyError> {
        (self.1)(chain)
    }
}

/// Serves `routes` over TLS until `shutdown`, then drains and returns.
///
/// Every request carries a [`Caller`](crate::Caller) with `address`, and `peer` where a certificate
/// was presented. A connection is told to go away when its client's certificate expires, and has a
/// second to do so when that is revoked. Accept errors are logged and backed off; none ends the loop.
pub async fn tls(
    listener: TcpListener,
    tls: Arc<dyn ServerTls>,
    routes: Routes,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let limits = Arc::new(limits);
    let serving = connection::Serving::new(routes, Arc::clone(&limits), shutdown.clone());
    accept::run(listener, &limits, &shutdown, move |(stream, address)| {
        connection::over_tls(stream, address, Arc::clone(&tls), serving.clone())
    })
    .await;
}

/// Serves `routes` on a Unix socket until `shutdown`, then drains, removes the socket and returns.
///
/// Every request carries a [`Caller`](crate::Caller) with `unix`. A connection whose peer the
/// kernel cannot name is closed.
pub async fn unix(socket: UnixSocket, routes: Routes, limits: Limits, shutdown: CancellationToken) {
    let limits = Arc::new(limits);
    let serving = connection::Serving::new(routes, Arc::clone(&limits), shutdown.clone());
    accept::run(socket, &limits, &shutdown, move |stream| connection::over_unix(stream, serving.clone())).await;
}
