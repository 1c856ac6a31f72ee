//! One document from a file or over HTTP: bounded in time and length, nothing followed.
//!
//! The URL is the operator's own, so no address is forbidden.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::keys::MAX_BYTES;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("cannot read `{0}`")]
    File(String, #[source] io::Error),
    #[error("`{0}` is longer than {MAX_BYTES} bytes")]
    TooLong(String),
    #[error("`{0}` is not an http or https URL with a host")]
    Url(String),
    #[error("cannot connect to `{0}`")]
    Connect(String, #[source] io::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    #[error("the exchange with `{0}` failed")]
    Http(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("`{0}` answered {1}")]
    Status(String, StatusCode),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
}

/// The content of a file; blocking.
pub(super) fn file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let name = || path.display().to_string();
    let mut text = Vec::new();
    let opened = File::open(path).map_err(|error| FetchError::File(name(), error))?;
    let limit = MAX_BYTES as u64 + 1;
    opened.take(limit).read_to_end(&mut text).map_err(|error| FetchError::File(name(), error))?;
    if text.len() > MAX_BYTES { Err(FetchError::TooLong(name())) } else { Ok(text) }
}

/// The document behind a URL.
pub(super) async fn url(text: &str) -> Result<Vec<u8>, FetchError> {
    tokio::time::timeout(TIMEOUT, get(text)).await.unwrap_or(Err(FetchError::Timeout))
}

async fn get(text: &str) -> Result<Vec<u8>, FetchError> {
    let bad = || FetchError::Url(text.to_owned());
    let uri: Uri = text.parse().map_err(|_| bad())?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(bad()),
    };
    let host = uri.host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let failed = |error| FetchError::Connect(text.to_owned(), error);
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(failed)?;
    if !tls {
        return exchange(stream, text, &uri).await;
    }
    let name = ServerName::try_from(host).map_err(|_| bad())?;
    let config = tokio::task::spawn_blocking(client_config).await;
    let config = config.unwrap_or_else(|error| Err(FetchError::Tls(error.to_string())))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(failed)?;
    exchange(stream, text, &uri).await
}

async fn exchange<S>(stream: S, text: &str, uri: &Uri) -> Result<Vec<u8>, FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| FetchError::Http(text.to_owned(), error);
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.into()))?;
    let connection = tokio::spawn(connection);
    let work = async {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
            .header(header::ACCEPT, "application/json")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new());
        let request = request.map_err(|_| FetchError::Url(text.to_owned()))?;
        let response = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(text.to_owned(), response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<http_body_util::LengthLimitError>() {
            Some(_) => FetchError::TooLong(text.to_owned()),
            None => broken(error),
        })?;
        Ok(body.to_bytes().to_vec())
    };
    let done = work.await;
    connection.abort();
    done
}

/// The system's roots.
fn client_config() -> Result<Arc<ClientConfig>, FetchError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let builder = ClientConfig::builder_with_provider(palisade_identity::tls::provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| FetchError::Tls(error.to_string()))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
