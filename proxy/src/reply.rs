//! What the proxy answers in an application's place, whoever found the words: policy, a provider, or the proxy itself.
//!
//! One type for both versions of HTTP, because the rules are Envoy's and the same in both (its local replies): a body
//! without a type is `text/plain`, no body has no type, and a gRPC client gets status and message in trailers alone.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use palisade_authz::provider::ResponseEdits;

use crate::headers;

/// What Envoy answers to a request that policy denies, to the letter.
pub(crate) const DENIED_BODY: &str = "RBAC: access denied";

/// An answer of our own.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Status, for callers that are not gRPC clients.
    status: u16,
    /// Checked fields; framing and connection fields never stand among them.
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Reply {
    /// A status with a line of text. Allocates nothing.
    pub(crate) const fn text(status: u16, body: &'static str) -> Reply {
        Reply { status, headers: Vec::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    /// The refusal of a policy.
    pub(crate) const fn denied() -> Reply {
        Reply::text(403, DENIED_BODY)
    }

    /// With these fields, as far as they are fields and ours to send: what would change framing or connection, or is
    /// no field at all, stays out.
    pub(crate) fn with(status: u16, fields: Vec<(String, Vec<u8>)>, body: Bytes) -> Reply {
        // 1xx would promise another answer.
        let status = if (200..=599).contains(&status) { status } else { 403 };
        Reply { status, headers: response_fields(fields), body }
    }

    /// The same with what a provider changes in responses.
    pub(crate) fn edited(mut self, edits: Option<&ResponseEdits>) -> Reply {
        let Some(edits) = edits else { return self };
        let present: Vec<HeaderName> = self.headers.iter().map(|(name, _)| name.clone()).collect();
        let resolved = edits.resolve(&|name| present.iter().any(|other| other == name));
        self.headers.retain(|(name, _)| !resolved.remove.contains(&name.as_str()));
        let added = resolved.add.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec()));
        self.headers.extend(response_fields(added.collect()));
        self
    }

    /// The status that the caller sees: gRPC clients understand an answer only inside HTTP 200.
    pub(crate) fn seen(&self, grpc: bool) -> u16 {
        if grpc { 200 } else { self.status }
    }

    /// Calls `f` with each field but `content-length`.
    pub(crate) fn for_each(&self, grpc: bool, mut f: impl FnMut(&str, &[u8])) {
        let has = |wanted: &str| self.headers.iter().any(|(name, _)| name == wanted);
        let message = grpc && !self.body.is_empty();
        if grpc {
            f("content-type", b"application/grpc");
            if !has("grpc-status") {
                f("grpc-status", grpc_status(self.status).as_bytes());
            }
            if message {
                f("grpc-message", percent_encoded(&self.body).as_ref());
            }
        } else if !has("content-type") && !self.body.is_empty() {
            f("content-type", b"text/plain");
        }
        for (name, value) in &self.headers {
            let ours = match name.as_str() {
                "content-type" => grpc || self.body.is_empty(),
                "grpc-message" => message,
                _ => false,
            };
            if !ours {
                f(name.as_str(), value.as_bytes());
            }
        }
    }

    /// The body; a gRPC client gets it as its message.
    pub(crate) fn body(&self, grpc: bool) -> Bytes {
        if grpc { Bytes::new() } else { self.body.clone() }
    }
}

/// Changes the fields of an application's response as a provider wants it.
pub(crate) fn edit(headers: &mut HeaderMap, edits: &ResponseEdits) {
    let resolved = edits.resolve(&|name| headers.contains_key(name));
    for name in &resolved.remove {
        headers.remove(*name);
    }
    let added = resolved.add.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec()));
    for (name, value) in response_fields(added.collect()) {
        headers.append(name, value);
    }
}

/// Fields for a response, without what is no field and what speaks of this connection.
pub(crate) fn response_fields(fields: Vec<(String, Vec<u8>)>) -> Vec<(HeaderName, HeaderValue)> {
    let checked = |(name, value): (String, Vec<u8>)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let value = HeaderValue::from_bytes(value.trim_ascii()).ok()?;
        (!headers::is_framing(name.as_str())).then_some((name, value))
    };
    fields.into_iter().filter_map(checked).collect()
}

/// The gRPC status that Envoy makes of an HTTP status.
const fn grpc_status(status: u16) -> &'static str {
    match status {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502..=504 => "14",
        _ => "2",
    }
}

/// Percent-encoded as `grpc-message` has to be: printable ASCII but `%` stands for itself.
fn percent_encoded(message: &[u8]) -> Cow<'_, [u8]> {
    use std::io::Write;
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'%';
    if message.iter().all(is_plain) {
        return Cow::Borrowed(message);
    }
    let mut out = Vec::with_capacity(message.len() * 3);
    for byte in message {
        if is_plain(byte) {
            out.push(*byte);
        } else {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(reply: &Reply, grpc: bool) -> Vec<String> {
        let mut out = Vec::new();
        reply.for_each(grpc, |name, value| out.push(format!("{name}: {}", String::from_utf8_lossy(value))));
        out
    }

    #[test]
    fn a_body_has_a_type_and_no_body_has_none() {
        assert_eq!(fields(&Reply::denied(), false), ["content-type: text/plain"]);
        let typed = vec![("Content-Type".to_owned(), b"text/html".to_vec()), ("x-a".to_owned(), b"1".to_vec())];
        let html = Reply::with(401, typed.clone(), Bytes::from_static(b"<p>"));
        assert_eq!(fields(&html, false), ["content-type: text/html", "x-a: 1"]);
        assert_eq!(fields(&Reply::with(401, typed, Bytes::new()), false), ["x-a: 1"]);
    }

    #[test]
    fn grpc_clients_get_status_and_message_in_fields() {
        assert_eq!(Reply::denied().seen(true), 200);
        assert_eq!(
            fields(&Reply::denied(), true),
            ["content-type: application/grpc", "grpc-status: 7", "grpc-message: RBAC: access denied"]
        );
        assert!(Reply::denied().body(true).is_empty());
        let odd = Reply::with(
            429,
            vec![("content-type".to_owned(), b"text/html".to_vec()), ("retry-after".to_owned(), b"1".to_vec())],
            Bytes::from_static("50 % für\n".as_bytes()),
        );
        assert_eq!(
            fields(&odd, true),
            ["content-type: application/grpc", "grpc-status: 14", "grpc-message: 50 %25 f%C3%BCr%0A", "retry-after: 1"]
        );
    }

    #[test]
    fn what_would_break_the_connection_stays_out() {
        let fields = [
            ("transfer-encoding", "chunked"),
            ("Content-Length", "7"),
            ("connection", "close"),
            ("bad name", "x"),
            (":status", "200"),
            ("x-split", "a\r\nSet-Cookie: b=c"),
            ("x-good", " yes "),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).to_vec();
        let kept = response_fields(fields);
        assert_eq!(kept, [(HeaderName::from_static("x-good"), HeaderValue::from_static("yes"))]);
        assert_eq!(Reply::with(101, vec![], Bytes::new()).seen(false), 403);
    }
}
