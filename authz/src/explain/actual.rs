//! What the request has where a clause looks. Credentials are never shown.

use crate::normalize::split_query;
use crate::predicate::{HeaderKey, Slot};
use crate::record::is_credential;
use crate::request::{HttpRequest, Known, Request};

const MISSING: &str = "(missing)";
const HIDDEN: &str = "(not shown)";

pub(super) fn value(slot: &Slot, request: &Request<'_>, known: Known) -> String {
    if !known.has(slot.attribute()) {
        return "(unknown)".to_owned();
    }
    let http = request.http.as_ref();
    let found = match slot {
        Slot::SourceIp => request.source.ip.map(quoted),
        Slot::RemoteIp => request.source.remote_ip.map(quoted),
        Slot::DestinationIp => request.destination.ip.map(quoted),
        Slot::DestinationPort => request.destination.port.map(quoted),
        Slot::Sni => request.sni.map(quoted),
        Slot::Principal
        | Slot::Namespace
        | Slot::ServiceAccount
        | Slot::TrustDomain
        | Slot::L4Principal
        | Slot::L4Namespace
        | Slot::L4ServiceAccount => request.source.principal.map(quoted),
        Slot::Method => http.and_then(|http| http.method).map(quoted),
        Slot::Host => http.and_then(|http| http.host).map(quoted),
        Slot::Path => http.and_then(|http| http.path).map(quoted),
        Slot::Header(key) => http.and_then(|http| header(key, http)),
        Slot::Claim(path) => request.claims.and_then(|claims| path.get(claims)).map(quoted),
        Slot::RequestPrincipal => request.claims.map(|claims| {
            let claim = |name| claims.get(name).and_then(serde_json::Value::as_str);
            let shown = |name| claim(name).unwrap_or(MISSING);
            format!("`{}/{}`", shown("iss"), shown("sub"))
        }),
        Slot::Metadata(key) => request.metadata.and_then(|metadata| key.get(metadata)).map(quoted),
    };
    found.unwrap_or_else(|| MISSING.to_owned())
}

fn quoted(value: impl std::fmt::Display) -> String {
    format!("`{value}`")
}

fn header(key: &HeaderKey, http: &HttpRequest<'_>) -> Option<String> {
    let name = match key {
        HeaderKey::Method => return http.method.map(quoted),
        HeaderKey::Authority => return http.host.map(quoted),
        HeaderKey::Scheme => return http.scheme.map(quoted),
        HeaderKey::Target => return http.raw_target.map(target),
        HeaderKey::Joined(name) | HeaderKey::Single(name) => name,
    };
    let mut values = Vec::new();
    http.headers.for_each(name, &mut |value| values.push(String::from_utf8_lossy(value).into_owned()));
    if values.is_empty() {
        return None;
    }
    if is_credential(name) {
        return Some(HIDDEN.to_owned());
    }
    if matches!(key, HeaderKey::Joined(_)) {
        values.retain(|value| !value.is_empty());
        return Some(quoted(values.join(",")));
    }
    Some(values.into_iter().map(quoted).collect::<Vec<_>>().join(", "))
}

/// A query may hold a token.
fn target(target: &str) -> String {
    match split_query(target) {
        (path, "") => quoted(path),
        (path, _) => format!("`{path}?` with a query {HIDDEN}"),
    }
}
