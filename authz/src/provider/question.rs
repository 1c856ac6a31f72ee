//! The question as Envoy words it, for either form of provider.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use palisade_wire::envoy::envoy::config::core::v3 as core;
use palisade_wire::envoy::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use palisade_wire::envoy::envoy::service::auth::v3::{AttributeContext, CheckRequest as Question};
use palisade_wire::envoy::google::protobuf::Timestamp;

use crate::is_joined_header;

use super::check::{CheckRequest, Party};

/// Says whether the provider got the whole body. What a caller sends under this name is not passed on.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// What a calling Envoy says about itself; told as the source's service.
const CALLER: &str = "x-envoy-downstream-service-cluster";

/// The request's headers as Envoy tells them, pseudo-headers included: one text a name, repeated ones joined with a
/// bare comma, bytes that are no UTF-8 replaced. Those that `keep` refuses are left out.
pub(super) fn headers(request: &CheckRequest, keep: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let pseudo = [
        (":authority", &request.host),
        (":method", &request.method),
        (":path", &request.target),
        (":scheme", &request.scheme),
    ];
    for (name, value) in pseudo {
        if let Some(value) = value.as_ref().filter(|_| keep(name)) {
            headers.insert(name.to_owned(), value.clone());
        }
    }
    for (name, value) in &request.headers {
        let name = name.to_ascii_lowercase();
        if name == PARTIAL_BODY || name == "host" || !keep(&name) {
            continue;
        }
        let (value, joined) = (utf8(value), is_joined_header(&name));
        headers
            .entry(name)
            .and_modify(|told: &mut String| {
                // What Envoy holds in one piece from the start was put together without the empty ones.
                if !(joined && (value.is_empty() || told.is_empty())) {
                    told.push(',');
                }
                told.push_str(&value);
            })
            .or_insert(value);
    }
    if request.body.is_some() {
        headers.insert(PARTIAL_BODY.to_owned(), request.body_partial.to_string());
    }
    headers
}

/// Text as it is, each byte that is not part of UTF-8 as `!`.
pub(super) fn utf8(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}

/// The question in protobuf: an HTTP request, or a connection.
pub(super) fn protobuf(request: &CheckRequest, pack_as_bytes: bool) -> Question {
    let caller = request.headers.iter().find(|(name, _)| !request.tcp && name.eq_ignore_ascii_case(CALLER));
    let caller = caller.map(|(_, value)| utf8(value)).unwrap_or_default();
    let called = request.sni.clone().filter(|_| request.tcp).unwrap_or_default();
    let attributes = AttributeContext {
        source: Some(peer(&request.source, caller)),
        destination: Some(peer(&request.destination, called)),
        request: (!request.tcp).then(|| http(request, pack_as_bytes)),
        ..AttributeContext::default()
    };
    Question { attributes: Some(attributes) }
}

fn peer(party: &Party, service: String) -> Peer {
    let principal = party.principal.as_ref().map(|id| format!("spiffe://{id}")).unwrap_or_default();
    Peer { address: party.address.map(address), service, principal, ..Peer::default() }
}

fn address(address: SocketAddr) -> core::Address {
    let socket = core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(address.port().into())),
        ..core::SocketAddress::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

fn http(request: &CheckRequest, pack_as_bytes: bool) -> Request {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let body = request.body.as_deref().unwrap_or_default();
    let size = request.body_size.unwrap_or(body.len() as u64);
    let (body, raw_body) = if pack_as_bytes { (String::new(), body.to_vec()) } else { (utf8(body), Vec::new()) };
    let http = HttpRequest {
        id: COUNT.fetch_add(1, Ordering::Relaxed).to_string(),
        method: request.method.clone().unwrap_or_default(),
        headers: headers(request, |_| true).into_iter().collect(),
        path: request.target.clone().unwrap_or_default(),
        host: request.host.clone().unwrap_or_default(),
        scheme: request.scheme.clone().unwrap_or_default(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        protocol: request.protocol.clone(),
        body,
        raw_body,
        ..HttpRequest::default()
    };
    let since = request.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    };
    Request { time: Some(time), http: Some(http) }
}
