//! Heads as the next hop gets them: connection-scoped fields replaced by our own, identity fields set, the rest as sent.

use bytes::BytesMut;
use palisade_authz::provider::{Resolved, ResponseEdits};

use super::body::Framing;
use super::request::{Kind, RequestHead};
use super::response::ResponseHead;
use crate::edits::Changes;
use crate::headers;
use crate::reply::Reply;

/// What the forwarder decided about a request on its way out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a str,
    /// Origin-form target, normalised: what was decided is what is forwarded.
    pub(crate) target: &'a str,
    /// The one Host value that was decided on.
    pub(crate) host: &'a [u8],
    /// Our identity element, when the caller's certificate was verified.
    pub(crate) xfcc: Option<&'a str>,
    /// The protocol to upgrade to.
    pub(crate) upgrade: Option<&'a [u8]>,
    /// What the way through policy changed of the fields.
    pub(crate) changes: Option<&'a Changes>,
}

/// Writes the request head for an HTTP/1.1 upstream.
pub(crate) fn request(head: &RequestHead, out: &Outgoing<'_>, buf: &mut BytesMut) {
    buf.reserve(512);
    put(buf, &[out.method.as_bytes(), b" ", out.target.as_bytes(), b" HTTP/1.1\r\nHost: ", out.host, b"\r\n"]);
    for field in &head.fields {
        if out.changes.is_some_and(|changes| changes.withholds(head.at(&field.name))) {
            continue;
        }
        match field.kind {
            Kind::Plain | Kind::Expect => put(buf, &[head.at(&field.name), b": ", head.at(&field.value), b"\r\n"]),
            Kind::Te if mentions_trailers(head.at(&field.value)) => put(buf, &[b"TE: trailers\r\n"]),
            Kind::Te | Kind::Dropped | Kind::Hop | Kind::Host => {}
        }
    }
    for (name, value) in out.changes.map_or(&[][..], Changes::fields) {
        put(buf, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    if let Some(xfcc) = out.xfcc {
        put(buf, &[b"X-Forwarded-Client-Cert: ", xfcc.as_bytes(), b"\r\n"]);
    }
    if let Some(protocol) = out.upgrade {
        put(buf, &[b"Connection: Upgrade\r\nUpgrade: ", protocol, b"\r\n"]);
    }
    // GET with `Content-Length: 0` and without are told apart by some applications: the sender's choice is kept.
    let said_length = head.fields.iter().any(|f| head.at(&f.name).eq_ignore_ascii_case(b"content-length"));
    match head.framing {
        Framing::Length(n) if n > 0 || said_length => length(buf, n),
        Framing::Chunked => put(buf, &[b"Transfer-Encoding: chunked\r\n"]),
        Framing::Length(_) | Framing::UntilClose => {}
    }
    put(buf, &[b"\r\n"]);
}

/// How the body of a response is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sending {
    /// Framing towards the client.
    pub(crate) coding: Framing,
    /// Whether the client's connection closes afterwards.
    pub(crate) close: bool,
}

/// Writes a final response head for the client, with the fields that a provider adds.
pub(crate) fn response(
    head: &ResponseHead,
    sending: Sending,
    http10: bool,
    edits: Option<&ResponseEdits>,
    buf: &mut BytesMut,
) {
    let edited = resolve(head, edits);
    status_line(head, buf);
    for (name, value) in &head.fields {
        let (name, value) = (head.at(name), head.at(value));
        // Content-Length stays: after HEAD or in 304 it describes a body that is not sent.
        let contradicts = sending.coding == Framing::Chunked && name.eq_ignore_ascii_case(b"content-length");
        if !(is_hop(name) || contradicts || removes(&edited, name)) {
            put(buf, &[name, b": ", value, b"\r\n"]);
        }
    }
    put_added(&edited, buf);
    if sending.coding == Framing::Chunked {
        put(buf, &[b"Transfer-Encoding: chunked\r\n"]);
    }
    if sending.close {
        put(buf, &[b"Connection: close\r\n"]);
    } else if http10 {
        put(buf, &[b"Connection: keep-alive\r\n"]);
    }
    put(buf, &[b"\r\n"]);
}

/// Asks the client for the body that it holds back until it knows that somebody wants it.
pub(crate) fn go_on(buf: &mut BytesMut) {
    put(buf, &[b"HTTP/1.1 100 Continue\r\n\r\n"]);
}

/// Writes the 101 of an accepted upgrade, with what a provider changes in it.
pub(crate) fn switching(head: &ResponseHead, edits: Option<&ResponseEdits>, buf: &mut BytesMut) {
    let edited = resolve(head, edits);
    status_line(head, buf);
    put_interim(head, |name| !removes(&edited, name) && (name.eq_ignore_ascii_case(b"upgrade") || may_hint(name)), buf);
    put_added(&edited, buf);
    put(buf, &[b"Connection: Upgrade\r\n\r\n"]);
}

/// Writes an interim response (100, 103, ..).
pub(crate) fn interim(head: &ResponseHead, buf: &mut BytesMut) {
    status_line(head, buf);
    put_interim(head, may_hint, buf);
    put(buf, &[b"\r\n"]);
}

fn put_interim(head: &ResponseHead, passes: impl Fn(&[u8]) -> bool, buf: &mut BytesMut) {
    for (name, value) in &head.fields {
        let (name, value) = (head.at(name), head.at(value));
        if passes(name) {
            put(buf, &[name, b": ", value, b"\r\n"]);
        }
    }
}

fn may_hint(name: &[u8]) -> bool {
    !(is_hop(name) || name.eq_ignore_ascii_case(b"content-length"))
}

fn resolve<'a>(head: &ResponseHead, edits: Option<&'a ResponseEdits>) -> Resolved<'a> {
    edits.map_or_else(Resolved::default, |edits| edits.resolve(&|name| head.values(name.as_bytes()).next().is_some()))
}

fn removes(edited: &Resolved<'_>, name: &[u8]) -> bool {
    edited.remove.iter().any(|gone| name.eq_ignore_ascii_case(gone.as_bytes()))
}

fn put_added(edited: &Resolved<'_>, buf: &mut BytesMut) {
    for (name, value) in edited.add.iter().filter(|(name, _)| !headers::is_framing(name)) {
        put(buf, &[name.as_bytes(), b": ", value, b"\r\n"]);
    }
}

/// How a response of our own is shaped for its caller.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shape {
    /// For a gRPC client.
    pub(crate) grpc: bool,
    /// The connection ends with it.
    pub(crate) close: bool,
    /// Answer to HEAD: the body is described, not sent.
    pub(crate) to_head: bool,
}

/// Writes a response of our own.
pub(crate) fn reply(reply: &Reply, shape: Shape, buf: &mut BytesMut) {
    let status = reply.seen(shape.grpc);
    let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Unknown");
    let mut digits = [0u8; 20];
    put(buf, &[b"HTTP/1.1 ", number(u64::from(status), &mut digits), b" ", reason.as_bytes(), b"\r\n"]);
    reply.for_each(shape.grpc, |name, value| put(buf, &[name.as_bytes(), b": ", value, b"\r\n"]));
    let body = reply.body(shape.grpc);
    length(buf, body.len() as u64);
    if shape.close {
        put(buf, &[b"Connection: close\r\n"]);
    }
    put(buf, &[b"\r\n"]);
    if !shape.to_head {
        put(buf, &[&body]);
    }
}

/// Writes one chunk header.
pub(crate) fn chunk_size(n: usize, buf: &mut BytesMut) {
    let mut digits = [0u8; 16];
    let mut at = digits.len();
    let mut rest = n;
    while let Some(slot) = at.checked_sub(1).and_then(|i| digits.get_mut(i)) {
        *slot = char::from_digit((rest % 16) as u32, 16).map_or(b'0', |c| c as u8);
        at -= 1;
        rest /= 16;
        if rest == 0 {
            break;
        }
    }
    put(buf, &[digits.get(at..).unwrap_or_default(), b"\r\n"]);
}

/// Writes the end of a chunked body, with the trailer fields that may pass.
pub(crate) fn last_chunk(trailers: Option<&[u8]>, buf: &mut BytesMut) {
    put(buf, &[b"0\r\n"]);
    let mut headers = [httparse::EMPTY_HEADER; 32];
    if let Some(Ok(httparse::Status::Complete((_, fields)))) =
        trailers.map(|t| httparse::parse_headers(t, &mut headers))
    {
        for field in fields {
            if may_trail(field.name) {
                put(buf, &[field.name.as_bytes(), b": ", field.value, b"\r\n"]);
            }
        }
    }
    put(buf, &[b"\r\n"]);
}

/// Trailer fields that pass: none that speaks of framing, of who calls, or of where to.
pub(crate) fn may_trail(name: &str) -> bool {
    let n = name.as_bytes();
    !(is_hop(n)
        || headers::is_identity(name)
        || palisade_authz::is_credential(name)
        || [&b"host"[..], b"content-length", b"te"].iter().any(|f| n.eq_ignore_ascii_case(f)))
}

fn status_line(head: &ResponseHead, buf: &mut BytesMut) {
    let mut digits = [0u8; 20];
    buf.reserve(512);
    put(buf, &[b"HTTP/1.1 ", number(u64::from(head.status), &mut digits), b" ", head.reason(), b"\r\n"]);
}

fn is_hop(name: &[u8]) -> bool {
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    match name.len() {
        10 => is(b"connection") || is(b"keep-alive"),
        7 => is(b"upgrade"),
        16 => is(b"proxy-connection"),
        17 => is(b"transfer-encoding"),
        _ => false,
    }
}

fn mentions_trailers(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

fn length(buf: &mut BytesMut, n: u64) {
    let mut digits = [0u8; 20];
    put(buf, &[b"Content-Length: ", number(n, &mut digits), b"\r\n"]);
}

/// Decimal digits without allocation.
fn number(n: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    let mut rest = n;
    loop {
        at = at.saturating_sub(1);
        if let Some(slot) = digits.get_mut(at) {
            *slot = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
        if rest == 0 || at == 0 {
            return digits.get(at..).unwrap_or_default();
        }
    }
}

fn put(buf: &mut BytesMut, parts: &[&[u8]]) {
    for part in parts {
        buf.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for n in [0, 7, 10, 4096, u64::MAX] {
            assert_eq!(number(n, &mut [0; 20]), n.to_string().as_bytes());
        }
        for n in [0usize, 9, 16, 4095, usize::MAX] {
            let mut buf = BytesMut::new();
            chunk_size(n, &mut buf);
            assert_eq!(buf, format!("{n:x}\r\n"));
        }
    }

    #[test]
    fn forged_and_hop_by_hop_fields_do_not_leave() {
        let mut head = RequestHead::default();
        head.read(
            b"POST /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-Client-Cert: URI=spiffe://forged\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
              Keep-Alive: 5\r\nTE: trailers, gzip\r\nAccept: */*\r\nx-envoy-external-address: 1.1.1.1\r\nContent-Length: 3\r\n\r\n",
        )
        .unwrap();
        let mut buf = BytesMut::new();
        request(
            &head,
            &Outgoing { method: "POST", target: "/b", host: b"h", xfcc: Some("By=us"), upgrade: None, changes: None },
            &mut buf,
        );
        assert_eq!(
            String::from_utf8_lossy(&buf),
            "POST /b HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nAccept: */*\r\nX-Forwarded-Client-Cert: By=us\r\nContent-Length: 3\r\n\r\n"
        );
    }
}
