//! HTTP/1.1 spoken byte by byte: requests that no client library would send, many on one connection.

use std::io::{BufRead, BufReader, Read, Write};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::listener::{METADATA_HEADER, NUMBER_HEADER, PEER_HEADER};
use super::value;
use crate::conformance::scene::{Ask, Scene};
use crate::conformance::translate::Identity;

/// Appends a request, which Envoy logs as `which`.
pub(super) fn write_request(scene: &Scene, ask: &Ask, which: &str, out: &mut Vec<u8>) {
    let target = ask.target.as_deref().unwrap_or(&ask.host);
    out.extend(format!("{} {target} HTTP/1.1\r\nHost: {}\r\n", ask.method, ask.host).bytes());
    out.extend(format!("{NUMBER_HEADER}: {which}\r\n").bytes());
    if scene.door.identity == Identity::FilterState
        && let Some(principal) = &ask.principal
    {
        out.extend(format!("{PEER_HEADER}: spiffe://{principal}\r\n").bytes());
    }
    if let Some(metadata) = &ask.metadata {
        let encoded = STANDARD.encode(value::encode(metadata));
        out.extend(format!("{METADATA_HEADER}: {encoded}\r\n").bytes());
    }
    for (name, value) in &ask.headers {
        out.extend(name.bytes());
        out.extend(b": ");
        out.extend(value);
        out.extend(b"\r\n");
    }
    out.extend(b"\r\n");
}

/// A response; `None` where the connection ends before one begins.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) closes: bool,
    pub(super) facts: Value,
}

/// Reads one response, of a request that was not HEAD.
///
/// # Errors
/// When it is not an HTTP response with a length.
pub(super) fn read_response<R: Read>(reader: &mut BufReader<R>) -> Result<Option<Response>> {
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or_default() == 0 {
        return Ok(None);
    }
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(|| format!("{line:?}"))?;
    let (mut length, mut closes) = (0, false);
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            bail!("a response head that ends early");
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => length = value.parse()?,
            ("connection", "close") => closes = true,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let facts = serde_json::from_slice(&body).with_context(|| format!("{}", String::from_utf8_lossy(&body)))?;
    Ok(Some(Response { status, closes, facts }))
}

/// Sends everything at once.
///
/// # Errors
/// When the connection breaks.
pub(super) fn send(stream: &mut impl Write, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes)?;
    Ok(stream.flush()?)
}
