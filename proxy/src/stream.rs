//! One type for every socket the data path reads and writes: plain, or TLS as server or client.
//!
//! An enum rather than generics: the relay loops are compiled once, and a pooled upstream connection has one type.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::live::Open;
use crate::wide::Wide;

/// A connected byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
    /// We presented the server certificate.
    Server(Box<tokio_rustls::server::TlsStream<Wide>>),
    /// We presented the client certificate.
    Client(Box<Upstream>),
}

/// TLS to another workload, for as long as its certificate is not revoked.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) tls: tokio_rustls::client::TlsStream<Wide>,
    pub(crate) open: Open,
}

impl Upstream {
    /// The TLS below; an error once the peer is revoked, of which the reading task is woken.
    fn io(&mut self, cx: Option<&Context<'_>>) -> io::Result<Pin<&mut tokio_rustls::client::TlsStream<Wide>>> {
        if let Some(cx) = cx {
            self.open.signal.poll(cx);
        }
        if self.open.is_revoked() {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the peer's certificate is revoked"));
        }
        Ok(Pin::new(&mut self.tls))
    }
}

impl Stream {
    /// The socket below.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Server(tls) => tls.get_ref().0.tcp(),
            Stream::Client(upstream) => upstream.tls.get_ref().0.tcp(),
        }
    }

    /// Closes with RST instead of FIN, so that a truncated exchange cannot look complete.
    pub(crate) fn reset(self) {
        // A failure here means the socket is gone already: nothing is left to reset.
        let _ = self.tcp().set_zero_linger();
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Stream::Server(io) => Pin::new(io).poll_read(cx, buf),
            Stream::Client(upstream) => upstream.io(Some(cx))?.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Stream::Server(io) => Pin::new(io).poll_write(cx, buf),
            Stream::Client(upstream) => upstream.io(None)?.poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(io) => Pin::new(io).poll_flush(cx),
            Stream::Server(io) => Pin::new(io).poll_flush(cx),
            Stream::Client(upstream) => Pin::new(&mut upstream.tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Stream::Server(io) => Pin::new(io).poll_shutdown(cx),
            Stream::Client(upstream) => Pin::new(&mut upstream.tls).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Stream::Server(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Stream::Client(upstream) => upstream.io(None)?.poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
