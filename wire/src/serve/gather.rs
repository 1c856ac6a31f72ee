//! One write for all that a connection has to say at a time.
//!
//! The HTTP/2 library flushes after each piece of a body, which over TLS is a record and a system call for each. Here what is
//! written while a connection is polled goes out once, when the poll is over. Between messages no memory is held.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes held back at most: what fits into one TLS record.
const MOST: usize = 16 * 1_024;

struct Stream<S> {
    inner: S,
    unsent: BytesMut,
    /// Something was written since the last flush.
    dirty: bool,
    /// Bytes that came in.
    read: usize,
}

/// The stream as the HTTP/2 library has it.
pub(super) struct Gathering<S>(Arc<Mutex<Stream<S>>>);

/// The other hold on it: sends what has gathered.
pub(super) struct Sender<S>(Arc<Mutex<Stream<S>>>);

/// Both holds. Whoever polls the one has to call [`Sender::poll_send`] after it, in the same task.
pub(super) fn gather<S>(inner: S) -> (Gathering<S>, Sender<S>) {
    let shared = Arc::new(Mutex::new(Stream { inner, unsent: BytesMut::new(), dirty: false, read: 0 }));
    (Gathering(Arc::clone(&shared)), Sender(shared))
}

fn lock<S>(shared: &Mutex<Stream<S>>) -> MutexGuard<'_, Stream<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Sender<S> {
    /// How many bytes came in so far.
    pub(super) fn read(&self) -> usize {
        lock(&self.0).read
    }
}

impl<S: AsyncWrite + Unpin> Sender<S> {
    /// Sends and flushes; ready when nothing is left.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_send(cx)
    }
}

impl<S: AsyncWrite + Unpin> Stream<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.dirty {
            return Poll::Ready(Ok(()));
        }
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.unsent.advance(sent),
            }
        }
        self.unsent = BytesMut::new();
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.dirty = false;
        Poll::Ready(Ok(()))
    }

    /// Takes as much as there is room for, after sending if there is none.
    fn poll_take<'a>(
        &mut self,
        cx: &mut Context<'_>,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        if self.unsent.len() >= MOST {
            ready!(self.poll_send(cx))?;
        }
        let before = self.unsent.len();
        for part in parts {
            let room = MOST.saturating_sub(self.unsent.len()).min(part.len());
            self.unsent.extend_from_slice(part.get(..room).unwrap_or_default());
        }
        self.dirty = true;
        Poll::Ready(Ok(self.unsent.len().saturating_sub(before)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut stream = lock(&self.0);
        let before = buf.filled().len();
        let polled = Pin::new(&mut stream.inner).poll_read(cx, buf);
        stream.read = stream.read.saturating_add(buf.filled().len().saturating_sub(before));
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_take(cx, std::iter::once(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_take(cx, bufs.iter().map(|buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Not yet: that is for the [`Sender`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = lock(&self.0);
        ready!(stream.poll_send(cx))?;
        Pin::new(&mut stream.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn send<S: AsyncWrite + Unpin>(sender: &Sender<S>) -> Poll<io::Result<()>> {
        sender.poll_send(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn what_is_written_and_flushed_goes_out_once_when_it_is_sent() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (mut stream, sender) = gather(ours);
        for piece in ["one ", "two ", "three"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut got = [0; 64];
        tokio::select! {
            biased;
            read = theirs.read(&mut got) => unreachable!("{read:?} before it was sent"),
            () = std::future::ready(()) => {}
        }
        assert!(matches!(send(&sender), Poll::Ready(Ok(()))));
        let read = theirs.read(&mut got).await.unwrap();
        assert_eq!(got.get(..read), Some(&b"one two three"[..]));
        assert_eq!(lock(&sender.0).unsent.capacity(), 0, "nothing is held in between");
        theirs.write_all(b"answer").await.unwrap();
        stream.read_exact(&mut got[..6]).await.unwrap();
        assert_eq!(sender.read(), 6);
    }

    #[tokio::test]
    async fn more_than_fits_waits_for_the_reader_and_arrives_whole() {
        let (ours, mut theirs) = tokio::io::duplex(1_000);
        let (mut stream, sender) = gather(ours);
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            stream.write_all(&copy).await.unwrap();
            std::future::poll_fn(|cx| sender.poll_send(cx)).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert!(got == sent);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_once_it_is_written_to() {
        let (ours, theirs) = tokio::io::duplex(16);
        let (mut stream, sender) = gather(ours);
        drop(theirs);
        stream.write_all(b"anybody?").await.unwrap();
        assert!(matches!(send(&sender), Poll::Ready(Err(_))));
    }
}
