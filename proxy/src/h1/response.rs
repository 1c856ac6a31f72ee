//! The reading of a response head from an application or another proxy.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::body::Framing;
use super::request::{MAX_FIELDS, decimal, position};

/// The longest response head.
pub(crate) const MAX_RESPONSE_HEAD: usize = 128 * 1024;

/// A response that cannot be forwarded. The caller sees 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("response is malformed: {0}")]
pub(crate) struct ResponseError(pub(crate) &'static str);

/// A response head; buffers are reused from one exchange to the next.
#[derive(Debug, Default)]
pub(crate) struct ResponseHead {
    text: Vec<u8>,
    pub(crate) status: u16,
    reason: Range<usize>,
    pub(crate) fields: Vec<(Range<usize>, Range<usize>)>,
    pub(crate) framing: Framing,
    /// The server means to read another request.
    pub(crate) keep_alive: bool,
    /// Seconds of `Keep-Alive: timeout=n`, after which the server closes an idle connection.
    pub(crate) idle_hint: Option<u64>,
}

impl ResponseHead {
    /// Reads a head from the front of `buf`. The number of bytes it took, or none when more are needed.
    pub(crate) fn read(&mut self, buf: &[u8], to_head: bool) -> Result<Option<usize>, ResponseError> {
        let mut headers = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let parsing =
            httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, buf, &mut headers);
        let len = match parsing {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if buf.len() > MAX_RESPONSE_HEAD => {
                return Err(ResponseError("head is too long"));
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(ResponseError("head does not parse")),
        };
        self.status = parsed.code.unwrap_or_default();
        if !(100..=999).contains(&self.status) {
            return Err(ResponseError("status is out of range"));
        }
        self.text.clear();
        self.text.extend_from_slice(buf.get(..len).unwrap_or_default());
        self.reason = position(buf, parsed.reason.unwrap_or_default().as_bytes());
        if parsed.reason.unwrap_or_default().is_empty() {
            self.reason = 0..0;
        }
        self.fields.clear();
        let fields = parsed.headers.iter();
        self.fields.extend(fields.map(|h| (position(buf, h.name.as_bytes()), position(buf, h.value))));
        self.keep_alive = parsed.version == Some(1);
        self.judge(to_head)?;
        Ok(Some(len))
    }

    /// The bytes of a position.
    pub(crate) fn at(&self, range: &Range<usize>) -> &[u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// Values of all fields of that name.
    pub(crate) fn values<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(|(n, _)| self.at(n).eq_ignore_ascii_case(name)).map(|(_, value)| self.at(value))
    }

    /// Reason phrase as sent.
    pub(crate) fn reason(&self) -> &[u8] {
        self.at(&self.reason)
    }

    fn judge(&mut self, to_head: bool) -> Result<(), ResponseError> {
        let (mut length, mut coding, mut keep_alive, mut hint) = (None, None, self.keep_alive, None);
        for (name, value) in &self.fields {
            let (name, value) = (self.at(name), self.at(value));
            if name.eq_ignore_ascii_case(b"content-length") {
                let value = decimal(value).ok_or(ResponseError("content-length is no number"))?;
                if length.replace(value).is_some_and(|before| before != value) {
                    return Err(ResponseError("content-lengths differ"));
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if coding.replace(value).is_some() {
                    return Err(ResponseError("two transfer-encodings"));
                }
            } else if name.eq_ignore_ascii_case(b"connection") {
                keep_alive = persistence(value, keep_alive);
            } else if name.eq_ignore_ascii_case(b"keep-alive") {
                hint = idle_hint(value);
            }
        }
        let bodyless = to_head || self.status < 200 || self.status == 204 || self.status == 304;
        self.framing = match (coding, length) {
            _ if bodyless => Framing::Length(0),
            (Some(_), Some(_)) => return Err(ResponseError("content-length beside transfer-encoding")),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
            (Some(_), None) => return Err(ResponseError("transfer-encoding is not understood")),
            (None, Some(length)) => Framing::Length(length),
            (None, None) => Framing::UntilClose,
        };
        self.keep_alive = keep_alive && self.framing != Framing::UntilClose;
        self.idle_hint = hint;
        Ok(())
    }
}

fn persistence(value: &[u8], before: bool) -> bool {
    value.split(|byte| *byte == b',').fold(before, |keep, option| {
        let option = option.trim_ascii();
        if option.eq_ignore_ascii_case(b"close") { false } else { keep || option.eq_ignore_ascii_case(b"keep-alive") }
    })
}

fn idle_hint(value: &[u8]) -> Option<u64> {
    let mut parameters = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    parameters.find_map(|p| decimal(p.strip_prefix(b"timeout=")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, to_head: bool) -> Result<ResponseHead, ResponseError> {
        let mut head = ResponseHead::default();
        assert_eq!(head.read(text.as_bytes(), to_head)?, Some(text.len()));
        Ok(head)
    }

    #[test]
    fn framing_by_status_method_and_fields() {
        let length = read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false).unwrap();
        assert_eq!((length.framing, length.keep_alive), (Framing::Length(5), true));
        let to_head = read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true).unwrap();
        assert_eq!(to_head.framing, Framing::Length(0));
        let not_modified = read("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false).unwrap();
        assert_eq!(not_modified.framing, Framing::Length(0));
        let close = read("HTTP/1.0 200 OK\r\n\r\n", false).unwrap();
        assert_eq!((close.framing, close.keep_alive), (Framing::UntilClose, false));
        let chunked =
            read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5, max=3\r\n\r\n", false)
                .unwrap();
        assert_eq!((chunked.framing, chunked.idle_hint), (Framing::Chunked, Some(5)));
        let closing = read("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false).unwrap();
        assert!(!closing.keep_alive);
    }

    #[test]
    fn contradictions_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(ResponseHead::default().read(text.as_bytes(), false).is_err(), "{text}");
        }
        assert_eq!(ResponseHead::default().read(b"HTTP/1.1 200", false), Ok(None));
    }
}
