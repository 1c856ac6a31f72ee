//! A test double: a certificate authority on a real socket, which also speaks `palisade.agents.v1`, and answers as the test
//! tells it to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use palisade_identity::{Clock, PrivateKey, TrustBundles, tls, verify_peer};
use palisade_wire::Caller;
use palisade_wire::agents::agents_server::AgentsServer;
use palisade_wire::istio_ca::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use palisade_wire::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use palisade_wire::serve::{self, Limits};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use x509_cert::der::DecodePem;
use x509_cert::request::CertReq;

use super::agents::Agents;
use crate::fixtures::Authority;

/// TLS looks at the real clock, so these tests do.
#[derive(Debug)]
pub(super) struct RealClock;

impl Clock for RealClock {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }
}

pub(super) fn now() -> u64 {
    UnixTime::now().as_secs()
}

/// What the authority does with the next request.
#[derive(Debug, Clone)]
pub(super) enum Behaviour {
    /// Issues this ID for so many seconds.
    Issue(&'static str, u64),
    /// Issues for a key of its own.
    OtherKey(&'static str),
    /// Says no.
    Refuse(Code),
}

/// One request as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) token: Option<String>,
    pub(super) peer: Option<String>,
    pub(super) subject: String,
    pub(super) lifetime: i64,
    pub(super) key: Vec<u8>,
}

/// The running authority.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    pub(super) authority: Arc<Authority>,
    pub(super) shared: Arc<Shared>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

pub(super) struct Shared {
    pub(super) behaviour: Mutex<Behaviour>,
    pub(super) seen: Mutex<Vec<Seen>>,
    pub(super) agents: Agents,
}

#[derive(Clone)]
pub(super) struct Service {
    pub(super) authority: Arc<Authority>,
    pub(super) shared: Arc<Shared>,
}

impl Scripted {
    pub(super) async fn start(authority: Arc<Authority>, behaviour: Behaviour) -> Self {
        Self::start_at("127.0.0.1:0", authority, behaviour).await
    }

    /// As [`Scripted::start`], and speaks `palisade.agents.v1` too.
    pub(super) async fn with_agents(authority: Arc<Authority>, behaviour: Behaviour) -> Self {
        Self::serve("127.0.0.1:0", authority, behaviour, true).await
    }

    pub(super) async fn start_at(address: &str, authority: Arc<Authority>, behaviour: Behaviour) -> Self {
        Self::serve(address, authority, behaviour, false).await
    }

    pub(super) async fn serve(address: &str, authority: Arc<Authority>, behaviour: Behaviour, agents: bool) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { behaviour: Mutex::new(behaviour), seen: Mutex::default(), agents: Agents::default() });
        let service = Service { authority: authority.clone(), shared: shared.clone() };
        let identity = authority.server("spiffe://a.test/ns/palisade-system/sa/palisade", now() - 60, now() + 3600);
        let config = Arc::new(tls::server_config(&identity, tls::ClientCertificate::Optional, &[b"h2"]).unwrap());
        let bundles: Arc<TrustBundles> = identity.bundles.clone();
        let verify = move |chain: &[CertificateDer<'_>]| verify_peer(chain, &bundles, UnixTime::now());
        let server_tls = Arc::new((move || config.clone(), verify));
        let shutdown = CancellationToken::new();
        let mut routes = Routes::new(IstioCertificateServiceServer::new(service.clone()));
        if agents {
            routes = routes.add_service(AgentsServer::new(service));
        }
        let task = tokio::spawn(serve::tls(listener, server_tls, routes, Limits::default(), shutdown.clone()));
        Self { address, authority, shared, shutdown, task }
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// The public key of a request.
pub(super) struct Requested(pub(super) Vec<u8>);

impl PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let peer = Caller::of(&request).and_then(|c| c.peer.clone()).map(|peer| peer.id().to_string());
        let message = request.into_inner();
        let csr = CertReq::from_pem(&message.csr).unwrap();
        let key = Requested(csr.info.public_key.subject_public_key.raw_bytes().to_vec());
        self.shared.seen.lock().unwrap().push(Seen {
            token,
            peer,
            subject: csr.info.subject.to_string(),
            lifetime: message.validity_duration,
            key: key.0.clone(),
        });
        let leaf = match self.shared.behaviour.lock().unwrap().clone() {
            Behaviour::Refuse(code) => return Err(Status::new(code, "the test says no")),
            Behaviour::Issue(id, life) => self.authority.sign(id, &key, now() - life / 8, now() + life),
            Behaviour::OtherKey(id) => {
                self.authority.leaf(id, &PrivateKey::generate_p256().unwrap(), now() - 60, now() + 3600)
            }
        };
        let cert_chain = vec![leaf.pem(), self.authority.intermediate.pem(), self.authority.root.pem()];
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}
