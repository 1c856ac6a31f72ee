//! Opening a connection to an endpoint: TCP, and TLS to exactly the workload expected there.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palisade_identity::tls::TlsError;
use rustls_pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::certs::{Alpn, Epoch};
use crate::core::Core;
use crate::endpoint::Endpoint;
use crate::live::Entry;
use crate::stream::{Stream, Upstream};
use crate::wide::Wide;

/// Under what a connection stands, for as long as it is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connected {
    /// Certificate epoch; 0 for plaintext.
    pub(crate) epoch: u64,
    /// Unix seconds when it must no longer carry anything new: the peer's certificate ends, or it is old.
    pub(crate) expires: u64,
}

/// Why there is no connection to an endpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("connecting to {0} failed")]
    Tcp(SocketAddr, #[source] io::Error),
    #[error("connecting to {0} took too long")]
    Timeout(SocketAddr),
    #[error("no certificate of our own yet, so {0} cannot be called")]
    NoIdentity(SocketAddr),
    #[error("no TLS configuration for {0}")]
    Config(SocketAddr, #[source] TlsError),
    #[error("TLS with {0} failed")]
    Tls(SocketAddr, #[source] io::Error),
}

impl ConnectError {
    /// A stable word for metrics, records and the response's reason header.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            ConnectError::Tcp(..) => "upstream-connect",
            ConnectError::Timeout(_) => "upstream-timeout",
            ConnectError::NoIdentity(_) => "no-identity",
            ConnectError::Config(..) => "tls-configuration",
            ConnectError::Tls(..) => "upstream-tls",
        }
    }
}

type Cached = (u64, Alpn, Arc<rustls::ClientConfig>);

/// TLS configurations to one peer, built once for each certificate and protocol.
#[derive(Debug, Default)]
pub(crate) struct TlsConfigs(Mutex<Vec<Cached>>);

impl TlsConfigs {
    fn get(&self, endpoint: &Endpoint, epoch: &Epoch, alpn: Alpn) -> Result<Arc<rustls::ClientConfig>, ConnectError> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.retain(|(number, ..)| *number == epoch.number);
        if let Some((.., config)) = cached.iter().find(|(_, of, _)| *of == alpn) {
            return Ok(config.clone());
        }
        let address = endpoint.key.address;
        let peer = endpoint.key.identity.as_ref().ok_or(ConnectError::NoIdentity(address))?;
        let config = epoch.client(peer, alpn).map_err(|e| ConnectError::Config(address, e))?;
        cached.push((epoch.number, alpn, config.clone()));
        Ok(config)
    }
}

/// Opens a connection; `alpn` counts only where the endpoint has an identity.
pub(crate) async fn open(core: &Core, endpoint: &Endpoint, alpn: Alpn) -> Result<(Stream, Connected), ConnectError> {
    let address = endpoint.key.address;
    let limit = core.limits.connect_timeout;
    let tcp = timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| ConnectError::Timeout(address))?
        .map_err(|e| ConnectError::Tcp(address, e))?;
    tune(&tcp);
    if endpoint.key.identity.is_none() {
        return Ok((Stream::Plain(tcp), Connected { epoch: 0, expires: u64::MAX }));
    }
    let epoch = core.certs.current().ok_or(ConnectError::NoIdentity(address))?;
    let config = endpoint.tls.get(endpoint, &epoch, alpn)?;
    let connector = tokio_rustls::TlsConnector::from(config);
    // An IP address as the name: no SNI is sent. The peer is judged by its SPIFFE ID.
    let name = ServerName::from(address.ip());
    let stream = timeout(core.limits.handshake_timeout, connector.connect(name, Wide::new(tcp)))
        .await
        .map_err(|_| ConnectError::Timeout(address))?
        .map_err(|e| ConnectError::Tls(address, e))?;
    let peer = palisade_identity::tls::peer(stream.get_ref().1, &epoch.identity.bundles, core.clock.now())
        .map_err(|e| ConnectError::Tls(address, io::Error::other(e)))?;
    let expires = peer.not_after().as_secs().min(core.now().saturating_add(core.limits.max_connection_age.as_secs()));
    let open = core.upstreams.open(Arc::new(Entry::new(None, false, expires)));
    core.note_peer(&open, peer.serial());
    Ok((Stream::Client(Box::new(Upstream { tls: stream, open })), Connected { epoch: epoch.number, expires }))
}

/// What every socket gets: small writes leave at once, dead peers are noticed.
pub(crate) fn tune(tcp: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(5);
    // Both are best effort: a socket that refuses an option still carries traffic.
    let _ = tcp.set_nodelay(true);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&keepalive);
}
