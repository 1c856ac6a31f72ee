//! Documents over HTTPS.

use std::sync::Arc;
use std::time::Duration;

use palisade_identity::tls;
use palisade_identity::{CertificateDer, VerifiedPeer, VerifyError};
use palisade_wire::serve::{self, Limits, Page, Pages};
use rustls::ServerConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::{PATIENCE, closes, pki, quick};

const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];

struct Shelf;

impl Pages for Shelf {
    fn page(&self, path: &str) -> Result<Page, &'static str> {
        match path {
            "/bundle" => Ok(Page { content_type: "application/json", max_age: 300, body: "{\"keys\":[]}".into() }),
            _ => Err("no such page"),
        }
    }
}

struct Door {
    address: std::net::SocketAddr,
    ca: pki::Ca,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn open(limits: Limits) -> Door {
    let ca = pki::Ca::new("a.test");
    let own = ca.identity("ns/palisade-system/sa/palisade", 3_600);
    let config = Arc::new(tls::server_config_no_client_auth(&own, PROTOCOLS).unwrap());
    let made = move || -> Arc<ServerConfig> { Arc::clone(&config) };
    let nobody = |_: &[CertificateDer<'_>]| -> Result<VerifiedPeer, VerifyError> { Err(VerifyError::NoCertificate) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let task =
        tokio::spawn(serve::pages(listener, Arc::new((made, nobody)), Arc::new(Shelf), limits, shutdown.clone()));
    Door { address, ca, shutdown, task }
}

impl Door {
    async fn connect(&self, protocol: &'static [u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
        let config = tls::client_config_named(None, &self.ca.bundle(), &[protocol]).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// One request over HTTP/1.1, the whole answer.
    async fn ask(&self, request: &str) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        stream
            .write_all(format!("{request}\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = Vec::new();
        // A server that closes without a TLS farewell has still answered.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer");
        String::from_utf8(answer).unwrap().to_ascii_lowercase()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("serving ends").unwrap();
    }
}

#[tokio::test]
async fn documents_are_read_by_anybody() {
    let door = open(Limits::default()).await;
    let answer = door.ask("GET /bundle?x=1 HTTP/1.1").await;
    assert!(answer.starts_with("http/1.1 200 ok") && answer.ends_with("{\"keys\":[]}"), "{answer}");
    assert!(answer.contains("content-type: application/json") && answer.contains("cache-control: max-age=300"));
    let head = door.ask("HEAD /bundle HTTP/1.1").await;
    assert!(
        head.starts_with("http/1.1 200") && head.contains("content-length: 11") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(door.ask("GET /other HTTP/1.1").await.starts_with("http/1.1 404"));
    let refused = door.ask("POST /bundle HTTP/1.1\r\ncontent-length: 0").await;
    assert!(refused.starts_with("http/1.1 405") && refused.contains("allow: get, head"), "{refused}");
    door.stop().await;
}

#[tokio::test]
async fn http2_is_spoken_too() {
    let door = open(Limits::default()).await;
    let stream = hyper_util::rt::TokioIo::new(door.connect(b"h2").await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut send, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let request = http::Request::get("https://localhost/bundle").body(String::new()).unwrap();
    assert_eq!(send.send_request(request).await.unwrap().status(), 200);
    drop(send);
    driving.await.unwrap().unwrap();
    door.stop().await;
}

#[tokio::test]
async fn who_says_nothing_or_stays_is_let_go() {
    let door = open(Limits { keepalive_interval: Duration::from_millis(300), ..quick() }).await;
    closes(TcpStream::connect(door.address).await.unwrap()).await;
    closes(door.connect(b"http/1.1").await).await;
    closes(door.connect(b"h2").await).await;
    door.stop().await;
}
