//! The extension providers of a mesh: whom the action CUSTOM asks.

use std::{collections::BTreeMap, time::Duration};

/// One entry of Istio's `extensionProviders`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionProvider {
    /// The name by which policies refer to it: unique, a DNS-1123 label.
    pub name: String,
    /// What it is.
    pub kind: ProviderKind,
}

/// What an extension provider is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKind {
    /// `envoyExtAuthzHttp`: asked with a copy of the request.
    ExtAuthzHttp(ExtAuthzHttp),
    /// `envoyExtAuthzGrpc`: asked by `envoy.service.auth.v3.Authorization/Check`.
    ExtAuthzGrpc(ExtAuthzGrpc),
    /// A provider for tracing, logs or metrics, by its key (for example `zipkin`): known, and not used.
    Other(String),
}

/// How long a provider may take where nothing is written: Istio's ten minutes.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// A provider that is asked over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtAuthzGrpc {
    /// The service, `host` or `namespace/host`, as written.
    pub service: String,
    /// The service's port.
    pub port: u16,
    /// How long an answer may take; 600 seconds where nothing is written.
    pub timeout: Duration,
    /// Whether requests pass where the provider fails.
    pub fail_open: bool,
    /// The status of a request that is refused because the provider failed; 403 where nothing is written.
    pub status_on_error: Option<u16>,
    /// How much of the request's body the provider sees; nothing where absent.
    pub body: Option<CheckBody>,
    /// `clearRouteCache`: a route chosen before the check is chosen again. No proxy here chooses routes by headers.
    pub clear_route_cache: bool,
}

/// A provider that is asked over HTTP. The lists of headers hold names, compared without letter case: exact,
/// `prefix*` or `*suffix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtAuthzHttp {
    /// The service, `host` or `namespace/host`, as written.
    pub service: String,
    /// The service's port.
    pub port: u16,
    /// How long an answer may take; 600 seconds where nothing is written.
    pub timeout: Duration,
    /// Whether requests pass where the provider fails.
    pub fail_open: bool,
    /// The status of a request that is refused because the provider failed; 403 where nothing is written.
    pub status_on_error: Option<u16>,
    /// How much of the request's body the provider sees; nothing where absent.
    pub body: Option<CheckBody>,
    /// `clearRouteCache`: a route chosen before the check is chosen again. No proxy here chooses routes by headers.
    pub clear_route_cache: bool,
    /// What stands before the request's path in the question; empty or begins with `/`.
    pub path_prefix: String,
    /// The request's headers that the question carries (`includeRequestHeadersInCheck`, or where that is empty the
    /// older `includeHeadersInCheck`).
    pub include_headers: Vec<String>,
    /// Headers that the question carries whatever the request had, by name.
    pub include_additional: BTreeMap<String, String>,
    /// Headers of an allowing answer that replace those of the request on its way to the workload.
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Headers of an allowing answer that replace those of the response on its way to the caller.
    pub headers_to_downstream_on_allow: Vec<String>,
    /// Headers of a refusing answer that reach the caller; where empty, all do.
    pub headers_to_downstream_on_deny: Vec<String>,
}

/// How much of a request's body a provider sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckBody {
    /// How many bytes are kept for the question; more than none.
    pub max_bytes: u32,
    /// Whether a longer body is cut; where not, the request is refused with 413.
    pub allow_partial: bool,
    /// Whether a gRPC question carries the body as bytes instead of text.
    pub pack_as_bytes: bool,
}
