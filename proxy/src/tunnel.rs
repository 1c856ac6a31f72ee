//! Bytes both ways between two sockets: half-closes stay half-closes, resets stay resets, and nobody is read faster than
//! the other side takes.
//!
//! A quiet tunnel holds no buffer: each read starts in a scratch buffer on the stack and moves to the heap only while
//! the other side cannot take what came, or bytes keep coming.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::first_line::FirstLine;
use crate::guard::{Cut, Guard};
use crate::h1::request::may_begin_request;
use crate::leg::Leg;
use crate::sniff::LONGEST_LINE;
use crate::stream::Stream;

const SCRATCH: usize = 4 * 1024;
/// Below the allocator's mmap threshold, so that growing and shrinking stay cheap.
const BULK: usize = 64 * 1024;

/// How a tunnel ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both sides said goodbye.
    Finished,
    /// One side broke off; the other was reset.
    Reset(io::Error),
    Cut(Cut),
    /// The client speaks HTTP where that was not expected, and its request line was not passed on. The client with what
    /// it said, where neither side had got anything yet; else both were reset.
    Http(Option<Box<Leg>>),
}

/// Why a direction cannot go on.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the first line is a request line")]
    Http,
}

/// Bytes carried: from the client, and to it.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Carried {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

#[derive(Debug, Default)]
struct Direction {
    held: BytesMut,
    bulk: bool,
    read_over: bool,
    done: bool,
    needs_flush: bool,
    bytes: u64,
    /// The line it begins with, while that may still become a request line of HTTP.
    watched: Option<FirstLine>,
    /// The other direction has carried something.
    answered: bool,
}

impl Direction {
    fn beginning_with(held: BytesMut, mut watched: Option<FirstLine>) -> Direction {
        if watched.as_mut().is_some_and(|line| line.read(&held) == Some(false)) {
            watched = None;
        }
        Direction { held, watched, ..Direction::default() }
    }

    /// While neither side got anything, what may become a request is kept together, so that it can be served as one.
    fn keeps_back(&self) -> bool {
        self.watched.is_some() && self.bytes == 0 && !self.answered && may_begin_request(&self.held)
    }

    /// Moves bytes until one side has to wait. Ready when this direction is closed.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<Result<(), Broken>> {
        while !self.done {
            while !self.held.is_empty() && !self.keeps_back() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.held))?;
                self.wrote(n)?;
                self.held.advance(n);
            }
            if self.read_over {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                break;
            }
            match self.poll_read(cx, from, to) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    self.quieten();
                    if self.needs_flush {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.needs_flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<Result<(), Broken>> {
        if self.bulk {
            self.held.reserve(BULK);
            let n = ready!(tokio_util::io::poll_read_buf(Pin::new(from), cx, &mut self.held))?;
            self.read_over = n == 0;
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [const { MaybeUninit::<u8>::uninit() }; SCRATCH];
        let mut buf = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(from).poll_read(cx, &mut buf))?;
        let bytes = buf.filled();
        self.read_over = bytes.is_empty();
        if self.watched.is_some() {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(self.watch(bytes));
        }
        self.bulk = bytes.len() == SCRATCH;
        let mut written = 0;
        if !bytes.is_empty()
            && let Poll::Ready(n) = Pin::new(to).poll_write(cx, bytes)
        {
            written = n?;
            self.wrote(written)?;
        }
        self.held.extend_from_slice(bytes.get(written..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }

    /// Reads on in the first line; nothing at all is its end.
    fn watch(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let Some(line) = &mut self.watched else { return Ok(()) };
        match if bytes.is_empty() { Some(line.end()) } else { line.read(bytes) } {
            Some(true) => return Err(Broken::Http),
            Some(false) => self.watched = None,
            // Kept together long enough: whoever serves it as a request bounds it.
            None if self.held.len() > LONGEST_LINE && self.keeps_back() => return Err(Broken::Http),
            None => {}
        }
        Ok(())
    }

    fn wrote(&mut self, n: usize) -> io::Result<()> {
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes += n as u64;
        self.needs_flush = true;
        Ok(())
    }

    fn quieten(&mut self) {
        if self.bulk && self.held.is_empty() {
            self.held = BytesMut::new();
            self.bulk = false;
        }
    }
}

/// Carries bytes between `client` and `upstream`, what was read from them already first, until both directions are
/// closed, one breaks, or the guard says stop. With `first` the client's first line is watched: no HTTP passes.
pub(crate) async fn run(
    mut client: Leg,
    mut upstream: Leg,
    first: Option<FirstLine>,
    guard: &mut Guard<'_>,
) -> (End, Carried) {
    let mut up = Direction::beginning_with(std::mem::take(&mut client.rbuf), first);
    let mut down = Direction::beginning_with(std::mem::take(&mut upstream.rbuf), None);
    let end = poll_fn(|cx| {
        if let Some(cut) = guard.poll(cx) {
            return Poll::Ready(End::Cut(cut));
        }
        let back = down.poll(cx, &mut upstream.io, &mut client.io);
        up.answered = down.bytes > 0 || !down.held.is_empty();
        let forth = up.poll(cx, &mut client.io, &mut upstream.io);
        match (forth, back) {
            (Poll::Ready(Err(Broken::Http)), _) => Poll::Ready(End::Http(None)),
            (Poll::Ready(Err(Broken::Io(e))), _) | (_, Poll::Ready(Err(Broken::Io(e)))) => Poll::Ready(End::Reset(e)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Finished),
            _ => Poll::Pending,
        }
    })
    .await;
    let carried = Carried { received: up.bytes, sent: down.bytes };
    match end {
        End::Finished => (End::Finished, carried),
        End::Http(_) if up.bytes == 0 && !up.answered => {
            (client.rbuf, client.eof) = (up.held, up.read_over);
            (End::Http(Some(Box::new(client))), carried)
        }
        end => {
            client.io.reset();
            upstream.io.reset();
            (end, carried)
        }
    }
}
