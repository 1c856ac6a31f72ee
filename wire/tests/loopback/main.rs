//! Real sockets on loopback: who a service sees, and what a hostile or dead peer can hold.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod pages;
mod pki;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use palisade_identity::tls::{self, ClientCertificate};
use palisade_identity::{Identity, TrustBundle, VerifiedPeer, VerifyError, verify_peer};
use palisade_wire::istio_ca::istio_certificate_service_client::IstioCertificateServiceClient;
use palisade_wire::istio_ca::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use palisade_wire::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use palisade_wire::serve::{Limits, ServerTls, UnixSocket};
use palisade_wire::{Caller, channel, serve};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};

const H2: &[&[u8]] = &[b"h2"];
const QUICK: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(20);

/// Remembers its callers; a request whose text is `hang` is never answered.
#[derive(Clone, Default)]
struct Probe(Arc<Mutex<Vec<Caller>>>);

#[tonic::async_trait]
impl IstioCertificateService for Probe {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = Caller::of(&request).cloned().unwrap();
        self.0.lock().unwrap().push(caller);
        if request.get_ref().csr == "hang" {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(IstioCertificateResponse::default()))
    }
}

struct Server {
    address: String,
    probe: Probe,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    identity: Arc<Mutex<Identity>>,
    changes: watch::Sender<()>,
}

/// Shows that identity and judges by its bundles, as they are at each moment.
struct Door(Arc<Mutex<Identity>>, watch::Sender<()>);

impl ServerTls for Door {
    fn config(&self) -> Arc<ServerConfig> {
        Arc::new(tls::server_config(&self.0.lock().unwrap(), ClientCertificate::Optional, H2).unwrap())
    }

    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<VerifiedPeer, VerifyError> {
        verify_peer(chain, &self.0.lock().unwrap().bundles, UnixTime::now())
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.1.subscribe())
    }

    fn revokes(&self, peer: &VerifiedPeer) -> bool {
        self.0.lock().unwrap().bundles.denies(peer.serial())
    }
}

impl Server {
    async fn start(ca: &pki::Ca, limits: Limits) -> Self {
        let identity = Arc::new(Mutex::new(ca.identity("ns/palisade-system/sa/palisade", 3_600)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (probe, shutdown) = (Probe::default(), CancellationToken::new());
        let routes = Routes::new(IstioCertificateServiceServer::new(probe.clone()));
        let changes = watch::Sender::new(());
        let tls = Arc::new(Door(Arc::clone(&identity), changes.clone()));
        let task = tokio::spawn(serve::tls(listener, tls, routes, limits, shutdown.clone()));
        Self { address, probe, shutdown, task, identity, changes }
    }

    fn client(
        &self,
        bundle: &TrustBundle,
        identity: Option<&Identity>,
    ) -> IstioCertificateServiceClient<tonic::transport::Channel> {
        let config = tls::client_config_named(identity, bundle, H2).unwrap();
        let channel = channel::tls(&self.address, "localhost", Arc::new(config)).unwrap();
        IstioCertificateServiceClient::new(channel)
    }

    /// A call that is never answered, once it has arrived.
    async fn hang(&self, ca: &pki::Ca, identity: &Identity) -> JoinHandle<Result<(), Status>> {
        let (before, mut client) = (self.callers().len(), self.client(&ca.bundle(), Some(identity)));
        let call = tokio::spawn(async move { client.create_certificate(ask("hang")).await.map(drop) });
        let deadline = Instant::now() + PATIENCE;
        while self.callers().len() == before {
            assert!(Instant::now() < deadline, "the request never arrived");
            tokio::task::yield_now().await;
        }
        call
    }

    fn revoke(&self, serial: &str) {
        let mut identity = self.identity.lock().unwrap();
        let mut bundles = identity.bundles.as_ref().clone();
        bundles.with_denied([serial.to_owned()].into());
        identity.bundles = Arc::new(bundles);
        drop(identity);
        self.changes.send_replace(());
    }

    fn callers(&self) -> Vec<Caller> {
        self.probe.0.lock().unwrap().clone()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("serve ends").unwrap();
    }
}

fn ask(csr: &str) -> IstioCertificateRequest {
    IstioCertificateRequest { csr: csr.into(), ..Default::default() }
}

fn quick() -> Limits {
    Limits { handshake_timeout: QUICK, drain: QUICK, ..Limits::default() }
}

/// The peer closes: end of file or a reset, within patience.
async fn closes<S: AsyncReadExt + Unpin>(mut stream: S) {
    let mut buffer = [0_u8; 1_024];
    let gone = async { while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(PATIENCE, gone).await.expect("the server lets go");
}

#[tokio::test]
async fn the_service_sees_who_calls() {
    let ca = pki::Ca::new("cluster.local");
    let server = Server::start(&ca, Limits::default()).await;
    server.client(&ca.bundle(), None).create_certificate(ask("")).await.unwrap();
    let web = ca.identity("ns/shop/sa/web", 3_600);
    server.client(&ca.bundle(), Some(&web)).create_certificate(ask("")).await.unwrap();
    let callers = server.callers();
    assert!(callers[0].peer.is_none());
    assert!(callers[0].address.unwrap().ip().is_loopback());
    let peer = callers[1].peer.as_ref().unwrap();
    assert_eq!(peer.id().as_str(), "spiffe://cluster.local/ns/shop/sa/web");
    assert!(callers[1].unix.is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_foreign_certificate_does_not_get_in() {
    let (ca, foreign) = (pki::Ca::new("cluster.local"), pki::Ca::new("cluster.local"));
    let server = Server::start(&ca, Limits::default()).await;
    let web = foreign.identity("ns/shop/sa/web", 3_600);
    let answer = server.client(&ca.bundle(), Some(&web)).create_certificate(ask("")).await;
    assert!(answer.is_err());
    assert!(server.callers().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_rotated_certificate_serves_the_next_connection() {
    let (ca, next) = (pki::Ca::new("cluster.local"), pki::Ca::new("cluster.local"));
    let server = Server::start(&ca, Limits::default()).await;
    assert!(server.client(&next.bundle(), None).create_certificate(ask("")).await.is_err());
    *server.identity.lock().unwrap() = next.identity("ns/palisade-system/sa/palisade", 3_600);
    server.client(&next.bundle(), None).create_certificate(ask("")).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn trap_48_a_connection_ends_with_its_certificate() {
    let ca = pki::Ca::new("cluster.local");
    let server = Server::start(&ca, quick()).await;
    let brief = ca.identity("ns/shop/sa/web", 4);
    let mut client = server.client(&ca.bundle(), Some(&brief));
    let answer = tokio::time::timeout(PATIENCE, client.create_certificate(ask("hang"))).await;
    assert!(answer.expect("cut at expiry").is_err());
    assert_eq!(server.callers().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn what_a_revoked_peer_has_open_is_cut_and_nobody_elses() {
    let ca = pki::Ca::new("cluster.local");
    let server = Server::start(&ca, Limits { drain: Duration::from_secs(3_600), ..Limits::default() }).await;
    let (web, other) = (ca.identity("ns/shop/sa/web", 3_600), ca.identity("ns/shop/sa/other", 3_600));
    let (revoked, kept) = (server.hang(&ca, &web).await, server.hang(&ca, &other).await);
    server.revoke("abcd");
    server.revoke(web.svid.serial());
    let answer = tokio::time::timeout(PATIENCE, revoked).await;
    assert!(answer.expect("cut long before the drain's end").unwrap().is_err());
    assert!(!kept.is_finished());
    kept.abort();
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_dropped() {
    let ca = pki::Ca::new("cluster.local");
    let server = Server::start(&ca, quick()).await;
    let started = Instant::now();
    closes(TcpStream::connect(&server.address).await.unwrap()).await;
    assert!(started.elapsed() >= QUICK);
    // The same after the handshake: the preface never comes.
    let config = tls::client_config_named(None, &ca.bundle(), H2).unwrap();
    let tcp = TcpStream::connect(&server.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    closes(connector.connect(name, tcp).await.unwrap()).await;
    server.client(&ca.bundle(), None).create_certificate(ask("")).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn plain_text_on_the_tls_port_is_dropped() {
    let ca = pki::Ca::new("cluster.local");
    let server = Server::start(&ca, Limits::default()).await;
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    closes(stream).await;
    server.stop().await;
}

#[tokio::test]
async fn an_oversized_header_list_is_refused() {
    let ca = pki::Ca::new("cluster.local");
    let server = Server::start(&ca, Limits::default()).await;
    let mut client = server.client(&ca.bundle(), None);
    let mut request = Request::new(ask(""));
    let value = "x".repeat(32 * 1_024).parse().unwrap();
    request.metadata_mut().insert("x-filler", value);
    assert!(client.create_certificate(request).await.is_err());
    assert!(server.callers().is_empty());
    client.create_certificate(ask("")).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn shutdown_cuts_what_hangs_and_returns() {
    let ca = pki::Ca::new("cluster.local");
    let server = Server::start(&ca, quick()).await;
    let mut client = server.client(&ca.bundle(), None);
    let hanging = tokio::spawn(async move { client.create_certificate(ask("hang")).await });
    let deadline = Instant::now() + PATIENCE;
    while server.callers().is_empty() {
        assert!(Instant::now() < deadline, "the request never arrived");
        tokio::task::yield_now().await;
    }
    let address = server.address.clone();
    server.stop().await;
    assert!(hanging.await.unwrap().is_err());
    assert!(TcpStream::connect(address).await.is_err(), "the port is free");
}

#[tokio::test]
async fn unix_callers_carry_their_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.sock");
    let socket = UnixSocket::bind(&path, 0o600).unwrap();
    let (probe, shutdown) = (Probe::default(), CancellationToken::new());
    let routes = Routes::new(IstioCertificateServiceServer::new(probe.clone()));
    let task = tokio::spawn(serve::unix(socket, routes, quick(), shutdown.clone()));
    let mut client = IstioCertificateServiceClient::new(channel::unix(&path));
    client.create_certificate(ask("")).await.unwrap();
    let unix = probe.0.lock().unwrap()[0].unix.unwrap();
    assert_eq!(unix.uid, rustix::process::geteuid().as_raw());
    assert_eq!(unix.pid, i32::try_from(std::process::id()).unwrap());
    closes(UnixStream::connect(&path).await.unwrap()).await;
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, task).await.expect("serve ends").unwrap();
    assert!(!path.exists(), "the socket file is removed");
    let answer = client.create_certificate(ask("")).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
}
