//! Reading `extensionProviders`. Source: Istio `ValidateExtensionProvider..`, `validateProviderName` and
//! `buildExtAuthzHTTP`, which between them decide whether a provider can be asked; and what Envoy then refuses.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Duration,
};

use super::provider::{CheckBody, DEFAULT_TIMEOUT, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, ProviderKind};
use crate::{
    catalogue::mesh as codes,
    load::{
        cursor::{Cx, Object, Path, quote},
        duration,
        metadata::text_map,
        names,
    },
    yaml::{Entry, Node},
};

const HTTP: &str = "envoyExtAuthzHttp";
const GRPC: &str = "envoyExtAuthzGrpc";

/// Istio's kinds of providers that nothing here depends on.
const OTHERS: &[&str] = &[
    "zipkin",
    "lightstep",
    "datadog",
    "stackdriver",
    "opencensus",
    "skywalking",
    "opentelemetry",
    "prometheus",
    "envoyFileAccessLog",
    "envoyHttpAls",
    "envoyTcpAls",
    "envoyOtelAls",
    "sds",
];

/// What both kinds of external authorizers have.
const COMMON: &[&str] =
    &["service", "port", "timeout", "failOpen", "statusOnError", "includeRequestBodyInCheck", "clearRouteCache"];

/// What only the one over HTTP has.
const OVER_HTTP: &[&str] = &[
    "pathPrefix",
    "includeRequestHeadersInCheck",
    "includeHeadersInCheck",
    "includeAdditionalHeadersInCheck",
    "headersToUpstreamOnAllow",
    "headersToDownstreamOnAllow",
    "headersToDownstreamOnDeny",
];

/// The statuses that Envoy knows (`envoy.type.v3.StatusCode`), without the ones that end no request.
const STATUSES: &[(u16, u16)] = &[
    (200, 208),
    (226, 226),
    (300, 305),
    (307, 308),
    (400, 417),
    (421, 424),
    (426, 426),
    (428, 429),
    (431, 431),
    (500, 508),
    (510, 511),
];

/// Reads the providers of a mesh configuration.
pub(super) fn read(cx: &mut Cx, root: &Object<'_>) -> Vec<ExtensionProvider> {
    let Some(node) = root.get("extensionProviders") else { return Vec::new() };
    let path = Path::Root.key("extensionProviders");
    let mut names = HashMap::new();
    let mut providers = Vec::new();
    for (index, item) in cx.list(node, &path, usize::MAX).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(provider) = provider(cx, item, &path) else { continue };
        if let Some(line) = names.insert(provider.name.clone(), item.pos.line) {
            let message = format!("`{}` is already defined at line {line}", quote(&provider.name));
            let pos = item.peek("name").map_or(item.pos, |node| node.pos);
            cx.report(&codes::PROVIDER_TWICE, pos, &path.key("name"), message);
        }
        providers.push(provider);
    }
    providers
}

fn provider(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<ExtensionProvider> {
    let known: Vec<&str> = ["name", HTTP, GRPC].iter().chain(OTHERS).copied().collect();
    let object = cx.object(node, path, &known)?;
    let kinds: Vec<&Entry> = object
        .entries
        .iter()
        .filter(|entry| entry.key.text != "name" && known.contains(&entry.key.text.as_str()))
        .collect();
    let kind = match kinds.as_slice() {
        [entry] => kind(cx, entry, path),
        [first, second, ..] => {
            let message = format!("both `{}` and `{}` are set", quote(&first.key.text), quote(&second.key.text));
            cx.report(&codes::PROVIDER_KIND, second.pos, &path.key(&second.key.text), message);
            None
        }
        [] => {
            cx.report(&codes::PROVIDER_KIND, node.pos, path, "no kind of provider is set".to_owned());
            None
        }
    };
    let name = name(cx, &object, path, kind.as_ref());
    Some(ExtensionProvider { name: name?, kind: kind? })
}

/// The name; only external authorizers are bound to the form of a label.
fn name(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>, kind: Option<&ProviderKind>) -> Option<String> {
    let Some(node) = object.get("name") else {
        cx.missing(object.pos, path, "name");
        return None;
    };
    let path = path.key("name");
    let text = cx.value(node, &path, usize::MAX)?;
    if !names::dns_label(text) && !matches!(kind, Some(ProviderKind::Other(_))) {
        let message = format!("`{}` is not the name of a provider", quote(text));
        cx.report(&codes::PROVIDER_NAME, node.pos, &path, message);
    }
    Some(text.to_owned())
}

fn kind(cx: &mut Cx, entry: &Entry, path: &Path<'_>) -> Option<ProviderKind> {
    let key = entry.key.text.as_str();
    let path = path.key(key);
    match key {
        HTTP => over_http(cx, &entry.value, &path).map(ProviderKind::ExtAuthzHttp),
        GRPC => over_grpc(cx, &entry.value, &path).map(ProviderKind::ExtAuthzGrpc),
        _ => {
            let message = format!("a provider of the kind `{key}` is accepted and not used");
            cx.report(&codes::PROVIDER_UNUSED, entry.pos, &path, message);
            Some(ProviderKind::Other(key.to_owned()))
        }
    }
}

fn over_grpc(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<ExtAuthzGrpc> {
    let object = cx.object(node, path, COMMON)?;
    let common = common(cx, &object, path);
    Some(ExtAuthzGrpc {
        service: common.service?,
        port: common.port?,
        timeout: common.timeout,
        fail_open: common.fail_open,
        status_on_error: common.status_on_error,
        body: common.body,
        clear_route_cache: common.clear_route_cache,
    })
}

fn over_http(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<ExtAuthzHttp> {
    let known: Vec<&str> = COMMON.iter().chain(OVER_HTTP).copied().collect();
    let object = cx.object(node, path, &known)?;
    let common = common(cx, &object, path);
    let path_prefix = path_prefix(cx, &object, path);
    let mut list = |field: &str| header_patterns(cx, &object, path, field);
    let (current, older) = (list("includeRequestHeadersInCheck"), list("includeHeadersInCheck"));
    let headers_to_upstream_on_allow = list("headersToUpstreamOnAllow");
    let headers_to_downstream_on_allow = list("headersToDownstreamOnAllow");
    let headers_to_downstream_on_deny = list("headersToDownstreamOnDeny");
    let include_additional = additional(cx, &object, path);
    Some(ExtAuthzHttp {
        service: common.service?,
        port: common.port?,
        timeout: common.timeout,
        fail_open: common.fail_open,
        status_on_error: common.status_on_error,
        body: common.body,
        clear_route_cache: common.clear_route_cache,
        path_prefix,
        include_headers: if current.is_empty() { older } else { current },
        include_additional,
        headers_to_upstream_on_allow,
        headers_to_downstream_on_allow,
        headers_to_downstream_on_deny,
    })
}

struct Common {
    service: Option<String>,
    port: Option<u16>,
    timeout: Duration,
    fail_open: bool,
    status_on_error: Option<u16>,
    body: Option<CheckBody>,
    clear_route_cache: bool,
}

fn common(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Common {
    Common {
        service: service(cx, object, path),
        port: port(cx, object, path),
        timeout: timeout(cx, object, path).unwrap_or(DEFAULT_TIMEOUT),
        fail_open: flag(cx, object, path, "failOpen"),
        status_on_error: status(cx, object, path),
        body: body(cx, object, path),
        clear_route_cache: flag(cx, object, path, "clearRouteCache"),
    }
}

fn flag(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>, field: &str) -> bool {
    object.get(field).and_then(|node| cx.boolean(node, &path.key(field))).unwrap_or(false)
}

fn service(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Option<String> {
    let Some(node) = object.get("service") else {
        cx.missing(object.pos, path, "service");
        return None;
    };
    let path = path.key("service");
    let text = cx.value(node, &path, usize::MAX)?;
    let good = match text.split_once('/') {
        Some((namespace, host)) => names::dns_label(namespace) && host.contains('.') && names::fqdn(host),
        None => names::fqdn(text) || text.parse::<IpAddr>().is_ok(),
    };
    if !good {
        let message = format!("`{}` is not the name of a service", quote(text));
        cx.report(&codes::PROVIDER_SERVICE, node.pos, &path, message);
    }
    Some(text.to_owned())
}

fn port(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Option<u16> {
    let Some(node) = object.get("port") else {
        cx.missing(object.pos, path, "port");
        return None;
    };
    cx.number(node, &path.key("port"), 1, 65535).and_then(|port| u16::try_from(port).ok())
}

fn timeout(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Option<Duration> {
    let node = object.get("timeout")?;
    let path = path.key("timeout");
    let text = cx.value(node, &path, usize::MAX)?;
    let timeout = duration::parse(text).filter(|timeout| *timeout >= Duration::from_millis(1));
    if timeout.is_none() {
        let message = format!("`{}` is no duration of at least a millisecond", quote(text));
        cx.report(&codes::PROVIDER_TIMEOUT, node.pos, &path, message);
    }
    timeout
}

fn status(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Option<u16> {
    let node = object.get("statusOnError")?;
    let path = path.key("statusOnError");
    let text = cx.text(node, &path).filter(|text| !text.is_empty())?;
    let known = |status: &u16| STATUSES.iter().any(|(first, last)| (*first..=*last).contains(status));
    let status = text.parse().ok().filter(known);
    if status.is_none() {
        let message = format!("`{}` is not an HTTP status", quote(text));
        cx.report(&codes::PROVIDER_STATUS, node.pos, &path, message);
    }
    status
}

fn body(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Option<CheckBody> {
    let field = "includeRequestBodyInCheck";
    let node = object.get(field)?;
    let path = path.key(field);
    let object = cx.object(node, &path, &["maxRequestBytes", "allowPartialMessage", "packAsBytes"])?;
    let max_bytes = match object.get("maxRequestBytes") {
        Some(node) => cx.number(node, &path.key("maxRequestBytes"), 0, u32::MAX)?,
        None => 0,
    };
    if max_bytes == 0 {
        let pos = object.get("maxRequestBytes").map_or(node.pos, |node| node.pos);
        let message = "`maxRequestBytes` is 0 (the default)".to_owned();
        cx.report(&codes::PROVIDER_BODY, pos, &path.key("maxRequestBytes"), message);
    }
    let allow_partial = flag(cx, &object, &path, "allowPartialMessage");
    let pack_as_bytes = flag(cx, &object, &path, "packAsBytes");
    Some(CheckBody { max_bytes, allow_partial, pack_as_bytes })
}

fn path_prefix(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> String {
    let Some(node) = object.get("pathPrefix") else { return String::new() };
    let path = path.key("pathPrefix");
    let Some(text) = cx.text(node, &path) else { return String::new() };
    let inner = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
    let good = text.is_empty() || text.starts_with('/') && text.bytes().all(inner);
    if !good {
        let message = format!("`{}` is not the begin of a path", quote(text));
        cx.report(&codes::PROVIDER_PATH, node.pos, &path, message);
    }
    text.to_owned()
}

/// Names of headers, each with at most one `*` at one end and something beside it.
fn header_patterns(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>, field: &str) -> Vec<String> {
    let Some(node) = object.get(field) else { return Vec::new() };
    let path = path.key(field);
    let mut patterns = Vec::new();
    for (index, item) in cx.list(node, &path, usize::MAX).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(text) = cx.value(item, &path, usize::MAX) else { continue };
        let plain = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
        if !names::header_name(plain) || plain.contains('*') {
            let message = format!("`{}` is neither the name of a header nor its begin or end", quote(text));
            cx.report(&codes::PROVIDER_HEADER, item.pos, &path, message);
        }
        patterns.push(text.to_owned());
    }
    patterns
}

fn additional(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> BTreeMap<String, String> {
    let field = "includeAdditionalHeadersInCheck";
    let Some(node) = object.get(field) else { return BTreeMap::new() };
    let path = path.key(field);
    let mut headers = BTreeMap::new();
    for (name, value, node) in text_map(cx, node, &path, usize::MAX) {
        let path = path.key(name);
        if !names::header_name(name) {
            let message = format!("`{}` is not the name of a header", quote(name));
            cx.report(&codes::PROVIDER_HEADER, node.pos, &path, message);
        } else if value.chars().any(|char| char.is_ascii_control() && char != '\t') {
            let message = format!("the value of `{}` holds a control character", quote(name));
            cx.report(&codes::PROVIDER_HEADER, node.pos, &path, message);
        }
        headers.insert(name.to_owned(), value.to_owned());
    }
    headers
}
