//! Envoy's `AttributeContext` as a question. What Envoy could not have sent is refused, never guessed at.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use palisade_authz::{Attribute, Known, normalize, remote_ip};
use palisade_identity::SpiffeId;
use palisade_policies::PathNormalization;
use palisade_wire::envoy::envoy::config::core::v3::{Address, Metadata, address, socket_address::PortSpecifier};
use palisade_wire::envoy::envoy::service::auth::v3::AttributeContext;
use palisade_wire::envoy::envoy::service::auth::v3::attribute_context::{self as context};
use serde_json::Value;

use super::headers;
use super::value;
use crate::question::{Http, Question, Source, Target};
use crate::reason;

/// The filter whose metadata hold the claims of a verified token.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
/// The key under which that filter has to store them (`payload_in_metadata`).
const JWT_PAYLOAD: &str = "payload";

/// Why an `AttributeContext` is no question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) reason: &'static str,
    /// What the client of the enforcer gets: 400 where it is to blame.
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl Malformed {
    fn caller(message: impl Into<String>) -> Self {
        Self { reason: reason::BAD_REQUEST, status: 403, message: message.into() }
    }

    fn client(message: impl Into<String>) -> Self {
        Self { reason: reason::BAD_REQUEST, status: 400, message: message.into() }
    }
}

/// A question, and what was said and does not count.
pub(crate) struct Read {
    pub(crate) question: Question,
    /// The caller states who its client is or what its token says, and its word does not count.
    pub(crate) unproven: bool,
}

/// Where Envoy says the request goes to.
pub(crate) fn destination(attributes: &AttributeContext) -> Result<Option<SocketAddr>, Malformed> {
    socket(attributes.destination.as_ref().and_then(|peer| peer.address.as_ref()), "destination")
}

/// Reads the attributes. `proven` says whether the caller's word about its client counts.
pub(crate) fn read(
    attributes: AttributeContext,
    proven: bool,
    mode: PathNormalization,
    now: SystemTime,
) -> Result<Read, Malformed> {
    let mut known = Known::ALL;
    let target = destination(&attributes)?;
    let from = socket(attributes.source.as_ref().and_then(|peer| peer.address.as_ref()), "source")?;
    let stated = attributes.source.map(|peer| peer.principal).filter(|stated| !stated.is_empty());
    let (metadata, claims) = metadata(attributes.metadata_context);
    // What does not count is not known to be absent either.
    if stated.is_some() && !proven {
        known = known.without(Attribute::SourcePrincipal);
    }
    if claims.is_some() && !proven {
        known = known.without(Attribute::Claims);
    }
    let unproven = !proven && (stated.is_some() || claims.is_some());
    let principal = stated.filter(|_| proven).map(|stated| principal(&stated)).transpose()?;
    // Without `include_tls_session` nobody knows whether the client sent a name.
    if attributes.tls_session.is_none() {
        known = known.without(Attribute::Sni);
    }
    let sni = attributes.tls_session.map(|session| session.sni).filter(|sni| !sni.is_empty());
    let request = attributes.request.unwrap_or_default();
    // What a provider is told; the record goes by our own clock.
    let time = request.time.as_ref().and_then(instant).unwrap_or(now);
    let http = request.http.map(|http| self::http(http, mode)).transpose()?;
    let (ip, port) = (from.map(|address| address.ip()), from.map(|address| address.port()));
    let remote_ip = http.as_ref().map_or(ip, |http| remote_ip(ip, &http.headers));
    let destination =
        Target { ip: target.map(|address| address.ip()), port: target.map(|address| address.port()), service: None };
    let source = Source { principal, ip, port, remote_ip };
    let claims = claims.filter(|_| proven);
    Ok(Read { question: Question { source, destination, sni, http, claims, metadata, known, time }, unproven })
}

/// Metadata by filter name, and the claims that Envoy's own token filter has verified.
fn metadata(context: Option<Metadata>) -> (Option<Value>, Option<Value>) {
    let mut filters = value::filters(context.map(|metadata| metadata.filter_metadata).unwrap_or_default());
    let claims = filters.get_mut(JWT_FILTER).and_then(Value::as_object_mut).and_then(|of| of.remove(JWT_PAYLOAD));
    ((!filters.is_empty()).then_some(Value::Object(filters)), claims.filter(Value::is_object))
}

/// The SPIFFE ID that Envoy took from the client's certificate, without its scheme.
fn principal(stated: &str) -> Result<String, Malformed> {
    SpiffeId::parse(stated).map(|id| id.principal().to_owned()).map_err(|error| Malformed {
        reason: reason::PEER_INVALID,
        status: 403,
        message: format!("the client's identity is no SPIFFE ID: {error}"),
    })
}

/// An address of Envoy's; a pipe or an internal listener has none.
fn socket(address: Option<&Address>, whose: &str) -> Result<Option<SocketAddr>, Malformed> {
    let Some(address::Address::SocketAddress(socket)) = address.and_then(|address| address.address.as_ref()) else {
        return Ok(None);
    };
    let refuse = || Malformed::caller(format!("the {whose} address `{}` is no IP address with a port", socket.address));
    let ip: IpAddr = socket.address.parse().map_err(|_| refuse())?;
    let port = match socket.port_specifier {
        None => 0,
        Some(PortSpecifier::PortValue(port)) => u16::try_from(port).map_err(|_| refuse())?,
        Some(PortSpecifier::NamedPort(_)) => return Err(refuse()),
    };
    Ok(Some(SocketAddr::new(ip.to_canonical(), port)))
}

fn instant(time: &palisade_wire::envoy::google::protobuf::Timestamp) -> Option<SystemTime> {
    let since = Duration::new(u64::try_from(time.seconds).ok()?, u32::try_from(time.nanos).ok()?.min(999_999_999));
    SystemTime::UNIX_EPOCH.checked_add(since)
}

fn http(http: context::HttpRequest, mode: PathNormalization) -> Result<Http, Malformed> {
    let (headers, joined) = match http.header_map {
        Some(raw) => (headers::raw(raw), false),
        None => (headers::joined(http.headers), true),
    };
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let method = some(http.method).ok_or_else(|| Malformed::caller("an HTTP request without a method"))?;
    let raw = some(http.path);
    let target = match raw.as_deref() {
        None if method == "CONNECT" => None,
        None => return Err(Malformed::caller("an HTTP request without a path")),
        Some(raw) => Some(normalised(raw, mode)?),
    };
    let body = if http.raw_body.is_empty() { http.body.into_bytes() } else { http.raw_body };
    Ok(Http {
        method: Some(method),
        target,
        raw,
        host: Some(http.host),
        scheme: some(http.scheme),
        protocol: http.protocol,
        headers,
        joined,
        body: (!body.is_empty()).then(|| body.into()),
        body_size: u64::try_from(http.size).ok(),
    })
}

/// The target as the mesh configuration wants it; what no proxy would take is the client's mistake.
pub(crate) fn normalised(raw: &str, mode: PathNormalization) -> Result<String, Malformed> {
    if !raw.starts_with('/') || raw.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(Malformed::client("the path does not begin with `/`, or holds white space or control characters"));
    }
    let path = normalize::path(raw, mode).map_err(|error| Malformed::client(error.to_string()))?;
    Ok(path.into_owned())
}
