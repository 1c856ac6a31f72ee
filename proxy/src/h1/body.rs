//! Where a message body ends (RFC 9112, 6 and 7), decided byte for byte.

use bytes::{Buf, BytesMut};

/// Longest line with a chunk size; extensions are not forwarded and need no room.
const MAX_SIZE_LINE: usize = 256;
/// Longest trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// How the head says the body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// That many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection closes; responses only.
    UntilClose,
}

impl Default for Framing {
    fn default() -> Framing {
        Framing::Length(0)
    }
}

/// What the reader found at the front of the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// More bytes are needed to go on.
    Need,
    /// The first so many bytes of the buffer are body. Say [`Reader::took`] for those used.
    Data(usize),
    /// The body is complete; the trailer section as sent, through its empty line.
    End(Option<BytesMut>),
}

/// The framing is broken: the connection cannot be used further, and nothing of it may look complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("body framing is broken: {0}")]
pub(crate) struct FramingError(&'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    SizeLine,
    Chunk(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// Reads a body piece by piece out of a buffer.
#[derive(Debug)]
pub(crate) struct Reader {
    state: State,
    /// Bytes of the body or its framing were taken from the buffer.
    advanced: bool,
}

impl Reader {
    pub(crate) fn new(framing: Framing) -> Reader {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::SizeLine,
            Framing::UntilClose => State::UntilClose,
        };
        Reader { state, advanced: false }
    }

    /// Nothing was taken yet: another reader could read the body from its beginning.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.advanced
    }

    /// Everything was read.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What has to stand in front of the bytes not yet read, so that another reader reads the same message: `body` is
    /// what this one has read of it, `trailers` what came with its end.
    pub(crate) fn restored(&self, chunked: bool, body: &[u8], trailers: Option<&[u8]>) -> BytesMut {
        if !chunked {
            return BytesMut::from(body);
        }
        let mut out = BytesMut::with_capacity(body.len() + 64);
        if !body.is_empty() {
            super::encode::chunk_size(body.len(), &mut out);
            out.extend_from_slice(body);
            // After a chunk that was read whole, its own line end is still to come.
            if self.state != State::ChunkEnd {
                out.extend_from_slice(b"\r\n");
            }
        }
        match self.state {
            State::Chunk(left) => super::encode::chunk_size(usize::try_from(left).unwrap_or(usize::MAX), &mut out),
            State::Trailers => out.extend_from_slice(b"0\r\n"),
            State::Done => {
                out.extend_from_slice(b"0\r\n");
                out.extend_from_slice(trailers.unwrap_or(b"\r\n"));
            }
            State::SizeLine | State::ChunkEnd | State::Length(_) | State::UntilClose => {}
        }
        out
    }

    /// Looks at the front of `buf`, consuming framing bytes only.
    pub(crate) fn next(&mut self, buf: &mut BytesMut) -> Result<Piece, FramingError> {
        loop {
            match self.state {
                State::Done => return Ok(Piece::End(None)),
                State::Length(left) | State::Chunk(left) => {
                    let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    return Ok(if n == 0 { Piece::Need } else { Piece::Data(n) });
                }
                State::UntilClose if buf.is_empty() => return Ok(Piece::Need),
                State::UntilClose => return Ok(Piece::Data(buf.len())),
                State::SizeLine => match size_line(buf)? {
                    None => return Ok(Piece::Need),
                    Some(n) => {
                        self.advanced = true;
                        self.state = if n == 0 { State::Trailers } else { State::Chunk(n) };
                    }
                },
                State::ChunkEnd => match buf.get(..2) {
                    None => return Ok(Piece::Need),
                    Some(b"\r\n") => {
                        buf.advance(2);
                        self.state = State::SizeLine;
                    }
                    Some(_) => return Err(FramingError("no line end after a chunk")),
                },
                State::Trailers => return self.trailers(buf),
            }
        }
    }

    /// Says that so many data bytes were used (and removed from the buffer).
    pub(crate) fn took(&mut self, n: usize) {
        let n = n as u64;
        self.advanced |= n > 0;
        self.state = match self.state {
            State::Length(left) if left <= n => State::Done,
            State::Length(left) => State::Length(left - n),
            State::Chunk(left) if left <= n => State::ChunkEnd,
            State::Chunk(left) => State::Chunk(left - n),
            other => other,
        };
    }

    /// The connection ended. Complete only for a body that ends that way.
    pub(crate) fn end_of_stream(&mut self) -> Result<(), FramingError> {
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(FramingError("the connection ended in the middle of the body")),
        }
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Piece, FramingError> {
        if buf.starts_with(b"\r\n") {
            buf.advance(2);
            self.state = State::Done;
            return Ok(Piece::End(None));
        }
        match memchr::memmem::find(buf, b"\r\n\r\n") {
            Some(at) if at + 4 <= MAX_TRAILERS => {
                self.state = State::Done;
                Ok(Piece::End(Some(buf.split_to(at + 4))))
            }
            None if buf.len() <= MAX_TRAILERS => Ok(Piece::Need),
            _ => Err(FramingError("trailers are too long")),
        }
    }
}

/// Reads `size [; extension] CRLF`. Extensions are dropped: nothing behind us may read them in another way.
fn size_line(buf: &mut BytesMut) -> Result<Option<u64>, FramingError> {
    let Some(end) = memchr::memchr(b'\n', buf.get(..buf.len().min(MAX_SIZE_LINE)).unwrap_or_default()) else {
        return if buf.len() < MAX_SIZE_LINE { Ok(None) } else { Err(FramingError("chunk size line is too long")) };
    };
    let line = buf.get(..end).unwrap_or_default();
    let Some(line) = line.strip_suffix(b"\r") else { return Err(FramingError("bare line feed in chunk size")) };
    if line.contains(&b'\r') {
        return Err(FramingError("bare carriage return in chunk size"));
    }
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let size = hexadecimal(digits).ok_or(FramingError("chunk size is no number"))?;
    buf.advance(end + 1);
    Ok(Some(size))
}

fn hexadecimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 15 {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| Some(sum * 16 + u64::from(char::from(*byte).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, bool, usize), FramingError> {
        let (mut reader, mut buf, mut out) = (Reader::new(framing), BytesMut::new(), Vec::new());
        let mut chunks = input.chunks(step);
        loop {
            match reader.next(&mut buf)? {
                Piece::Data(n) => {
                    out.extend_from_slice(&buf.split_to(n));
                    reader.took(n);
                }
                Piece::End(trailers) => return Ok((out, trailers.is_some(), buf.len())),
                Piece::Need => match chunks.next() {
                    Some(more) => buf.extend_from_slice(more),
                    None => reader.end_of_stream()?,
                },
            }
        }
    }

    #[test]
    fn every_framing_at_every_split() {
        let chunked = b"5;x=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nx: y\r\n\r\n";
        for step in 1..chunked.len() {
            assert_eq!(all(Framing::Chunked, chunked, step).unwrap(), (b"hello world".to_vec(), true, 0));
            assert_eq!(all(Framing::UntilClose, b"abc", step).unwrap(), (b"abc".to_vec(), false, 0));
        }
        assert_eq!(all(Framing::Length(3), b"abcGET", 6).unwrap(), (b"abc".to_vec(), false, 3));
        assert_eq!(all(Framing::Length(0), b"", 1).unwrap(), (Vec::new(), false, 0));
    }

    /// Reads as far as `bytes` goes, puts back what was read, and reads all of it again.
    fn again(framing: Framing, bytes: &[u8], rest: &[u8]) -> (Vec<u8>, bool) {
        let (mut reader, mut buf) = (Reader::new(framing), BytesMut::from(bytes));
        let (mut body, mut trailers) = (Vec::new(), None);
        loop {
            match reader.next(&mut buf).unwrap() {
                Piece::Data(n) => {
                    body.extend_from_slice(&buf.split_to(n));
                    reader.took(n);
                }
                Piece::End(with) => {
                    trailers = with;
                    break;
                }
                Piece::Need => break,
            }
        }
        let mut whole = reader.restored(framing == Framing::Chunked, &body, trailers.as_deref());
        whole.extend_from_slice(&buf);
        whole.extend_from_slice(rest);
        let (body, trailers, left) = all(framing, &whole, whole.len()).unwrap();
        assert_eq!(left, 3, "the next request stays: {whole:?}");
        (body, trailers)
    }

    #[test]
    fn what_was_read_can_be_read_again_at_every_split() {
        let chunked = b"5;x=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nx: y\r\n\r\nGET";
        let bare = b"5\r\nhello\r\n0\r\n\r\nGET";
        for split in 0..=chunked.len() {
            let (bytes, rest) = chunked.split_at(split);
            assert_eq!(again(Framing::Chunked, bytes, rest), (b"hello world".to_vec(), true), "{split}");
        }
        for split in 0..=bare.len() {
            let (bytes, rest) = bare.split_at(split);
            assert_eq!(again(Framing::Chunked, bytes, rest), (b"hello".to_vec(), false), "{split}");
        }
        for split in 0..=8 {
            let (bytes, rest) = b"helloGET".split_at(split);
            assert_eq!(again(Framing::Length(5), bytes, rest), (b"hello".to_vec(), false), "{split}");
        }
    }

    #[test]
    fn broken_framing_is_an_error_never_a_guess() {
        for input in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhelloX\r\n",
            b"\r\n",
            b"g\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"5\r\nhel",
            b"fffffffffffffffff\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n",
        ] {
            assert!(all(Framing::Chunked, input, 64).is_err(), "{:?}", String::from_utf8_lossy(input));
        }
        assert!(all(Framing::Length(5), b"hel", 1).is_err());
        assert!(all(Framing::Chunked, &[b'1'; 400], 400).is_err());
    }
}
