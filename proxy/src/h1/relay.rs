//! One direction of a message body, from one leg to the other, without a copy where there need not be one.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Buf;

use super::body::{Framing, FramingError, Piece, Reader};
use super::encode;
use crate::leg::{Leg, WRITE_HIGH};

/// Small first pieces of a body travel in the same write as the head.
const COALESCE: usize = 16 * 1024;

/// Which side failed decides what may be said to the other.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("reading failed")]
    Source(#[source] io::Error),
    #[error("writing failed")]
    Sink(#[source] io::Error),
    #[error(transparent)]
    Framing(#[from] FramingError),
}

/// Moves one body.
#[derive(Debug)]
pub(crate) struct Relay {
    reader: Reader,
    coding: Framing,
    /// Trailers are sent on.
    trailers: bool,
    ended: bool,
}

impl Relay {
    /// A relay of a body framed as `framing`, sent on in `coding`.
    pub(crate) fn new(framing: Framing, coding: Framing) -> Relay {
        let reader = Reader::new(framing);
        // A body of length nought needs no terminator.
        let ended = reader.is_done();
        Relay { reader, coding, trailers: true, ended }
    }

    /// The same with trailers sent on or not.
    pub(crate) fn trailing(self, trailers: bool) -> Relay {
        Relay { trailers, ..self }
    }

    /// Nothing was taken from the source.
    pub(crate) fn is_untouched(&self) -> bool {
        self.reader.is_untouched()
    }

    /// Moves what can be moved. Ready when the body is complete and flushed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, from: &mut Leg, to: &mut Leg) -> Poll<Result<(), RelayError>> {
        while !self.ended {
            if to.wbuf.len() >= WRITE_HIGH {
                ready!(to.poll_flush(cx)).map_err(RelayError::Sink)?;
            }
            match self.reader.next(&mut from.rbuf)? {
                Piece::Data(n) => ready!(self.send(cx, n, from, to)).map_err(RelayError::Sink)?,
                Piece::End(trailers) => {
                    if self.coding == Framing::Chunked {
                        encode::last_chunk(trailers.as_deref().filter(|_| self.trailers), &mut to.wbuf);
                    }
                    self.ended = true;
                }
                Piece::Need => ready!(self.fill(cx, from, to))?,
            }
        }
        to.poll_flush(cx).map_err(RelayError::Sink)
    }

    fn send(&mut self, cx: &mut Context<'_>, n: usize, from: &mut Leg, to: &mut Leg) -> Poll<io::Result<()>> {
        let direct = self.coding != Framing::Chunked && (to.wbuf.is_empty() || n > COALESCE);
        let taken = if direct {
            while !to.wbuf.is_empty() {
                ready!(to.poll_flush(cx))?;
            }
            let piece = from.rbuf.get(..n).unwrap_or_default();
            ready!(to.poll_write(cx, piece))?
        } else {
            self.copy(n.min(COALESCE), from, to)
        };
        from.rbuf.advance(taken);
        self.reader.took(taken);
        Poll::Ready(Ok(()))
    }

    fn copy(&self, n: usize, from: &Leg, to: &mut Leg) -> usize {
        let chunked = self.coding == Framing::Chunked;
        if chunked {
            encode::chunk_size(n, &mut to.wbuf);
        }
        to.wbuf.extend_from_slice(from.rbuf.get(..n).unwrap_or_default());
        if chunked {
            to.wbuf.extend_from_slice(b"\r\n");
        }
        n
    }

    /// Nothing is left to send: what is queued goes out, then more is read.
    fn fill(&mut self, cx: &mut Context<'_>, from: &mut Leg, to: &mut Leg) -> Poll<Result<(), RelayError>> {
        if let Poll::Ready(flushed) = to.poll_flush(cx) {
            flushed.map_err(RelayError::Sink)?;
        }
        if from.eof || ready!(from.poll_fill_body(cx)).map_err(RelayError::Source)? == 0 {
            self.reader.end_of_stream()?;
        }
        Poll::Ready(Ok(()))
    }
}
