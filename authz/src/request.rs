//! The request as the evaluator sees it: borrowed views, so that deciding copies nothing.
//!
//! A `None` means that the request does not have the attribute (plaintext has no principal, CONNECT no
//! path). What the *caller* does not know is another matter and is said by [`Known`].

use std::net::IpAddr;

use serde_json::Value;

/// Which evaluator decides: they give different answers to the same policy, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Semantics {
    /// Envoy's HTTP RBAC filter.
    Http,
    /// Envoy's network RBAC filter: HTTP fields make an ALLOW rule vanish and a DENY rule wider.
    Tcp,
    /// ztunnel: HTTP fields make an ALLOW rule vanish and a DENY rule narrower.
    L4,
}

/// One request, or one connection where there is no HTTP.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// Who calls.
    pub source: Peer<'a>,
    /// What is called.
    pub destination: Destination,
    /// Server name as the client sent it; `None` without TLS or SNI. Lower-cased while matching, as Envoy does.
    pub sni: Option<&'a str>,
    /// The HTTP head; `None` on a TCP connection.
    pub http: Option<HttpRequest<'a>>,
    /// Claims of the verified token, as they stand in it; `None` without one.
    pub claims: Option<&'a Value>,
    /// Dynamic metadata by filter name, then key (`experimental.envoy.filters.*`).
    pub metadata: Option<&'a Value>,
}

impl Request<'_> {
    /// The request as CUSTOM policies see it: tokens are read behind them, so there are no claims yet.
    pub(crate) fn before_tokens(&self) -> Self {
        Self { claims: None, ..*self }
    }
}

/// The calling side.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peer<'a> {
    /// Verified SPIFFE ID without `spiffe://`; `None` in plaintext.
    pub principal: Option<&'a str>,
    /// The TCP peer.
    pub ip: Option<IpAddr>,
    /// The original client, see [`crate::remote_ip`].
    pub remote_ip: Option<IpAddr>,
}

/// The called side.
#[derive(Debug, Clone, Copy, Default)]
pub struct Destination {
    /// Address of the workload.
    pub ip: Option<IpAddr>,
    /// The application's port.
    pub port: Option<u16>,
}

/// The head of an HTTP request.
#[derive(Clone, Copy)]
pub struct HttpRequest<'a> {
    /// Method, case kept.
    pub method: Option<&'a str>,
    /// Path after [`crate::normalize::path`], query and fragment removed; `None` for CONNECT.
    pub path: Option<&'a str>,
    /// Host header or `:authority`, as sent.
    pub host: Option<&'a str>,
    /// `http` or `https`.
    pub scheme: Option<&'a str>,
    /// The other headers.
    pub headers: &'a dyn Headers,
    /// The whole `:path` as it is forwarded: normalised, with `?query`. Read by `request.headers[:path]` only.
    pub raw_target: Option<&'a str>,
}

impl Default for HttpRequest<'_> {
    fn default() -> Self {
        Self { method: None, path: None, host: None, scheme: None, headers: &NoHeaders, raw_target: None }
    }
}

/// Header access without copying. Shared with the tasks that wait for a provider, hence `Sync`.
pub trait Headers: Sync {
    /// Calls `f` with each value of `name` (already lower case), in order; names of the request compare
    /// case-insensitively, outer white space of values is already trimmed.
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8]));

    /// Calls `f` with every name, in any letter case, and its value: all that `for_each` finds, those of one name in the
    /// same order. Where policies name very many headers, each header is looked for among them instead of each of them
    /// in the request.
    fn visit(&self, f: &mut dyn FnMut(&str, &[u8]));
}

/// A request without headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn for_each(&self, _name: &str, _f: &mut dyn FnMut(&[u8])) {}

    fn visit(&self, _f: &mut dyn FnMut(&str, &[u8])) {}
}

impl<N: AsRef<str> + Sync, V: AsRef<[u8]> + Sync> Headers for &[(N, V)] {
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        for (key, value) in *self {
            let key = key.as_ref();
            // Most names come in lower case.
            if key.len() == name.len() && (key == name || key.eq_ignore_ascii_case(name)) {
                f(value.as_ref());
            }
        }
    }

    fn visit(&self, f: &mut dyn FnMut(&str, &[u8])) {
        self.iter().for_each(|(key, value)| f(key.as_ref(), value.as_ref()));
    }
}

impl<N: AsRef<str> + Sync, V: AsRef<[u8]> + Sync> Headers for Vec<(N, V)> {
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        self.as_slice().for_each(name, f);
    }

    fn visit(&self, f: &mut dyn FnMut(&str, &[u8])) {
        self.as_slice().visit(f);
    }
}

/// An attribute that a caller may not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Attribute {
    /// Verified identity of the caller.
    SourcePrincipal,
    /// TCP peer.
    SourceIp,
    /// Original client.
    RemoteIp,
    /// Destination address.
    DestinationIp,
    /// Destination port.
    DestinationPort,
    /// Server name.
    Sni,
    /// HTTP method.
    Method,
    /// Path and `:path`.
    Path,
    /// Host.
    Host,
    /// Scheme.
    Scheme,
    /// All other headers.
    Headers,
    /// Token claims.
    Claims,
    /// Dynamic metadata.
    Metadata,
}

/// The set of attributes that are known. Enforcement knows [`Known::ALL`]; tests and replay may know less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known(u16);

impl Known {
    /// Everything: what the request lacks is known to be absent.
    pub const ALL: Self = Self(u16::MAX);

    /// The same set with `attribute` unknown.
    #[must_use]
    pub const fn without(self, attribute: Attribute) -> Self {
        Self(self.0 & !(1 << attribute as u8))
    }

    /// Whether `attribute` is known.
    #[must_use]
    pub const fn has(self, attribute: Attribute) -> bool {
        self.0 & (1 << attribute as u8) != 0
    }
}
