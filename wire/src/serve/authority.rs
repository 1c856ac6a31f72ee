//! Clients of a Unix socket that put its path into `:authority`.
//!
//! A Unix socket has no host, and gRPC's implementations disagree on what to say instead: grpc-go says `localhost`, gRPC's C
//! core (Python, Ruby, C++; from 1.57 on) the percent-encoded path, grpc-java the path itself. The latter two are no authority
//! (RFC 3986, section 3.2), and the HTTP/2 library refuses such a request before any service sees it, though nothing
//! on a Unix socket depends on that field. So the bytes of its value that cannot stand in a host are replaced on their
//! way in, one for one: no length changes, and the compression state of both ends stays the same.
//!
//! Only what can be told apart without that state is touched: a literal value, not Huffman-coded, under the static name
//! or the literal one. Everything else passes as it is, broken bytes too: refusing them is the library's business.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose incoming HTTP/2 requests have a valid `:authority`.
pub(super) struct ValidAuthority<S> {
    inner: S,
    reader: Reader,
}

impl<S> ValidAuthority<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, reader: Reader::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ValidAuthority<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Some(news) = buf.filled_mut().get_mut(before..) {
            self.reader.pass(news);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ValidAuthority<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// Where in the connection's bytes we are (RFC 9113, section 4.1). Any split of the bytes over reads is the same to it.
struct Reader {
    /// Bytes of the preface still to come.
    preface: usize,
    header: [u8; FRAME_HEADER],
    /// Bytes of `header` that are there.
    filled: usize,
    frame: Frame,
    fields: Fields,
}

/// What is left of the frame whose header was read.
#[derive(Default)]
struct Frame {
    /// All its bytes.
    left: usize,
    /// The first byte says how much padding ends it.
    padded: bool,
    /// Bytes before the fields.
    skip: usize,
    /// Bytes after the fields.
    padding: usize,
    /// It carries fields at all.
    fields: bool,
}

impl Default for Reader {
    fn default() -> Self {
        let (frame, fields) = (Frame::default(), Fields::default());
        Self { preface: PREFACE, header: [0; FRAME_HEADER], filled: 0, frame, fields }
    }
}

impl Reader {
    fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes).clamp(1, bytes.len());
            bytes = bytes.split_at_mut(taken).1;
        }
    }

    /// Handles the first bytes; returns how many.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        let many = bytes.len();
        if self.preface > 0 {
            let taken = many.min(self.preface);
            self.preface -= taken;
            return taken;
        }
        if self.frame.left == 0 {
            return bytes.first().map_or(many, |byte| self.frame_header(*byte));
        }
        let taken = match &mut self.frame {
            Frame { fields: false, left, .. } => many.min(*left),
            Frame { padded: padded @ true, padding, .. } => {
                *padded = false;
                *padding = bytes.first().map_or(0, |byte| usize::from(*byte));
                1
            }
            Frame { skip, .. } if *skip > 0 => {
                let taken = many.min(*skip);
                *skip -= taken;
                taken
            }
            Frame { left, padding, .. } if *left <= *padding => many.min(*left),
            Frame { left, padding, .. } => {
                let taken = many.min(*left - *padding);
                bytes.iter_mut().take(taken).for_each(|byte| self.fields.pass(byte));
                taken
            }
        };
        self.frame.left = self.frame.left.saturating_sub(taken);
        taken
    }

    fn frame_header(&mut self, byte: u8) -> usize {
        if let Some(place) = self.header.get_mut(self.filled) {
            *place = byte;
        }
        self.filled += 1;
        if self.filled == FRAME_HEADER {
            self.filled = 0;
            let [a, b, c, kind, flags, ..] = self.header;
            let headers = kind == HEADERS;
            if headers {
                self.fields = Fields::default();
            }
            self.frame = Frame {
                left: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
                padded: headers && flags & PADDED != 0,
                skip: if headers && flags & PRIORITY != 0 { PRIORITY_BYTES } else { 0 },
                padding: 0,
                fields: headers || kind == CONTINUATION,
            };
        }
        1
    }
}

const NAME: &[u8] = b":authority";
/// Index of `:authority` in the static table (RFC 7541, appendix A).
const STATIC_INDEX: usize = 1;

/// Where in a field block we are (RFC 7541, section 6). Fields can be told apart without the dynamic table.
#[derive(Default)]
enum Fields {
    /// At the first byte of a field.
    #[default]
    Field,
    /// Inside of a number that goes on.
    Number { value: usize, shift: u32, then: Then },
    /// At the length of a string.
    Length { of: Text },
    /// Inside of the string.
    Bytes { of: Text, left: usize, raw: bool },
    /// Something no encoder writes: the rest of the block passes as it is.
    Lost,
}

/// What a number was.
#[derive(Clone, Copy)]
enum Then {
    /// A whole field or a table size.
    Next,
    /// The index of a name.
    Name,
    /// The length of a string.
    Length { of: Text, raw: bool },
}

#[derive(Clone, Copy)]
enum Text {
    /// A name; how many of its bytes were those of `:authority`, `None` after the first other one.
    Name {
        alike: Option<usize>,
    },
    Value {
        authority: bool,
    },
}

impl Fields {
    fn pass(&mut self, byte: &mut u8) {
        *self = match std::mem::replace(self, Self::Lost) {
            Self::Field => match *byte {
                byte @ 0x80.. => Self::number(byte, 7, Then::Next),
                byte @ 0x40..0x80 => Self::number(byte, 6, Then::Name),
                byte @ 0x20..0x40 => Self::number(byte, 5, Then::Next),
                byte => Self::number(byte, 4, Then::Name),
            },
            Self::Number { value, shift, then } => Self::more(value, shift, then, *byte),
            Self::Length { of } => {
                let raw = *byte & 0x80 == 0;
                Self::number(*byte, 7, Then::Length { of, raw })
            }
            Self::Bytes { of, left, raw } => Self::string(of, left, raw, byte),
            Self::Lost => Self::Lost,
        };
    }

    /// The beginning of a number in the low `bits` of a byte (RFC 7541, section 5.1).
    fn number(byte: u8, bits: u32, then: Then) -> Self {
        let full = (1_usize << bits) - 1;
        let value = usize::from(byte) & full;
        if value < full { Self::known(value, then) } else { Self::Number { value, shift: 0, then } }
    }

    fn more(value: usize, shift: u32, then: Then, byte: u8) -> Self {
        // 28 bits are far more than any field block has.
        if shift > 21 {
            return Self::Lost;
        }
        let value = value + ((usize::from(byte) & 0x7f) << shift);
        if byte & 0x80 == 0 { Self::known(value, then) } else { Self::Number { value, shift: shift + 7, then } }
    }

    fn known(value: usize, then: Then) -> Self {
        match then {
            Then::Next => Self::Field,
            Then::Name if value == 0 => Self::Length { of: Text::Name { alike: Some(0) } },
            Then::Name => Self::Length { of: Text::Value { authority: value == STATIC_INDEX } },
            Then::Length { of, .. } if value == 0 => Self::after(of),
            Then::Length { of, raw } => Self::Bytes { of, left: value, raw },
        }
    }

    fn string(of: Text, left: usize, raw: bool, byte: &mut u8) -> Self {
        let of = match of {
            Text::Name { alike } => {
                let alike = alike.filter(|at| raw && NAME.get(*at) == Some(&*byte)).map(|at| at + 1);
                Text::Name { alike }
            }
            Text::Value { authority: true } if raw && !may_stand_in_host(*byte) => {
                *byte = b'-';
                of
            }
            Text::Value { .. } => of,
        };
        if left > 1 { Self::Bytes { of, left: left - 1, raw } } else { Self::after(of) }
    }

    fn after(of: Text) -> Self {
        match of {
            Text::Name { alike } => Self::Length { of: Text::Value { authority: alike == Some(NAME.len()) } },
            Text::Value { .. } => Self::Field,
        }
    }
}

/// Letters, digits and what stands in names, addresses and ports.
fn may_stand_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':' | b'[' | b']')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRI: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn text(bytes: &[u8]) -> Vec<u8> {
        [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    /// What comes out, whole and byte by byte alike.
    fn passed(frames: &[Vec<u8>]) -> Vec<u8> {
        let bytes = [PRI.to_vec(), frames.concat()].concat();
        let mut whole = bytes.clone();
        Reader::default().pass(&mut whole);
        let (mut reader, mut single) = (Reader::default(), bytes);
        single.chunks_mut(1).for_each(|byte| reader.pass(byte));
        assert_eq!(whole, single);
        whole.split_off(PRI.len())
    }

    #[test]
    fn the_path_that_grpcs_core_sends_becomes_a_name() {
        // As captured: `:path`, then the name in full and the percent-encoded path.
        let block = |value: &[u8]| {
            [&[0x40][..], &text(b":path"), &text(b"/a%b"), &[0x40], &text(b":authority"), &text(value), &[0x83, 0x86]]
                .concat()
        };
        let settings = frame(4, 0, &[0, 2, 0, 0, 0, 0]);
        let sent = [settings.clone(), frame(1, 4, &block(b"tmp%2Fsniff.sock"))];
        assert_eq!(passed(&sent), [settings, frame(1, 4, &block(b"tmp-2Fsniff.sock"))].concat());
    }

    #[test]
    fn the_static_name_and_every_kind_of_literal_are_known() {
        for first in [0x41, 0x01, 0x11] {
            let block = |value: &[u8]| [&[0x82, 0x3f, 0x81, 0x01, first][..], &text(value), &[0x84]].concat();
            assert_eq!(passed(&[frame(1, 4, &block(b"/run/x"))]), frame(1, 4, &block(b"-run-x")));
        }
    }

    #[test]
    fn priority_padding_and_continuations_are_stepped_over() {
        let value = |path: &[u8]| [&[0x41][..], &text(path)].concat();
        let padded = |path: &[u8]| [&[3, 0, 0, 0, 0, 9][..], &value(path), b"%%%"].concat();
        assert_eq!(passed(&[frame(1, 0x2c, &padded(b"a%"))]), frame(1, 0x2c, &padded(b"a-")));
        let split = |path: &[u8]| {
            let block = value(path);
            let (one, two) = block.split_at(4);
            [frame(1, 0, one), frame(9, 4, two)].concat()
        };
        assert_eq!(passed(&[split(b"/run/%2F")]), split(b"-run--2F"));
    }

    #[test]
    fn other_fields_frames_and_good_names_pass() {
        let good =
            [&[0x41][..], &text(b"[::1]:8080"), &[0x40], &text(b":authoritx"), &text(b"a%/"), &[0x44], &text(b"/%")]
                .concat();
        let huffman = [0x41, 0x82, 0x25, 0x2f].to_vec();
        let frames = [frame(1, 4, &good), frame(0, 1, b"\x41\x02a%"), frame(1, 4, &huffman), frame(1, 4, b"")];
        assert_eq!(passed(&frames), frames.concat());
    }

    #[test]
    fn no_bytes_make_it_fail() {
        let endless = frame(1, 0, &[0xff; 64]);
        let cut = frame(1, 0x8, &[200, 0x41]);
        let after = frame(1, 4, &[&[0x41][..], &text(b"%")].concat());
        let fixed = frame(1, 4, &[&[0x41][..], &text(b"-")].concat());
        assert_eq!(passed(&[endless.clone(), cut.clone(), after]), [endless, cut, fixed].concat());
    }
}
