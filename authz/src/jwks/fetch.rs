//! One document over HTTP, from a server that may be hostile: the name is resolved once, every address judged, and
//! the connection goes to a judged address, so that a second answer of the DNS changes nothing. Nothing is followed,
//! nothing is longer than the limit, and the caller's deadline ends it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::{Scheme, Uri};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::guard::Guard;
use super::key_set::{KeySet, KeySetError};
use crate::strict_json;

/// More addresses of one name are not tried.
const MAX_ADDRESSES: usize = 8;

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Not an absolute `http` or `https` URI with a host.
    #[error("`{0}` is not an http or https URI with a host and without credentials")]
    Uri(String),
    /// The name has no address.
    #[error("cannot resolve `{0}`")]
    Resolve(String, #[source] io::Error),
    /// Every address is private or special, and none is allowed.
    #[error("`{host}` is at {addresses}, which the key fetcher may not reach (`palisade.jwksAllow` lists exceptions)")]
    Guarded {
        /// The host of the URI.
        host: String,
        /// Its addresses, separated by commas.
        addresses: String,
    },
    /// No connection.
    #[error("cannot connect to `{0}`")]
    Connect(String, #[source] io::Error),
    /// No usable root certificates on this machine.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The host of the URI cannot be the name of a certificate.
    #[error("`{0}` cannot be the name of a TLS server")]
    ServerName(String, #[source] InvalidDnsNameError),
    /// The connection broke, or what came was no HTTP.
    #[error("the exchange with `{0}` failed")]
    Http(String, #[source] hyper::Error),
    /// A status other than 200. Redirects are not followed.
    #[error("`{0}` answered {1}")]
    Status(String, StatusCode),
    /// A longer answer than allowed.
    #[error("the answer of `{0}` is longer than {1} bytes")]
    TooLong(String, usize),
    /// Not UTF-8.
    #[error("the answer of `{0}` is no text")]
    NotText(String),
    /// An answer that is no key set.
    #[error("the answer of `{0}` is no key set")]
    KeySet(String, #[source] KeySetError),
    /// An OpenID configuration without a usable `jwks_uri`.
    #[error("the OpenID configuration of `{0}` names no `jwks_uri`")]
    Discovery(String),
    /// An issuer on https whose keys are to come over http.
    #[error("the OpenID configuration of `{0}` leads from https to http")]
    Downgrade(String),
    /// The rule's timeout is over.
    #[error("no answer in time")]
    Timeout,
}

/// Whose keys to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Uri(String),
    Issuer(String),
}

pub(super) struct Fetcher {
    guard: Guard,
    max_bytes: usize,
    extra_roots: Vec<CertificateDer<'static>>,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Fetcher {
    pub(super) fn new(guard: Guard, max_bytes: usize, extra_roots: Vec<CertificateDer<'static>>) -> Self {
        Self { guard, max_bytes, extra_roots, tls: OnceCell::new() }
    }

    /// The key set of `source`; unbounded in time.
    pub(super) async fn key_set(&self, source: &Source) -> Result<KeySet, FetchError> {
        let uri = match source {
            Source::Uri(uri) => uri.clone(),
            Source::Issuer(issuer) => self.discover(issuer).await?,
        };
        let text = self.get(&uri).await?;
        KeySet::parse(&text).map_err(|error| FetchError::KeySet(uri, error))
    }

    /// OpenID Connect Discovery 1.0, section 4.
    async fn discover(&self, issuer: &str) -> Result<String, FetchError> {
        let text = self.get(&format!("{}{DISCOVERY}", issuer.strip_suffix('/').unwrap_or(issuer))).await?;
        let configuration = strict_json::parse(text.as_bytes()).ok();
        let uri = configuration.as_ref().and_then(|value| value.get("jwks_uri")?.as_str()).unwrap_or_default();
        if uri.is_empty() {
            Err(FetchError::Discovery(issuer.to_owned()))
        } else if issuer.starts_with("https:") && !uri.starts_with("https:") {
            Err(FetchError::Downgrade(issuer.to_owned()))
        } else {
            Ok(uri.to_owned())
        }
    }

    async fn get(&self, text: &str) -> Result<String, FetchError> {
        let target = Target::parse(text)?;
        let stream = self.connect(&target).await?;
        let body = if target.tls {
            let name = target.server_name()?;
            let connector = TlsConnector::from(self.tls().await?);
            let stream = connector.connect(name, stream).await;
            let stream = stream.map_err(|error| FetchError::Connect(text.to_owned(), error))?;
            self.exchange(stream, &target).await?
        } else {
            self.exchange(stream, &target).await?
        };
        String::from_utf8(body).map_err(|_| FetchError::NotText(text.to_owned()))
    }

    /// To the first admitted address that answers: one that swallows packets must not use up the others' time.
    async fn connect(&self, target: &Target) -> Result<TcpStream, FetchError> {
        let found = target.addresses().await?;
        let mut attempts = JoinSet::new();
        for address in found.iter().filter(|address| self.guard.admits(address.ip())).take(MAX_ADDRESSES) {
            attempts.spawn(TcpStream::connect(*address));
        }
        if attempts.is_empty() {
            let addresses: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
            return Err(FetchError::Guarded { host: target.host.clone(), addresses: addresses.join(", ") });
        }
        let mut last = io::Error::other("no address was tried");
        while let Some(attempt) = attempts.join_next().await {
            match attempt.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(FetchError::Connect(target.text.clone(), last))
    }

    async fn exchange<S>(&self, stream: S, target: &Target) -> Result<Vec<u8>, FetchError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let broken = |error| FetchError::Http(target.text.clone(), error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut connection = pin!(connection);
        let mut work = pin!(async {
            let response = sender.send_request(target.request()?).await.map_err(broken)?;
            self.read(response, target).await
        });
        tokio::select! {
            done = &mut work => done,
            // Frames that came before the end are still to be read.
            _ = &mut connection => work.await,
        }
    }

    async fn read(&self, response: Response<Incoming>, target: &Target) -> Result<Vec<u8>, FetchError> {
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(target.text.clone(), response.status()));
        }
        let mut body = response.into_body();
        let too_long = || FetchError::TooLong(target.text.clone(), self.max_bytes);
        if body.size_hint().lower() > self.max_bytes as u64 {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| FetchError::Http(target.text.clone(), error))?;
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(data);
            }
            if bytes.len() > self.max_bytes {
                return Err(too_long());
            }
        }
        Ok(bytes)
    }

    /// Made when the first https URI is fetched: reading the system's certificates takes a while.
    async fn tls(&self) -> Result<Arc<ClientConfig>, FetchError> {
        let config = self.tls.get_or_try_init(|| async {
            let extra = self.extra_roots.clone();
            let built = tokio::task::spawn_blocking(move || client_config(&extra)).await;
            built.unwrap_or_else(|error| Err(FetchError::Tls(error.to_string())))
        });
        Ok(Arc::clone(config.await?))
    }
}

/// System roots and `extra`. Some machines have certificates that cannot be read: the others count all the same.
fn client_config(extra: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, FetchError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(extra.iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| FetchError::Tls(error.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A URI, taken apart.
struct Target {
    text: String,
    uri: Uri,
    tls: bool,
    host: String,
    port: u16,
}

impl Target {
    fn parse(text: &str) -> Result<Self, FetchError> {
        let bad = || FetchError::Uri(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let scheme = uri.scheme().filter(|scheme| **scheme == Scheme::HTTP || **scheme == Scheme::HTTPS);
        let tls = *scheme.ok_or_else(bad)? == Scheme::HTTPS;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(bad)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str().len() == authority.host().len() => {
                if tls {
                    443
                } else {
                    80
                }
            }
            None => return Err(bad()),
        };
        if host.is_empty() {
            return Err(bad());
        }
        Ok(Self { text: text.to_owned(), tls, host, port, uri })
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, FetchError> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let found = lookup_host((self.host.as_str(), self.port)).await;
        Ok(found.map_err(|error| FetchError::Resolve(self.host.clone(), error))?.collect())
    }

    fn server_name(&self) -> Result<ServerName<'static>, FetchError> {
        ServerName::try_from(self.host.clone()).map_err(|error| FetchError::ServerName(self.host.clone(), error))
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, FetchError> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        Request::get(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "palisade")
            .header(header::CONNECTION, "close")
            .body(Empty::new())
            .map_err(|_| FetchError::Uri(self.text.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_uris_with_a_host_and_without_credentials_are_fetched() {
        for text in [
            "",
            "/keys",
            "keys",
            "ftp://a/",
            "file:///etc/passwd",
            "http://",
            "http://u:p@a/",
            "http://u@a:80/",
            "http://u@a/",
            "https://a:99999/",
            "http://a:/x",
            "http://[::1/",
            "unix:///a",
            "http:a",
            "http://a b/",
        ] {
            assert!(matches!(Target::parse(text), Err(FetchError::Uri(_))), "{text}");
        }
        for (text, tls, host, port) in [
            ("http://a/k", false, "a", 80),
            ("https://a.b:8443?x", true, "a.b", 8443),
            ("HTTPS://[::1]/", true, "::1", 443),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.tls, target.host.as_str(), target.port), (tls, host, port), "{text}");
        }
    }

    #[tokio::test]
    async fn numbers_that_only_some_resolvers_read_as_addresses_are_judged_as_what_they_become() {
        let fetcher = Fetcher::new(Guard::new(&[]), 1024, Vec::new());
        for text in
            ["http://2130706433/", "http://0x7f.1/", "http://017700000001/", "http://127.1/", "http://[::ffff:7f00:1]/"]
        {
            let refused = fetcher.get(text).await.unwrap_err();
            assert!(matches!(refused, FetchError::Guarded { .. } | FetchError::Resolve(..)), "{text}: {refused}");
        }
    }
}
