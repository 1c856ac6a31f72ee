//! An HTTP/2 request in the form it is decided and forwarded in.

use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use palisade_authz::{Headers, normalize};

use super::upload::Upload;
use crate::edits::Changes;
use crate::h1::request::{authority_is_plain, method_is_known};
use crate::headers::{self, XFCC};
use crate::party::Ask;
use crate::session::Session;
use crate::snapshot::ProxySnapshot;

/// Why a request is refused before it is decided.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
}

const fn bad(reason: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, reason }
}

/// A settled request without its body.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) parts: Parts,
    target: Option<PathAndQuery>,
    host: Authority,
}

impl Owned {
    /// Settles target and host, removes what a peer may not say, and sets our identity element.
    pub(super) fn of(
        session: &Session,
        snapshot: Option<&ProxySnapshot>,
        request: Request<Incoming>,
    ) -> Result<(Owned, Incoming), Refusal> {
        let (mut parts, body) = request.into_parts();
        strict(&parts)?;
        let host = authority(&parts)?;
        parts.headers.remove(header::HOST);
        sanitise(&mut parts);
        join_cookies(&mut parts);
        if let Some(xfcc) = session.party.as_ref().and_then(|party| party.xfcc.as_deref()) {
            let value = HeaderValue::from_str(xfcc).map_err(|_| bad("identity"))?;
            parts.headers.insert(HeaderName::from_static(XFCC), value);
        }
        let target = target(session, snapshot, &parts)?;
        Ok((Owned { parts, target, host }, body))
    }

    /// As the evaluator wants it.
    pub(super) fn ask(&self) -> Ask<'_> {
        Ask {
            method: self.parts.method.as_str(),
            target: self.target.as_ref().map(PathAndQuery::as_str),
            host: Some(self.host.as_str()),
            scheme: self.parts.uri.scheme_str().unwrap_or("http"),
            version: "HTTP/2",
            headers: self,
        }
    }

    /// The request for the next hop, as authorization changed it.
    pub(super) fn outgoing(&self, body: Upload, changes: Option<&Changes>, http1: bool, tls: bool) -> Request<Upload> {
        let mut request = Request::new(body);
        *request.method_mut() = changes.and_then(|c| c.method.as_ref()).unwrap_or(&self.parts.method).clone();
        *request.headers_mut() = self.parts.headers.clone();
        if let Some(changes) = changes {
            edit(request.headers_mut(), changes);
        }
        let path = changes.and_then(|c| c.target.as_ref()).or(self.target.as_ref()).cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let host = changes.and_then(|c| c.host.as_ref()).unwrap_or(&self.host);
        if http1 {
            if let Ok(host) = HeaderValue::from_str(host.as_str()) {
                request.headers_mut().insert(header::HOST, host);
            }
            *request.uri_mut() = Uri::from(path);
        } else {
            let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
            let uri = Uri::builder().scheme(scheme).authority(host.clone()).path_and_query(path).build();
            *request.uri_mut() = uri.unwrap_or_default();
            *request.version_mut() = http::Version::HTTP_2;
        }
        request
    }
}

impl Headers for Owned {
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        if name == "host" {
            return f(self.host.as_str().as_bytes());
        }
        self.parts.headers.get_all(name).iter().for_each(|value| f(value.as_bytes()));
    }

    fn visit(&self, f: &mut dyn FnMut(&str, &[u8])) {
        f("host", self.host.as_str().as_bytes());
        self.parts.headers.iter().for_each(|(name, value)| f(name.as_str(), value.as_bytes()));
    }
}

fn edit(headers: &mut HeaderMap, changes: &Changes) {
    let withheld: Vec<_> = headers.keys().filter(|name| changes.withholds(name.as_str().as_bytes())).cloned().collect();
    for name in withheld {
        headers.remove(name);
    }
    for (name, value) in changes.fields() {
        headers.append(name.clone(), value.clone());
    }
}

/// `:authority`, or Host where it is missing; both only if they agree.
fn authority(parts: &Parts) -> Result<Authority, Refusal> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("duplicate-host"));
    }
    let authority = match (parts.uri.authority(), header) {
        (Some(authority), None) => authority.clone(),
        (Some(authority), Some(host)) if authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            authority.clone()
        }
        (Some(_), Some(_)) => return Err(bad("ambiguous-host")),
        (None, Some(host)) => Authority::try_from(host.as_bytes()).map_err(|_| bad("ambiguous-host"))?,
        (None, None) => return Err(bad("missing-host")),
    };
    if authority_is_plain(authority.as_str().as_bytes()) { Ok(authority) } else { Err(bad("ambiguous-host")) }
}

fn target(session: &Session, snapshot: Option<&ProxySnapshot>, parts: &Parts) -> Result<Option<PathAndQuery>, Refusal> {
    if parts.method == Method::CONNECT {
        return Ok(None);
    }
    let Some(raw) = parts.uri.path_and_query() else { return Err(bad("path")) };
    if !raw.as_str().starts_with('/') {
        return Err(Refusal { status: StatusCode::NOT_FOUND, reason: "target-form" });
    }
    if session.party.is_none() {
        return Ok(Some(raw.clone()));
    }
    let mode = snapshot.map(|now| now.mesh.path_normalization).unwrap_or_default();
    let normal = normalize::path(raw.as_str(), mode).map_err(|_| bad("path"))?;
    PathAndQuery::try_from(normal.as_ref()).map(Some).map_err(|_| bad("path"))
}

/// What the HTTP/1.1 door refuses is refused here: the application behind may read it as HTTP/1.1 servers do.
fn strict(parts: &Parts) -> Result<(), Refusal> {
    if !method_is_known(parts.method.as_str()) {
        return Err(bad("method"));
    }
    // Malformed by RFC 9113, 8.2.1. Whoever reads the value trimmed would read another one than policy did.
    if parts.headers.values().any(|value| value.as_bytes().trim_ascii().len() != value.len()) {
        return Err(bad("field-space"));
    }
    if parts.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(bad("duplicate-content-length"));
    }
    if parts.headers.get_all(header::EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Refusal { status: StatusCode::EXPECTATION_FAILED, reason: "expectation" });
    }
    Ok(())
}

/// Belongs to an upgrade to HTTP/2, which is ignored.
const HTTP2_SETTINGS: &str = "http2-settings";

fn sanitise(parts: &mut Parts) {
    let dropped = |name: &&HeaderName| headers::is_identity(name.as_str()) || name.as_str() == HTTP2_SETTINGS;
    let forged: Vec<HeaderName> = parts.headers.keys().filter(dropped).cloned().collect();
    for name in forged {
        parts.headers.remove(name);
    }
    let trailers = parts.headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    parts.headers.remove(header::TE);
    if trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// HTTP/2 may split a cookie into crumbs; everybody behind it, policy included, gets it whole (RFC 9113, 8.2.3).
fn join_cookies(parts: &mut Parts) {
    let crumbs: Vec<&[u8]> = parts.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        parts.headers.insert(header::COOKIE, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_finds_by_name_what_it_finds_going_through_all() {
        let request = Request::get("https://h/p").header("x-a", "1").header("x-a", "2").header("x-b", "3");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let owned = Owned { parts, target: None, host: Authority::from_static("h:80") };
        for (name, expected) in
            [("x-a", &[b"1".to_vec(), b"2".to_vec()][..]), ("host", &[b"h:80".to_vec()]), ("x", &[])]
        {
            let (mut named, mut visited) = (Vec::new(), Vec::new());
            owned.for_each(name, &mut |value| named.push(value.to_vec()));
            owned.visit(&mut |other, value| {
                if other.eq_ignore_ascii_case(name) {
                    visited.push(value.to_vec());
                }
            });
            assert_eq!((&*named, &*visited), (expected, expected), "{name}");
        }
    }
}
