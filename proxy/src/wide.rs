//! A socket below TLS that reads in wide strokes while much comes.
//!
//! rustls asks for 4 KiB at a time; a record of bulk data is four times that. While reads come back full, this layer reads
//! 64 KiB with one system call and hands them out; a quiet connection holds no buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const WIDTH: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Wide {
    tcp: TcpStream,
    held: BytesMut,
    /// The last read came back full: more is likely there.
    full: bool,
}

impl Wide {
    pub(crate) fn new(tcp: TcpStream) -> Wide {
        Wide { tcp, held: BytesMut::new(), full: false }
    }

    /// The socket.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn poll_wide(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.reserve(WIDTH);
        let n = match tokio_util::io::poll_read_buf(Pin::new(&mut self.tcp), cx, &mut self.held) {
            Poll::Ready(read) => read?,
            Poll::Pending => {
                (self.held, self.full) = (BytesMut::new(), false);
                return Poll::Pending;
            }
        };
        self.full = n >= WIDTH / 16;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wide {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held.is_empty() && this.full {
            ready!(this.poll_wide(cx))?;
        } else if this.held.is_empty() {
            this.held = BytesMut::new();
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.tcp).poll_read(cx, buf))?;
            this.full = buf.remaining() == 0 && buf.filled().len() > before;
            return Poll::Ready(Ok(()));
        }
        let n = this.held.len().min(buf.remaining());
        buf.put_slice(this.held.get(..n).unwrap_or_default());
        this.held.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wide {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn bytes_come_through_in_order_and_no_buffer_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        let (done, wait) = tokio::sync::oneshot::channel::<()>();
        let sender = tokio::spawn(async move {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.write_all(&copy).await.unwrap();
            wait.await.unwrap();
        });
        let mut wide = Wide::new(listener.accept().await.unwrap().0);
        let (mut got, mut piece) = (Vec::new(), [0u8; 4096]);
        while got.len() < sent.len() {
            let n = wide.read(&mut piece).await.unwrap();
            got.extend_from_slice(&piece[..n]);
        }
        assert!(got == sent);
        let idle = tokio::time::timeout(std::time::Duration::from_millis(20), wide.read(&mut piece)).await;
        assert!(idle.is_err() && wide.held.capacity() == 0);
        done.send(()).unwrap();
        sender.await.unwrap();
        assert_eq!(wide.read(&mut piece).await.unwrap(), 0);
    }
}
