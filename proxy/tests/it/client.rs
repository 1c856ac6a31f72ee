//! Clients that say exactly what they are told to, plain or over mTLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use palisade_identity::tls::{ExpectPeer, client_config};
use palisade_identity::{Identity, SpiffeId};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

pub(crate) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// Opens mTLS to the cart's proxy.
pub(crate) async fn mtls(
    to: SocketAddr,
    identity: &Arc<Identity>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let expect = ExpectPeer::Ids(vec![SpiffeId::parse(CART).unwrap()]);
    let config = client_config(Some(identity), identity.bundles.clone(), expect, alpn).unwrap();
    let tcp = TcpStream::connect(to).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(ServerName::from(to.ip()), tcp).await
}

/// mTLS as an Istio sidecar speaks HTTP/1.1 over it.
pub(crate) async fn sidecar(to: SocketAddr, identity: &Arc<Identity>) -> Client<TlsStream<TcpStream>> {
    Client::new(mtls(to, identity, &[b"istio-http/1.1", b"istio", b"http/1.1"]).await.unwrap())
}

pub(crate) async fn plain(to: SocketAddr) -> Client<TcpStream> {
    Client::new(TcpStream::connect(to).await.unwrap())
}

/// A response as read.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn has(&self, text: &str) -> bool {
        self.head.to_ascii_lowercase().contains(text)
    }
}

/// A keep-alive HTTP/1.1 client.
pub(crate) struct Client<S> {
    pub(crate) io: S,
    buf: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(io: S) -> Client<S> {
        Client { io, buf: Vec::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
        self.io.flush().await.unwrap();
    }

    /// Sends a request and reads its response.
    pub(crate) async fn ask(&mut self, text: &str) -> Answer {
        self.send(text).await;
        self.answer().await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: cart\r\n\r\n")).await
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer().await.unwrap()
    }

    /// Reads a response; the error is what happened instead.
    pub(crate) async fn try_answer(&mut self) -> Result<Answer, String> {
        let read = self.read_answer();
        timeout(Duration::from_secs(10), read).await.unwrap_or_else(|_| Err("no answer in 10 s".into()))
    }

    async fn read_answer(&mut self) -> Result<Answer, String> {
        let end = self.until(|buf| buf.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4)).await?;
        let head = String::from_utf8_lossy(&self.buf.drain(..end).collect::<Vec<_>>()).into_owned();
        let status: u16 =
            head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| format!("no status in {head:?}"))?;
        let lower = head.to_ascii_lowercase();
        let length =
            lower.lines().find_map(|l| l.strip_prefix("content-length: ").and_then(|n| n.trim().parse::<usize>().ok()));
        let n = match length {
            _ if status < 200 => 0,
            Some(n) => self.until(|buf| (buf.len() >= n).then_some(n)).await?,
            None if lower.contains("transfer-encoding: chunked") => {
                self.until(|buf| buf.windows(5).position(|w| w == b"0\r\n\r\n").map(|at| at + 5)).await?
            }
            None => 0,
        };
        let body = String::from_utf8_lossy(&self.buf.drain(..n).collect::<Vec<_>>()).into_owned();
        Ok(Answer { status, head, body })
    }

    async fn until(&mut self, find: impl Fn(&[u8]) -> Option<usize>) -> Result<usize, String> {
        loop {
            if let Some(found) = find(&self.buf) {
                return Ok(found);
            }
            match self.io.read_buf(&mut self.buf).await {
                Ok(0) => return Err(format!("closed after {:?}", String::from_utf8_lossy(&self.buf))),
                Ok(_) => {}
                Err(e) => return Err(format!("{e} after {:?}", String::from_utf8_lossy(&self.buf))),
            }
        }
    }

    /// Reads to the end of the stream; the error kind if it was broken off.
    pub(crate) async fn rest(&mut self) -> Result<Vec<u8>, std::io::ErrorKind> {
        let mut out = std::mem::take(&mut self.buf);
        match timeout(Duration::from_secs(10), self.io.read_to_end(&mut out)).await {
            Ok(Ok(_)) => Ok(out),
            Ok(Err(e)) => Err(e.kind()),
            Err(_) => Err(std::io::ErrorKind::TimedOut),
        }
    }
}
