//! The smallest honest HTTP client: blocking, one request a connection, whatever the test says goes on the wire verbatim.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// An answer, read until the peer closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Head as received, without the status line.
    pub head: String,
    /// Body as received (chunked bodies with their framing).
    pub body: String,
}

/// `METHOD path` with `Connection: close` to `address`, `host` as its Host.
///
/// # Errors
/// When the connection is refused, reset, silent for 20 s, or answers something that is not HTTP.
pub fn request(address: SocketAddr, method: &str, path: &str, host: &str) -> Result<Answer> {
    raw(address, &format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
}

/// Sends `bytes` and reads the answer to the end of the connection.
///
/// # Errors
/// As [`request`].
pub fn raw(address: SocketAddr, bytes: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).context("cannot connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(bytes.as_bytes()).context("cannot send")?;
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).context("no answer")?;
    ensure!(!seen.is_empty(), "closed without an answer");
    let text = String::from_utf8_lossy(&seen);
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
    let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = line.split(' ').nth(1).context("no status")?.parse().context("the status is not a number")?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
