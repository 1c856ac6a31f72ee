//! One side of a proxied exchange: the socket and what is read but not used, or queued but not written.
//!
//! Buffers live only while they hold something. An idle connection therefore costs its socket, its TLS state and its
//! task, and no read buffer.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// One read while waiting for a message: heads of ordinary requests fit.
const SCRATCH: usize = 8 * 1024;
/// One read in the middle of a body.
const BODY_READ: usize = 32 * 1024;
/// What may be queued for a peer that does not read, before its other side is no longer read.
pub(crate) const WRITE_HIGH: usize = 64 * 1024;

/// A socket with its two buffers.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) io: Stream,
    /// Read and not consumed.
    pub(crate) rbuf: BytesMut,
    /// Encoded and not written.
    pub(crate) wbuf: BytesMut,
    /// The peer sent FIN (or close_notify).
    pub(crate) eof: bool,
}

impl Leg {
    pub(crate) fn new(io: Stream, rbuf: BytesMut) -> Leg {
        Leg { io, rbuf, wbuf: BytesMut::new(), eof: false }
    }

    /// Reads what is there through a scratch buffer on the stack. 0 means end of stream.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [const { MaybeUninit::<u8>::uninit() }; SCRATCH];
        let mut buf = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        let filled = buf.filled();
        self.eof |= filled.is_empty();
        self.rbuf.extend_from_slice(filled);
        Poll::Ready(Ok(filled.len()))
    }

    /// Reads straight into `rbuf`, for bodies. 0 means end of stream.
    pub(crate) fn poll_fill_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.rbuf.reserve(BODY_READ);
        let n = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.rbuf))?;
        self.eof |= n == 0;
        Poll::Ready(Ok(n))
    }

    /// Writes as much of `bytes` as the socket takes.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.io).poll_write(cx, bytes))? {
            0 if !bytes.is_empty() => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => Poll::Ready(Ok(n)),
        }
    }

    /// Writes the queued bytes and flushes TLS.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.wbuf.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.wbuf))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.wbuf.advance(n),
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Flushes all queued bytes.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Gives buffer memory back between messages.
    pub(crate) fn release(&mut self) {
        if self.rbuf.is_empty() && self.rbuf.capacity() > 0 {
            self.rbuf = BytesMut::new();
        }
        if self.wbuf.is_empty() && self.wbuf.capacity() > 4096 {
            self.wbuf = BytesMut::new();
        }
    }

    /// Whether an idle pooled connection still stands. Any byte or end of stream outside an exchange disqualifies it.
    pub(crate) fn stands_idle(&mut self, thorough: bool) -> bool {
        if self.eof || !self.rbuf.is_empty() {
            return false;
        }
        if thorough && !socket_is_silent(self.io.tcp()) {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        self.poll_fill(&mut cx).is_pending()
    }

    /// Says goodbye without cutting off what the peer still has to read: FIN, then bytes are discarded for a moment.
    pub(crate) async fn close(mut self, linger: std::time::Duration) {
        let goodbye = std::future::poll_fn(|cx| {
            ready!(self.poll_flush(cx))?;
            Pin::new(&mut self.io).poll_shutdown(cx)
        });
        if tokio::time::timeout(linger, goodbye).await.is_ok_and(|r: io::Result<()>| r.is_ok()) {
            self.drain(linger).await;
        }
    }

    /// Discards what still comes, within bounds: closing a socket with unread bytes would send RST and could destroy
    /// the response on its way.
    async fn drain(&mut self, linger: std::time::Duration) {
        let mut left: usize = 512 * 1024;
        let drain = std::future::poll_fn(|cx| {
            loop {
                if self.eof || left == 0 {
                    return Poll::Ready(());
                }
                match ready!(self.poll_fill(cx)) {
                    Ok(n) if n > 0 => left = left.saturating_sub(n),
                    _ => return Poll::Ready(()),
                }
                self.rbuf.clear();
            }
        });
        // Running out of time is an ordinary end here.
        let _ = tokio::time::timeout(linger, drain).await;
    }
}

/// Asks the kernel, not the reactor's cached readiness: a FIN that arrived a moment ago is seen.
fn socket_is_silent(tcp: &tokio::net::TcpStream) -> bool {
    use rustix::net::RecvFlags;
    let mut byte = [0u8; 1];
    matches!(rustix::net::recv(tcp, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(rustix::io::Errno::AGAIN))
}
