//! Applications behind the proxy: they answer with what they received.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A server that ends with the test.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    /// Serves every connection with `serve`.
    pub(crate) async fn of<F, S>(serve: F) -> App
    where
        F: Fn(TcpStream) -> S + Send + 'static,
        S: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let serving = serve(tcp);
                tokio::spawn(async move {
                    // A broken connection is the test's business, not the application's.
                    let _ = serving.await;
                });
            }
        });
        App { address, connections, task }
    }

    /// HTTP/1.1 with keep-alive: the body of the response is the request as received, head and body.
    pub(crate) async fn mirror() -> App {
        App::of(|mut tcp| async move {
            let mut buf = Vec::new();
            while let Some((head, body)) = read_request(&mut tcp, &mut buf).await? {
                let mut echo = head.into_bytes();
                echo.extend(body);
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-App: mirror\r\n\r\n", echo.len());
                tcp.write_all(&[answer.as_bytes(), &echo].concat()).await?;
            }
            Ok(())
        })
        .await
    }

    /// Sends back whatever comes, and closes when the client does.
    pub(crate) async fn echo() -> App {
        App::of(|mut tcp| async move {
            let mut buf = [0; 4096];
            loop {
                match tcp.read(&mut buf).await? {
                    0 => return tcp.shutdown().await,
                    n => tcp.write_all(&buf[..n]).await?,
                }
            }
        })
        .await
    }
}

/// Reads one request, whatever its framing.
pub(crate) async fn read_request(tcp: &mut TcpStream, buf: &mut Vec<u8>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let end = loop {
        if let Some(at) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if tcp.read_buf(buf).await? == 0 {
            return Ok(None);
        }
    };
    let head: String = String::from_utf8_lossy(&buf.drain(..end).collect::<Vec<_>>()).into_owned();
    let lower = head.to_ascii_lowercase();
    let length =
        lower.lines().find_map(|l| l.strip_prefix("content-length: ").map(|n| n.trim().parse::<usize>().unwrap()));
    if lower.contains("expect: 100-continue") {
        tcp.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let body_end = |buf: &[u8]| match length {
        Some(n) => (buf.len() >= n).then_some(n),
        None if lower.contains("transfer-encoding: chunked") => {
            let last = buf.windows(5).position(|w| w == b"\r\n0\r\n");
            last.and_then(|at| buf[at + 3..].windows(4).position(|w| w == b"\r\n\r\n").map(|end| at + 3 + end + 4))
        }
        None => Some(0),
    };
    let n = loop {
        if let Some(n) = body_end(buf) {
            break n;
        }
        if tcp.read_buf(buf).await? == 0 {
            return Ok(None);
        }
    };
    Ok(Some((head, buf.drain(..n).collect())))
}
