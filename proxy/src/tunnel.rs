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

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::guard::{Cut, Guard};
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
}

impl Direction {
    fn beginning_with(first: Bytes) -> Direction {
        Direction { held: BytesMut::from(first), ..Direction::default() }
    }

    /// Moves bytes until one side has to wait. Ready when this direction is closed.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<io::Result<()>> {
        while !self.done {
            while !self.held.is_empty() {
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

    fn poll_read(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<io::Result<()>> {
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

/// Carries bytes between `client` and `upstream` until both directions are closed, one breaks, or the guard says stop.
/// `early` was read from the client already, `answer` from the upstream. Both sockets are closed on return.
pub(crate) async fn run(
    mut client: Stream,
    mut upstream: Stream,
    early: Bytes,
    answer: Bytes,
    guard: &mut Guard<'_>,
) -> (End, Carried) {
    let (mut up, mut down) = (Direction::beginning_with(early), Direction::beginning_with(answer));
    let end = poll_fn(|cx| {
        if let Some(cut) = guard.poll(cx) {
            return Poll::Ready(End::Cut(cut));
        }
        let forth = up.poll(cx, &mut client, &mut upstream);
        let back = down.poll(cx, &mut upstream, &mut client);
        match (forth, back) {
            (Poll::Ready(Err(e)), _) | (_, Poll::Ready(Err(e))) => Poll::Ready(End::Reset(e)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Finished),
            _ => Poll::Pending,
        }
    })
    .await;
    if !matches!(end, End::Finished) {
        client.reset();
        upstream.reset();
    }
    (end, Carried { received: up.bytes, sent: down.bytes })
}
