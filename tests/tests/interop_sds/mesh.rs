//! The real authority on a real port; it can be taken away and brought back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use palisade_ca::{Authority, CaConfig, CaService};
use palisade_identity::tls::{self, ClientCertificate};
use palisade_identity::{CertificateDer, SpiffeId, TrustBundles, TrustDomain, UnixTime, verify_peer};
use palisade_wire::serve::{self, Limits};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::node::{Node, SystemClock};

pub(crate) const CART: &str = "spiffe://a.test/ns/shop/sa/cart";
pub(crate) const FRONT: &str = "spiffe://a.test/ns/web/sa/front";

pub(crate) struct Mesh {
    directory: tempfile::TempDir,
    address: SocketAddr,
    cacerts: Option<PathBuf>,
    running: Option<Running>,
}

/// The authority while it is there.
struct Running {
    authority: Arc<Authority>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        Self::start_under(None).await
    }

    /// An authority that signs with somebody else's certificate and key, if there is such a directory.
    pub(crate) async fn start_under(cacerts: Option<&Path>) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let (address, cacerts) = (SocketAddr::from(([127, 0, 0, 1], 0)), cacerts.map(Path::to_path_buf));
        let mut mesh = Self { directory, address, cacerts, running: None };
        mesh.bring_back().await;
        mesh
    }

    /// Opens the authority from its directory, on the port it had before.
    pub(crate) async fn bring_back(&mut self) {
        let domain = TrustDomain::parse("a.test").expect("trust domain");
        let mut config = CaConfig::new(self.directory.path().join("ca"), domain);
        config.cacerts.clone_from(&self.cacerts);
        let authority = Authority::open(config, Arc::new(SystemClock)).await.expect("an authority");
        let listener = TcpListener::bind(self.address).await.expect("the port");
        self.address = listener.local_addr().expect("address");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, authority.clone(), shutdown.clone()));
        self.running = Some(Running { authority, shutdown, task });
    }

    pub(crate) async fn take_away(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.shutdown.cancel();
        running.task.await.expect("the authority ends");
    }

    pub(crate) async fn stop(mut self) {
        self.take_away().await;
    }

    /// A running agent with that identity.
    pub(crate) async fn agent(&self, id: &str) -> Node {
        let authority = &self.running.as_ref().expect("the authority").authority;
        let spiffe = SpiffeId::parse(id).expect("an ID");
        let token = authority.create_join_token(&spiffe, Duration::from_secs(60)).await.expect("a join token");
        Node::start(self.address, &token.token, id).await
    }
}

async fn serve(listener: TcpListener, authority: Arc<Authority>, shutdown: CancellationToken) {
    let bundles = Arc::new(TrustBundles::from_iter([authority.bundle().as_ref().clone()]));
    let shown = authority.clone();
    let config = move || {
        let identity = shown.server_identity();
        Arc::new(tls::server_config(&identity, ClientCertificate::Optional, &[b"h2"]).expect("TLS"))
    };
    let verify = move |chain: &[CertificateDer<'_>]| verify_peer(chain, &bundles, UnixTime::now());
    let routes = Routes::new(CaService::new(authority).into_server());
    serve::tls(listener, Arc::new((config, verify)), routes, Limits::default(), shutdown).await;
}
