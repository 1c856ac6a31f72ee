//! The body of a request, for providers that want to see it. The gate reads no more than it was asked for, and what it
//! read is still the caller's to forward.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;

use crate::request::{Headers, Request};

/// What reading gives: the bytes, and whether that was all of the body.
pub type Reading<'a> = Pin<Box<dyn Future<Output = io::Result<(Bytes, bool)>> + Send + 'a>>;

/// Gives the beginning of a body and keeps it.
pub trait BodySource: Send {
    /// Waits for the body's end or for `max` bytes, whichever comes first, and gives up to `max` bytes and whether the
    /// body ended with them. The reader forwards the same bytes afterwards.
    ///
    /// # Errors
    /// The caller went away.
    fn read(&mut self, max: u32) -> Reading<'_>;
}

/// A request without a body.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBody;

impl BodySource for NoBody {
    fn read(&mut self, _max: u32) -> Reading<'_> {
        Box::pin(std::future::ready(Ok((Bytes::new(), true))))
    }
}

/// Tunnels have no body that ends: Envoy does not wait for it. What only names a tunnel has one like any other, and so
/// has what brings a body beside it: the application may read it, so nobody hides it from a provider.
pub(super) fn is_buffered(request: &Request<'_>) -> bool {
    let Some(http) = request.http else { return false };
    http.method != Some("CONNECT") && (is_framed(http.headers) || !becomes_websocket(http.headers))
}

/// One Upgrade field with one protocol, which a Connection field names: nothing else is an upgrade for whoever forwards.
fn becomes_websocket(headers: &dyn Headers) -> bool {
    let (mut named, mut fields, mut websocket) = (false, 0_usize, false);
    headers.for_each("connection", &mut |value| {
        named |= value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    });
    headers.for_each("upgrade", &mut |value| {
        fields = fields.saturating_add(1);
        websocket = value.trim_ascii().eq_ignore_ascii_case(b"websocket");
    });
    named && websocket && fields == 1
}

/// Whether the head announces a body.
fn is_framed(headers: &dyn Headers) -> bool {
    let mut framed = false;
    headers.for_each("transfer-encoding", &mut |_| framed = true);
    headers.for_each("content-length", &mut |value| framed |= value.trim_ascii() != b"0");
    framed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::HttpRequest;

    #[test]
    fn only_a_tunnel_without_a_body_hides_none() {
        let (connection, upgrade) = (("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"));
        for (fields, buffered) in [
            (vec![connection, upgrade], false),
            (vec![connection, upgrade, ("content-length", "0")], false),
            (vec![connection, upgrade, ("content-length", "4")], true),
            (vec![connection, upgrade, ("transfer-encoding", "chunked")], true),
            (vec![connection, upgrade, ("upgrade", "x")], true),
            (vec![connection, ("upgrade", "x"), upgrade], true),
            (vec![connection, ("upgrade", "websocket, x")], true),
            (vec![upgrade], true),
        ] {
            let http = HttpRequest { method: Some("GET"), headers: &fields, ..HttpRequest::default() };
            let request = Request { http: Some(http), ..Request::default() };
            assert_eq!(is_buffered(&request), buffered, "{fields:?}");
        }
    }
}
