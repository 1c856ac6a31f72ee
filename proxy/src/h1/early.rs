//! The caller of an HTTP/1.1 request that waits to be decided.
//!
//! A body that a provider wants to see is read before the decision and put back: what forwards or discards it afterwards
//! finds the connection as if nobody had read.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};

use super::body::{Framing, Piece, Reader};
use super::encode;
use super::request::RequestHead;
use crate::leg::{Leg, WRITE_HIGH};
use crate::live::{CUT, Signal};
use crate::waiting::{Caller, Left};

/// See the module. The lock is never waited for: one task polls both sides of it.
pub(crate) struct Early<'a> {
    signal: &'a Signal,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    leg: &'a mut Leg,
    reader: Reader,
    chunked: bool,
    body: BytesMut,
    /// The body is complete; its trailer section as sent.
    end: Option<Option<BytesMut>>,
    /// The client keeps the body back until it hears that it is wanted.
    holds_back: bool,
    was_read: bool,
    left: Option<Left>,
}

impl<'a> Early<'a> {
    pub(crate) fn new(signal: &'a Signal, leg: &'a mut Leg, head: &RequestHead) -> Early<'a> {
        let state = State {
            leg,
            reader: Reader::new(head.framing),
            chunked: head.framing == Framing::Chunked,
            body: BytesMut::new(),
            end: None,
            holds_back: head.expects_continue,
            was_read: false,
            left: None,
        };
        Early { signal, state: Mutex::new(state) }
    }

    /// Leaves the connection as if nothing of the body had been read.
    pub(crate) fn put_back(self) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if state.reader.is_untouched() {
            return;
        }
        let trailers = state.end.as_ref().and_then(Option::as_deref);
        let mut whole = state.reader.restored(state.chunked, &state.body, trailers);
        whole.extend_from_slice(&state.leg.rbuf);
        state.leg.rbuf = whole;
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller for Early<'_> {
    fn poll_body(&self, cx: &mut Context<'_>, max: usize) -> Poll<Result<(Bytes, bool), Left>> {
        let mut state = self.lock();
        let polled = state.poll_body(cx, max);
        if let Poll::Ready(Err(left)) = polled {
            state.left = Some(left);
        }
        polled
    }

    fn poll_left(&self, cx: &mut Context<'_>) -> Option<Left> {
        if self.signal.poll(cx) & CUT != 0 {
            return Some(Left::Gone);
        }
        self.lock().poll_left(cx)
    }

    fn came(&self) -> usize {
        self.lock().body.len()
    }

    fn was_read(&self) -> bool {
        self.lock().was_read
    }
}

impl State<'_> {
    fn poll_body(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Result<(Bytes, bool), Left>> {
        self.was_read = true;
        if std::mem::take(&mut self.holds_back) && self.leg.rbuf.is_empty() {
            encode::go_on(&mut self.leg.wbuf);
        }
        if !self.leg.wbuf.is_empty() {
            ready!(self.leg.poll_flush(cx)).map_err(|_| Left::Gone)?;
        }
        loop {
            let fits = self.body.len() <= max;
            if self.end.is_some() || !fits {
                let shown = self.body.get(..max).unwrap_or(&self.body);
                return Poll::Ready(Ok((Bytes::copy_from_slice(shown), fits)));
            }
            match self.reader.next(&mut self.leg.rbuf).map_err(|_| Left::Malformed)? {
                Piece::Data(n) => self.take(n.min(max.saturating_sub(self.body.len()).saturating_add(1))),
                Piece::End(trailers) => self.end = Some(trailers),
                Piece::Need => ready!(self.poll_fill(cx))?,
            }
        }
    }

    fn take(&mut self, n: usize) {
        self.body.extend_from_slice(self.leg.rbuf.get(..n).unwrap_or_default());
        self.leg.rbuf.advance(n);
        self.reader.took(n);
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Left>> {
        if self.leg.eof {
            return Poll::Ready(Err(Left::Gone));
        }
        match ready!(self.leg.poll_fill_body(cx)) {
            Ok(n) if n > 0 => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(Left::Gone)),
        }
    }

    /// As Envoy, whoever says goodbye in the middle of a request does not wait for its answer.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Option<Left> {
        while self.left.is_none() && self.leg.rbuf.len() < WRITE_HIGH {
            match self.leg.poll_fill(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => self.left = Some(Left::Gone),
            }
        }
        self.left
    }
}
