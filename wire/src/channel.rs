//! Client channels over transports this project chooses itself: TLS with its own verifier, or a
//! Unix socket. Tonic's own TLS would bring a second opinion on certificates.
//!
//! Every channel connects on first use, reconnects by itself, gives up a connection attempt after
//! [`CONNECT_TIMEOUT`], and pings an idle server so that a dead one is noticed.

use std::error::Error as StdError;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

/// A connection attempt (name lookup, TCP and TLS together) may take this long.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

type BoxError = Box<dyn StdError + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<TokioIo<T>, BoxError>> + Send>>;

/// Why a channel could not be made. Connecting comes later and fails as a `tonic::Status`.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The endpoint is not `host:port`.
    #[error("`{0}` is not of the form host:port")]
    Endpoint(String),
    /// The name to verify is neither a DNS name nor an IP address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    ServerName(String),
}

/// A channel to `endpoint` (`host:port`) over TLS, the server verified by `config` under
/// `server_name` (DNS name or IP address).
///
/// # Errors
/// [`ChannelError`] if either text is malformed; nothing is connected yet.
pub fn tls(endpoint: &str, server_name: &str, config: Arc<ClientConfig>) -> Result<Channel, ChannelError> {
    tls_with(endpoint, server_name, move || Ok(Arc::clone(&config)))
}

/// Like [`tls`], with the configuration asked for at each connection attempt, so that a renewed
/// certificate is used by the next connection. `config` may fail: the attempt then fails with
/// its error, and the next call tries again.
///
/// # Errors
/// [`ChannelError`] if either text is malformed; nothing is connected yet.
pub fn tls_with<F>(endpoint: &str, server_name: &str, config: F) -> Result<Channel, ChannelError>
where
    F: Fn() -> Result<Arc<ClientConfig>, BoxError> + Send + Sync + 'static,
{
    let uri = authority_uri(endpoint)?;
    let name =
        ServerName::try_from(server_name.to_owned()).map_err(|_| ChannelError::ServerName(server_name.to_owned()))?;
    let connector = Tls { address: endpoint.into(), name, config: Arc::new(config) };
    // Requests say `https`; the endpoint itself does not, or tonic would add a TLS layer of its
    // own where some other crate of the build has switched that feature on.
    let endpoint = tuned(Endpoint::from_static("http://palisade.invalid")).origin(uri);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// A channel over the Unix socket at `path`.
#[must_use]
pub fn unix(path: impl AsRef<Path>) -> Channel {
    // The authority of a gRPC call over a Unix socket is `localhost` by convention.
    let endpoint = tuned(Endpoint::from_static("http://localhost"));
    endpoint.connect_with_connector_lazy(Unix { path: Arc::from(path.as_ref()) })
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

fn authority_uri(endpoint: &str) -> Result<Uri, ChannelError> {
    let refuse = || ChannelError::Endpoint(endpoint.to_owned());
    let authority: http::uri::Authority = endpoint.parse().map_err(|_| refuse())?;
    if authority.port_u16().is_none() || authority.host().is_empty() || endpoint.contains('@') {
        return Err(refuse());
    }
    Uri::builder().scheme("https").authority(authority).path_and_query("/").build().map_err(|_| refuse())
}

struct Tls<F> {
    address: Arc<str>,
    name: ServerName<'static>,
    config: Arc<F>,
}

impl<F> Service<Uri> for Tls<F>
where
    F: Fn() -> Result<Arc<ClientConfig>, BoxError> + Send + Sync + 'static,
{
    type Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<tokio_rustls::client::TlsStream<TcpStream>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (address, name) = (Arc::clone(&self.address), self.name.clone());
        let config = Arc::clone(&self.config);
        Box::pin(async move {
            let connector = TlsConnector::from(config()?);
            let tcp = TcpStream::connect(&*address).await?;
            tcp.set_nodelay(true)?;
            Ok(TokioIo::new(connector.connect(name, tcp).await?))
        })
    }
}

struct Unix {
    path: Arc<Path>,
}

impl Service<Uri> for Unix {
    type Response = TokioIo<UnixStream>;
    type Error = BoxError;
    type Future = Connecting<UnixStream>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path: PathBuf = self.path.to_path_buf();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(path).await?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_host_and_port() {
        for good in ["localhost:15012", "127.0.0.1:1", "[::1]:15012"] {
            assert!(authority_uri(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost", ":15012", "a b:1", "https://a:1", "a:99999", "u@h:1", "a:1/x"] {
            assert!(authority_uri(bad).is_err(), "{bad}");
        }
    }
}
