//! The strict reading of a request head (RFC 9112), and what it says about framing.

use std::mem::MaybeUninit;
use std::ops::Range;

use memchr::memmem;
use palisade_authz::{HTTP1_METHODS, Headers};

use super::body::Framing;

/// Header fields a head may have.
pub(crate) const MAX_FIELDS: usize = 128;

/// Whether requests of that method are served at all.
pub(crate) fn method_is_known(method: &str) -> bool {
    HTTP1_METHODS.contains(&method)
}

/// Whether sending it twice is the same as sending it once (RFC 9110, 9.2.2).
pub(crate) fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Whether more bytes can make a request that we serve out of these: a method, or a part of one, after white space.
pub(crate) fn may_begin_request(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let word = bytes.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let whole = word.len() < bytes.len();
    HTTP1_METHODS.iter().any(|known| if whole { known.as_bytes() == word } else { known.as_bytes().starts_with(word) })
}

/// Why a head is not served: the status and a stable word for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadError {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
}

const fn bad(reason: &'static str) -> HeadError {
    HeadError { status: 400, reason }
}

/// One header field, as positions in the head's text.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: Range<usize>,
    pub(crate) value: Range<usize>,
    pub(crate) kind: Kind,
}

/// What the proxy does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Forwarded as it stands.
    Plain,
    /// Speaks of this connection only, or would lie about identity: not forwarded, not seen by policy.
    Dropped,
    /// Framing, connection and upgrade fields: policy sees them, the forwarder writes its own.
    Hop,
    Host,
    Expect,
    Te,
}

/// A request head, read strictly. The buffers are reused from request to request of a connection.
#[derive(Debug, Default)]
pub(crate) struct RequestHead {
    text: Vec<u8>,
    pub(crate) fields: Vec<Field>,
    method: Range<usize>,
    target: Range<usize>,
    /// HTTP/1.0 instead of HTTP/1.1.
    pub(crate) http10: bool,
    pub(crate) framing: Framing,
    /// The client means to send another request on this connection.
    pub(crate) keep_alive: bool,
    /// The protocol named by `Upgrade`, when `Connection: upgrade` stands beside it.
    pub(crate) upgrade: Option<Range<usize>>,
    pub(crate) expects_continue: bool,
}

/// Where the end of a head is looked for again after more bytes came.
pub(crate) fn head_end(buf: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(3);
    memmem::find(buf.get(from..)?, b"\r\n\r\n").map(|at| from + at + 4)
}

/// Empty lines that robust servers ignore in front of a request line (RFC 9112, 2.2).
pub(crate) fn leading_blank(buf: &[u8]) -> usize {
    buf.chunks(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

impl RequestHead {
    /// Reads the complete head in `text` (through its empty line).
    pub(crate) fn read(&mut self, text: &[u8]) -> Result<(), HeadError> {
        line_ends_are_strict(text)?;
        self.text.clear();
        self.text.extend_from_slice(text);
        self.fields.clear();
        let mut headers = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(&self.text, &mut headers) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(bad("head-incomplete")),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError { status: 431, reason: "too-many-fields" }),
            Err(httparse::Error::Version) => return Err(HeadError { status: 505, reason: "version" }),
            Err(_) => return Err(bad("head-malformed")),
        }
        let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(bad("head-malformed"));
        };
        self.method = position(&self.text, method.as_bytes());
        self.target = position(&self.text, target.as_bytes());
        self.http10 = minor == 0;
        self.fields.extend(parsed.headers.iter().map(|header| Field {
            name: position(&self.text, header.name.as_bytes()),
            value: position(&self.text, header.value),
            kind: kind(header.name),
        }));
        self.judge()
    }

    /// The bytes of a position.
    pub(crate) fn at(&self, range: &Range<usize>) -> &[u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// Request method.
    pub(crate) fn method(&self) -> &str {
        std::str::from_utf8(self.at(&self.method)).unwrap_or_default()
    }

    /// Request target as sent.
    pub(crate) fn target(&self) -> &[u8] {
        self.at(&self.target)
    }

    /// Values of all fields of that name that policy may see.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter_map(move |field| {
            let same = field.kind != Kind::Dropped && self.at(&field.name).eq_ignore_ascii_case(name.as_bytes());
            same.then(|| self.at(&field.value))
        })
    }

    /// The one Host field, if there is one.
    pub(crate) fn host(&self) -> Option<&[u8]> {
        self.fields.iter().find(|field| field.kind == Kind::Host).map(|field| self.at(&field.value))
    }

    fn judge(&mut self) -> Result<(), HeadError> {
        if !method_is_known(self.method()) {
            return Err(bad("method"));
        }
        self.judge_host()?;
        self.framing = self.judge_framing()?;
        self.keep_alive = !self.http10;
        self.upgrade = None;
        self.expects_continue = false;
        self.judge_connection();
        // One decides what a connection becomes, and what it carries until then is a body: who means both means to be
        // read in two ways.
        if self.upgrade.is_some() && self.framing != Framing::Length(0) {
            return Err(bad("upgrade-with-body"));
        }
        for field in &self.fields {
            if field.kind == Kind::Expect {
                if !self.at(&field.value).eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadError { status: 417, reason: "expectation" });
                }
                self.expects_continue = !self.http10;
            }
        }
        Ok(())
    }

    fn judge_host(&self) -> Result<(), HeadError> {
        let mut hosts = self.fields.iter().filter(|field| field.kind == Kind::Host);
        let first = hosts.next();
        if hosts.next().is_some() {
            return Err(bad("duplicate-host"));
        }
        match first {
            None if self.http10 => Ok(()),
            None => Err(bad("missing-host")),
            Some(field) if authority_is_plain(self.at(&field.value)) => Ok(()),
            Some(_) => Err(bad("ambiguous-host")),
        }
    }

    fn judge_framing(&self) -> Result<Framing, HeadError> {
        let mut length = None;
        let mut coding = None;
        for field in self.fields.iter().filter(|field| field.kind == Kind::Hop) {
            let (name, value) = (self.at(&field.name), self.at(&field.value));
            if name.eq_ignore_ascii_case(b"content-length") {
                if length.replace(value).is_some() {
                    return Err(bad("duplicate-content-length"));
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") && coding.replace(value).is_some() {
                return Err(bad("duplicate-transfer-encoding"));
            }
        }
        match (length, coding) {
            (Some(_), Some(_)) => Err(bad("length-and-transfer-encoding")),
            (None, Some(_)) if self.http10 => Err(bad("transfer-encoding-in-1.0")),
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (None, Some(_)) => Err(HeadError { status: 501, reason: "transfer-encoding" }),
            (Some(length), None) => decimal(length).map(Framing::Length).ok_or(bad("content-length")),
            (None, None) => Ok(Framing::Length(0)),
        }
    }

    /// Reads the Connection field(s): persistence, upgrade, and the fields they name, which must not be forwarded.
    fn judge_connection(&mut self) {
        let mut named: Vec<Range<usize>> = Vec::new();
        let (mut keep_alive, mut upgrade) = (self.keep_alive, false);
        for field in self.fields.iter().filter(|field| self.at(&field.name).eq_ignore_ascii_case(b"connection")) {
            for option in options(self.at(&field.value), field.value.start) {
                match self.at(&option) {
                    word if word.eq_ignore_ascii_case(b"close") => keep_alive = false,
                    word if word.eq_ignore_ascii_case(b"keep-alive") => keep_alive = true,
                    word if word.eq_ignore_ascii_case(b"upgrade") => upgrade = true,
                    _ => named.push(option),
                }
            }
        }
        self.keep_alive = keep_alive;
        let text = &self.text;
        let at = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
        for field in &mut self.fields {
            let strippable = matches!(field.kind, Kind::Plain | Kind::Te);
            if strippable && named.iter().any(|option| at(option).eq_ignore_ascii_case(at(&field.name))) {
                field.kind = Kind::Dropped;
            }
        }
        if upgrade && !self.http10 {
            self.upgrade = self.upgrade_field();
        }
    }

    /// The one protocol asked for. A choice of several is ignored, because the server would make it, and so are those
    /// that would carry undecided requests: `h2c`, `HTTP/2.0`, `TLS/1.x`.
    fn upgrade_field(&self) -> Option<Range<usize>> {
        let mut fields = self.fields.iter().filter(|field| self.at(&field.name).eq_ignore_ascii_case(b"upgrade"));
        let field = fields.next()?;
        (fields.next().is_none() && is_tunnel_protocol(self.at(&field.value))).then(|| field.value.clone())
    }
}

impl Headers for RequestHead {
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        self.values(name).for_each(f);
    }

    fn visit(&self, f: &mut dyn FnMut(&str, &[u8])) {
        for field in self.fields.iter().filter(|field| field.kind != Kind::Dropped) {
            if let Ok(name) = std::str::from_utf8(self.at(&field.name)) {
                f(name, self.at(&field.value));
            }
        }
    }
}

/// `name` or `name/version`, and no name that stands for requests or for TLS.
fn is_tunnel_protocol(value: &[u8]) -> bool {
    let mut parts = value.splitn(2, |byte| *byte == b'/');
    let name = parts.next().unwrap_or_default();
    let carries_requests = [&b"h2"[..], b"h3", b"http", b"tls"]
        .iter()
        .any(|p| name.get(..p.len()).is_some_and(|n| n.eq_ignore_ascii_case(p)));
    let is_token = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| crate::first_line::is_token(*byte));
    is_token(name) && parts.all(is_token) && !carries_requests
}

/// Comma-separated options of a field value, as positions in the head.
fn options(value: &[u8], base: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = base;
    value.split(|byte| *byte == b',').map(move |part| {
        let from = start + part.iter().take_while(|b| b.is_ascii_whitespace()).count();
        let range = from..from + part.trim_ascii().len();
        start += part.len() + 1;
        range
    })
}

fn kind(name: &str) -> Kind {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        4 if is("host") => Kind::Host,
        6 if is("expect") => Kind::Expect,
        2 if is("te") => Kind::Te,
        10 if is("connection") || is("keep-alive") => Kind::Hop,
        7 if is("upgrade") => Kind::Hop,
        14 if is("content-length") || is("http2-settings") => Kind::Hop,
        17 if is("transfer-encoding") => Kind::Hop,
        16 if is("proxy-connection") => Kind::Hop,
        _ if crate::headers::is_identity(name) => Kind::Dropped,
        _ => Kind::Plain,
    }
}

/// Every CR is followed by LF and every LF preceded by CR: a head that two parsers could split differently is refused.
fn line_ends_are_strict(text: &[u8]) -> Result<(), HeadError> {
    for at in memchr::memchr2_iter(b'\r', b'\n', text) {
        let strict = match text.get(at) {
            Some(b'\r') => text.get(at + 1) == Some(&b'\n'),
            _ => at > 0 && text.get(at - 1) == Some(&b'\r'),
        };
        if !strict {
            return Err(bad("bare-line-end"));
        }
    }
    Ok(())
}

/// A Host or authority that nobody can read in two ways: no user information, list, path, space or control byte.
pub(crate) fn authority_is_plain(authority: &[u8]) -> bool {
    authority.len() <= 255 + 6
        && authority.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(byte))
}

pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0')))
}

/// Where `part`, a slice of `text`, lies in it.
pub(crate) fn position(text: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    start..start + part.len()
}

#[cfg(test)]
mod tests;
