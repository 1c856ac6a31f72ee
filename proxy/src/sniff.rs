//! What a connection speaks, from its first bytes, within a deadline: a server that speaks first must not be kept waiting.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::leg::Leg;
use crate::live::{CUT, DRAIN, Signal};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A request line longer than this is not waited for.
const LONGEST_LINE: usize = 8 * 1024;

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
    /// No HTTP.
    Other,
    /// Nothing, or too little to tell, came in time.
    Silent,
    Closed,
}

/// Reads into the leg's buffer until it is known what is spoken. Everything read stays in the buffer.
pub(crate) async fn spoken(leg: &mut Leg, signal: &Signal, wait: Duration) -> Spoken {
    let deadline = Instant::now() + wait;
    loop {
        if let Some(known) = recognise(&leg.rbuf) {
            return known;
        }
        match timeout_at(deadline, fill(leg, signal)).await {
            Err(_) => return Spoken::Silent,
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
    // A method is upper-case letters (and `-`), then a space.
    let method = bytes.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
    match bytes.get(method) {
        None if method <= 16 => return None,
        Some(b' ') if method > 0 => {}
        _ => return Some(Spoken::Other),
    }
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return (bytes.len() > LONGEST_LINE).then_some(Spoken::Other);
    };
    let line = bytes.get(..end).unwrap_or_default().trim_ascii_end();
    let http = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    Some(if http { Spoken::Http1 } else { Spoken::Other })
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
            (b"get / HTTP/1.1\r\n", Spoken::Other),
        ] {
            assert_eq!(recognise(bytes), Some(known));
            for n in 1..bytes.len() {
                let early = recognise(&bytes[..n]);
                assert!(early.is_none() || early == Some(known), "{n} bytes of {bytes:?} gave {early:?}");
            }
        }
        assert_eq!(version(b"PRI * HTTP/1.1\r\n"), Some(Spoken::Http1));
        assert_eq!(version(b"PRI"), None);
    }
}
