//! What a connection speaks, from its first bytes, within a deadline: a server that speaks first must not be kept waiting.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::first_line::FirstLine;
use crate::h1::request::may_begin_request;
use crate::leg::Leg;
use crate::live::{CUT, DRAIN, Signal};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A line that is longer and may be a request's is taken for one: what serves requests knows their limits.
pub(crate) const LONGEST_LINE: usize = 8 * 1024;

/// First byte of a connection, left unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// A TLS handshake record.
    Tls,
    /// Anything else.
    Other,
    /// Nothing came in time.
    Silent,
    /// The client went away.
    Closed,
}

/// Looks at the first byte without taking it.
pub(crate) async fn first(tcp: &TcpStream, wait: Duration) -> First {
    let mut byte = [0u8; 1];
    match tokio::time::timeout(wait, tcp.peek(&mut byte)).await {
        Err(_) => First::Silent,
        Ok(Ok(1)) if byte == [22] => First::Tls,
        Ok(Ok(1)) => First::Other,
        Ok(_) => First::Closed,
    }
}

/// What was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    /// No request that we would serve. It may still turn out to be HTTP, which the tunnel watches for.
    Other,
    /// Nothing came in time.
    Silent,
    Closed,
}

/// Reads into the leg's buffer until it is known what is spoken. Everything read stays in the buffer.
///
/// What can still become a request that we serve is HTTP when time is over, so that waiting turns no request into bytes.
pub(crate) async fn spoken(leg: &mut Leg, signal: &Signal, wait: Duration) -> Spoken {
    let deadline = Instant::now() + wait;
    loop {
        if let Some(known) = recognise(&leg.rbuf) {
            return known;
        }
        match timeout_at(deadline, fill(leg, signal)).await {
            Err(_) if leg.rbuf.is_empty() => return Spoken::Silent,
            Err(_) => return Spoken::Http1,
            Ok(Ok(n)) if n > 0 => {}
            Ok(Ok(_)) if !leg.rbuf.is_empty() => return Spoken::Other,
            Ok(_) => return Spoken::Closed,
        }
    }
}

/// Reads once; 0 when the connection ended or has to end.
async fn fill(leg: &mut Leg, signal: &Signal) -> std::io::Result<usize> {
    poll_fn(|cx| {
        if signal.poll(cx) & (DRAIN | CUT) != 0 {
            return Poll::Ready(Ok(0));
        }
        leg.poll_fill(cx)
    })
    .await
}

/// HTTP/1 or HTTP/2 where HTTP is certain: only the preface decides. None while it may still become one.
pub(crate) fn version(bytes: &[u8]) -> Option<Spoken> {
    if bytes.len() >= PREFACE.len() {
        return Some(if bytes.starts_with(PREFACE) { Spoken::Http2 } else { Spoken::Http1 });
    }
    (!PREFACE.starts_with(bytes)).then_some(Spoken::Http1)
}

/// Like [`spoken`] where HTTP is certain.
pub(crate) async fn http_version(leg: &mut Leg, signal: &Signal, wait: Duration) -> Spoken {
    let deadline = Instant::now() + wait;
    loop {
        if let Some(known) = version(&leg.rbuf) {
            return known;
        }
        match timeout_at(deadline, fill(leg, signal)).await {
            Err(_) => return Spoken::Silent,
            Ok(Ok(n)) if n > 0 => {}
            Ok(_) => return Spoken::Closed,
        }
    }
}

fn recognise(bytes: &[u8]) -> Option<Spoken> {
    if bytes.is_empty() {
        return None;
    }
    if version(bytes) != Some(Spoken::Http1) {
        return version(bytes);
    }
    match FirstLine::default().read(bytes) {
        Some(true) => Some(Spoken::Http1),
        Some(false) => Some(Spoken::Other),
        None if !may_begin_request(bytes) => Some(Spoken::Other),
        None => (bytes.len() > LONGEST_LINE).then_some(Spoken::Http1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognition_at_every_length() {
        for (bytes, known) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], Spoken::Http1),
            (PREFACE, Spoken::Http2),
            (b"GET key\r\n", Spoken::Other),
            (b"\x16\x03\x01", Spoken::Other),
            (b"SSH-2.0-x\r\n", Spoken::Other),
            (b"get key\r\n", Spoken::Other),
            (b"\r\nGET / HTTP/1.2\r\n", Spoken::Http1),
        ] {
            assert_eq!(recognise(bytes), Some(known));
            for n in 1..bytes.len() {
                let early = recognise(&bytes[..n]);
                assert!(early.is_none() || early == Some(known), "{n} bytes of {bytes:?} gave {early:?}");
            }
        }
        assert_eq!(recognise(b"get / HTTP/1.1\r\n"), Some(Spoken::Http1), "refused as what it is");
        let long = [b"GET /", "a".repeat(LONGEST_LINE).as_bytes()].concat();
        assert_eq!(recognise(&long), Some(Spoken::Http1));
        assert_eq!(version(b"PRI * HTTP/1.1\r\n"), Some(Spoken::Http1));
        assert_eq!(version(b"PRI"), None);
    }
}
