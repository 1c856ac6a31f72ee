//! What a provider is told: an owned copy of the request, made only when a provider is really asked.

use std::fmt;
use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;

/// One request, or one connection, as a provider sees it.
///
/// `Debug` prints names of headers only: their values and the body hold credentials.
#[derive(Clone)]
pub struct CheckRequest {
    /// Method.
    pub method: Option<String>,
    /// Path with query, normalised as it is decided and forwarded; `None` for CONNECT.
    pub target: Option<String>,
    /// Host or `:authority` as sent.
    pub host: Option<String>,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: String,
    /// The other headers, in order, as policy sees them: no `host`, repeated names repeated, values trimmed.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Who calls.
    pub source: Party,
    /// What is called.
    pub destination: Party,
    /// Server name as the client sent it. Told to providers of connections only, as Istio configures Envoy.
    pub sni: Option<String>,
    /// The body, or its beginning, where [`crate::provider::Providers::body_wanted`] says that it is wanted.
    pub body: Option<Bytes>,
    /// The body went on after `body`.
    pub body_partial: bool,
    /// Bytes of the body that had come when the provider was asked; by default the length of `body`.
    pub body_size: Option<u64>,
    /// When the request came.
    pub time: SystemTime,
    /// A connection without HTTP.
    pub tcp: bool,
}

/// One side of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Party {
    /// Address and port.
    pub address: Option<SocketAddr>,
    /// Verified SPIFFE ID without `spiffe://`.
    pub principal: Option<String>,
}

impl Default for CheckRequest {
    fn default() -> Self {
        Self {
            method: None,
            target: None,
            host: None,
            scheme: None,
            protocol: String::new(),
            headers: Vec::new(),
            source: Party::default(),
            destination: Party::default(),
            sni: None,
            body: None,
            body_partial: false,
            body_size: None,
            time: SystemTime::UNIX_EPOCH,
            tcp: false,
        }
    }
}

impl fmt::Debug for CheckRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("CheckRequest")
            .field("method", &self.method)
            .field("host", &self.host)
            .field("headers", &names)
            .field("source", &self.source)
            .field("destination", &self.destination)
            .field("body", &self.body.as_ref().map(Bytes::len))
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}
