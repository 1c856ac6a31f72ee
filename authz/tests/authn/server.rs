//! A small HTTP server on 127.0.0.1 that misbehaves on demand. It counts requests, so that tests can wait for what
//! has happened instead of for time to pass.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// What to do with one request.
pub(crate) enum Reply {
    /// Send these bytes and close.
    Send(Vec<u8>),
    /// Send these bytes, then neither go on nor close.
    Hold(Vec<u8>),
    /// Send these bytes over and over, until the client goes away.
    Repeat(Vec<u8>),
}

pub(crate) fn ok(body: &str) -> Reply {
    status(200, body)
}

pub(crate) fn status(status: u16, body: &str) -> Reply {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
    Reply::Send([head.as_bytes(), body.as_bytes()].concat())
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// How many requests came, and how many connections are gone.
    seen: watch::Receiver<(usize, usize)>,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// `reply` gets the path and the number of the request, from 1.
    pub(crate) async fn start(reply: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, reply).await
    }

    pub(crate) async fn with_tls(
        tls: TlsAcceptor,
        reply: impl Fn(&str, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(tls), reply).await
    }

    async fn listen(tls: Option<TlsAcceptor>, reply: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, seen) = watch::channel((0, 0));
        let (reply, count) = (Arc::new(reply), Arc::new(count));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, reply, count) = (tls.clone(), Arc::clone(&reply), Arc::clone(&count));
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, &*reply, &count).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &*reply, &count).await;
                            }
                        }
                    }
                    count.send_modify(|(_, gone)| *gone += 1);
                });
            }
        });
        Self { address, seen, task: task.abort_handle() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.borrow().0
    }

    /// Until the request of this number has come.
    pub(crate) async fn request(&self, number: usize) {
        self.wait(|(requests, _)| requests >= number).await;
    }

    /// Until this many connections are gone.
    pub(crate) async fn gone(&self, number: usize) {
        self.wait(|(_, gone)| gone >= number).await;
    }

    async fn wait(&self, until: impl Fn((usize, usize)) -> bool) {
        let mut seen = self.seen.clone();
        let waited = tokio::time::timeout(Duration::from_secs(30), seen.wait_for(|seen| until(*seen))).await;
        assert!(waited.is_ok(), "still at {:?}", *self.seen.borrow());
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    reply: &(impl Fn(&str, usize) -> Reply + Send + Sync),
    count: &watch::Sender<(usize, usize)>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let mut number = 0;
    count.send_modify(|(requests, _)| {
        *requests += 1;
        number = *requests;
    });
    match reply(&path, number) {
        Reply::Send(bytes) => {
            // The client may be gone already: that is its business.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Reply::Hold(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.read_u8().await;
        }
        Reply::Repeat(bytes) => while stream.write_all(&bytes).await.is_ok() {},
    }
}
