//! Our own ends of Envoy's handshakes: a client for its mTLS port, a server behind its plain one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use palisade_identity::tls::{self, ClientCertificate, ExpectPeer};
use palisade_identity::{Identity, SpiffeId, SvidSource, UnixTime};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);
const PING: &[u8] = b"ping";

/// The serial of the certificate that the server shows to `identity`, which it has let in.
pub(crate) async fn serial_shown_to(identity: &Identity, address: SocketAddr, server: &str) -> io::Result<String> {
    let mut stream = connect(identity, address, server).await?;
    echo(&mut stream).await?;
    serial(&stream, identity)
}

/// The same with an identity of another mesh, whatever certificate the server shows.
pub(crate) async fn serial_shown_by_anybody_to(identity: &Identity, address: SocketAddr) -> io::Result<String> {
    let mut config = tls::client_config(Some(identity), identity.bundles.clone(), any(identity), &[]).expect("TLS");
    config.dangerous().set_certificate_verifier(Arc::new(Anybody));
    let mut stream = handshake(config, address).await?;
    echo(&mut stream).await?;
    Ok(String::new())
}

/// The same as a client that shows no certificate.
pub(crate) async fn serial_shown_without_certificate(trust: &Identity, address: SocketAddr) -> io::Result<String> {
    let config = tls::client_config(None, trust.bundles.clone(), any(trust), &[]).expect("TLS");
    let mut stream = handshake(config, address).await?;
    echo(&mut stream).await?;
    serial(&stream, trust)
}

/// An open connection to the server of that ID.
pub(crate) async fn connect(
    identity: &Identity,
    address: SocketAddr,
    server: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let expect = ExpectPeer::Ids(vec![SpiffeId::parse(server).expect("an ID")]);
    let config = tls::client_config(Some(identity), identity.bundles.clone(), expect, &[]).expect("TLS");
    handshake(config, address).await
}

/// Sends a word and waits for it to come back: only then has the server accepted us.
pub(crate) async fn echo(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let mut answer = [0; PING.len()];
    let exchange = async {
        stream.write_all(PING).await?;
        stream.read_exact(&mut answer).await
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    assert_eq!(answer, PING);
    Ok(())
}

/// What the upstream says about the client that Envoy is to it.
pub(crate) async fn ask_through(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(answer)
}

fn any(identity: &Identity) -> ExpectPeer {
    ExpectPeer::TrustDomain(identity.svid.id().trust_domain())
}

async fn handshake(config: rustls::ClientConfig, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

fn serial(stream: &TlsStream<TcpStream>, identity: &Identity) -> io::Result<String> {
    let peer = tls::peer(stream.get_ref().1, &identity.bundles, UnixTime::now()).map_err(io::Error::other)?;
    Ok(peer.serial().to_owned())
}

/// Trusts every server: for a client that wants to know whether the server trusts it.
#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A server that tells each client who it is: `<SPIFFE ID> <serial>`.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start(identity: impl SvidSource + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("address");
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                let (tcp, _) = accepted.expect("accept");
                // A client that leaves early is its own affair: the test sees what is missing.
                let _ = tell(tcp, &identity).await;
            }
        });
        Self { address, shutdown, task }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("the upstream ends");
    }
}

async fn tell(tcp: TcpStream, identity: &impl SvidSource) -> io::Result<()> {
    let identity = identity.current().expect("an identity");
    let config = tls::server_config(&identity, ClientCertificate::Required, &[]).expect("TLS");
    let mut stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await?;
    let peer = tls::peer(stream.get_ref().1, &identity.bundles, UnixTime::now()).map_err(io::Error::other)?;
    stream.write_all(format!("{} {}", peer.id(), peer.serial()).as_bytes()).await?;
    stream.shutdown().await
}
