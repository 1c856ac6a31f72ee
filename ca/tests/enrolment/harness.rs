//! A real authority behind a real TLS listener, and the agents that call it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_ca::{
    AgentsService, Authority, CaConfig, CaService, EntryChanges, EntrySource, IssuanceQuery, IssuanceRow, Target,
};
use palisade_identity::tls;
use palisade_identity::{
    CertificateDer, Clock, Identity, PrivateKey, SpiffeId, TrustBundle, TrustBundles, TrustDomain, UnixTime, X509Svid,
};
use palisade_wire::agents::agents_client::AgentsClient;
use palisade_wire::agents::{AgentReport, AgentState, Entry};
use palisade_wire::channel;
use palisade_wire::istio_ca::istio_certificate_service_client::IstioCertificateServiceClient;
use palisade_wire::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use palisade_wire::serve::{self, Limits, ServerTls};
use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

pub(crate) const H2: &[&[u8]] = &[b"h2"];
pub(crate) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// The real time, plus what the test adds.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        let seconds = UnixTime::now().as_secs() + self.0.load(Ordering::Relaxed);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

pub(crate) fn web() -> SpiffeId {
    SpiffeId::parse(WEB).unwrap()
}

pub(crate) async fn open(dir: &Path, clock: &Arc<TestClock>) -> Result<Arc<Authority>, palisade_ca::OpenError> {
    open_with(CaConfig::new(dir, domain()), clock).await
}

pub(crate) async fn open_with(
    config: CaConfig,
    clock: &Arc<TestClock>,
) -> Result<Arc<Authority>, palisade_ca::OpenError> {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    Authority::open(config, clock).await
}

/// Entries that a test sets, all of them of every agent.
#[derive(Debug, Default)]
pub(crate) struct TestEntries(watch::Sender<()>, Mutex<Vec<Entry>>);

impl TestEntries {
    pub(crate) fn set(&self, entries: Vec<Entry>) {
        *self.1.lock().unwrap() = entries;
        self.0.send_replace(());
    }
}

impl EntrySource for TestEntries {
    fn for_agent(&self, _: &SpiffeId) -> Vec<Entry> {
        self.1.lock().unwrap().clone()
    }

    fn changes(&self, _: &SpiffeId) -> EntryChanges {
        Box::pin(WatchStream::from_changes(self.0.subscribe()))
    }
}

/// The chain of causes, as the binary prints it.
pub(crate) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub(crate) struct Server {
    pub(crate) authority: Arc<Authority>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) registry: Registry,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) entries: Arc<TestEntries>,
    pub(crate) address: String,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A server with bent settings; nothing is maintained but by the test.
    pub(crate) async fn start_with(bend: impl FnOnce(&mut CaConfig)) -> Self {
        Self::start_configured(bend, |service| service, |authority| authority as Arc<dyn ServerTls>).await
    }

    /// With a service that has more than the authority's own attestors.
    pub(crate) async fn start_service(configure: impl FnOnce(CaService) -> CaService) -> Self {
        Self::start_behind(configure, |authority| authority as Arc<dyn ServerTls>).await
    }

    /// The same behind another judge of client certificates.
    pub(crate) async fn start_behind(
        configure: impl FnOnce(CaService) -> CaService,
        door: impl FnOnce(Arc<Authority>) -> Arc<dyn ServerTls>,
    ) -> Self {
        let named = |config: &mut CaConfig| config.dns_names = vec!["ca.mesh.example".to_owned()];
        Self::start_configured(named, configure, door).await
    }

    async fn start_configured(
        bend: impl FnOnce(&mut CaConfig),
        configure: impl FnOnce(CaService) -> CaService,
        door: impl FnOnce(Arc<Authority>) -> Arc<dyn ServerTls>,
    ) -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
        let mut config = CaConfig::new(dir.path(), domain());
        bend(&mut config);
        let authority = open_with(config, &clock).await.unwrap();
        let mut registry = Registry::default();
        authority.register_metrics(&mut registry);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tls, shutdown) = (door(Arc::clone(&authority)), CancellationToken::new());
        let entries = Arc::new(TestEntries::default());
        let agents = AgentsService::new(Arc::clone(&authority), Arc::clone(&entries) as _, shutdown.clone());
        let routes = Routes::new(configure(CaService::new(Arc::clone(&authority))).into_server())
            .add_service(agents.into_server());
        let task = tokio::spawn(serve::tls(listener, tls, routes, Limits::default(), shutdown.clone()));
        Self { authority, clock, registry, dir, entries, address, shutdown, task }
    }

    /// The newest rows of an ID, newest first.
    pub(crate) async fn issued(&self, id: &SpiffeId, limit: u32) -> Vec<IssuanceRow> {
        issued(&self.authority, id, limit).await
    }

    pub(crate) async fn token(&self, id: &SpiffeId) -> String {
        let token = self.authority.create_join_token(id, Duration::ZERO).await.unwrap();
        token.token.to_string()
    }

    /// A connection of an agent that has seen nothing of the server but the hash in its token.
    pub(crate) fn pinned(&self, token: &str) -> Agent {
        let config = tls::client_config_pinned(root_hash(token), H2).unwrap();
        Agent::new(self.dial("localhost", config))
    }

    /// A connection with a certificate, or without one.
    pub(crate) fn connect(&self, identity: Option<&Identity>) -> Agent {
        let config = tls::client_config_named(identity, &self.authority.bundle(), H2).unwrap();
        Agent::new(self.dial("istiod.istio-system.svc", config))
    }

    /// The client lives in the test's time.
    fn dial(&self, name: &str, mut config: rustls::ClientConfig) -> Channel {
        config.time_provider = tls::time_provider(Arc::clone(&self.clock) as _);
        channel::tls(&self.address, name, Arc::new(config)).unwrap()
    }

    fn channel(&self, identity: &Identity) -> Channel {
        let config = tls::client_config_named(Some(identity), &self.authority.bundle(), H2).unwrap();
        self.dial("istiod.istio-system.svc", config)
    }

    /// A connection without a certificate.
    pub(crate) fn anonymous(&self) -> Channel {
        let config = tls::client_config_named(None, &self.authority.bundle(), H2).unwrap();
        self.dial("istiod.istio-system.svc", config)
    }

    /// The agents' service as `identity` calls it.
    pub(crate) fn agents(&self, identity: &Identity) -> AgentsClient<Channel> {
        AgentsClient::new(self.channel(identity))
    }

    /// Follows as `identity`, and waits for the first state.
    pub(crate) async fn follow(&self, identity: &Identity) -> Follower {
        let (reports, outgoing) = mpsc::channel(8);
        let states = self.agents(identity).follow(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let mut follower = Follower { reports, states, last: AgentState::default() };
        follower.next().await.unwrap();
        follower
    }

    /// Enrols and returns the identity.
    pub(crate) async fn enrol(&self, id: &SpiffeId) -> Identity {
        let token = self.token(id).await;
        let key = KeyPair::generate().unwrap();
        let answer = self.pinned(&token).ask(&csr(&key, &[id.as_str()]), 0, Some(&token)).await.unwrap();
        identity(&answer, &key)
    }

    pub(crate) fn metric(&self, line: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines().any(|found| found == line)
    }

    /// Whether a counter of this name and these labels is there at all.
    pub(crate) fn counted(&self, start: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines().any(|found| found.starts_with(start))
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("the server ends").unwrap();
    }
}

/// The newest rows of an ID, newest first.
pub(crate) async fn issued(authority: &Authority, id: &SpiffeId, limit: u32) -> Vec<IssuanceRow> {
    let target = Some(Target::Id(id.as_str().to_owned()));
    authority.issuances(&IssuanceQuery { target, since: 0, limit }).await.unwrap()
}

/// An agent's stream.
pub(crate) struct Follower {
    reports: mpsc::Sender<AgentReport>,
    states: Streaming<AgentState>,
    pub(crate) last: AgentState,
}

impl Follower {
    /// The next state, within ten seconds.
    pub(crate) async fn next(&mut self) -> Result<&AgentState, Status> {
        let next = tokio::time::timeout(Duration::from_secs(10), self.states.message()).await;
        let next = next.map_err(|_| Status::deadline_exceeded("no state came"))??;
        self.last = next.ok_or_else(|| Status::cancelled("the stream ended"))?;
        Ok(&self.last)
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        let authorities = self.last.bundle.as_ref().unwrap().x509_authorities.iter();
        TrustBundle::new(domain(), authorities.map(|der| CertificateDer::from(der.clone())).collect()).unwrap()
    }

    /// Says that the last state is installed, and waits until `authority` knows.
    pub(crate) async fn acknowledge(&self, authority: &Authority) {
        let bundle_digest: String = self.bundle().digest().iter().map(|byte| format!("{byte:02x}")).collect();
        let report = AgentReport { bundle_digest: bundle_digest.clone(), rejected: String::new() };
        self.reports.send(report).await.unwrap();
        until(async || authority.status().await.unwrap().followers.iter().any(|f| f.bundle_digest == bundle_digest))
            .await;
    }
}

/// Asks again until the answer is yes, for ten seconds.
pub(crate) async fn until(mut reached: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.expect("it comes to pass");
}

#[derive(Clone)]
pub(crate) struct Agent(IstioCertificateServiceClient<Channel>);

impl Agent {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(IstioCertificateServiceClient::new(channel))
    }

    pub(crate) async fn ask(
        &mut self,
        csr: &str,
        ttl: i64,
        token: Option<&str>,
    ) -> Result<IstioCertificateResponse, Status> {
        let message = IstioCertificateRequest { csr: csr.into(), validity_duration: ttl, metadata: None };
        self.send(message, token).await
    }

    pub(crate) async fn send(
        &mut self,
        message: IstioCertificateRequest,
        token: Option<&str>,
    ) -> Result<IstioCertificateResponse, Status> {
        self.send_whole(request(message, token)).await
    }

    pub(crate) async fn send_whole(
        &mut self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<IstioCertificateResponse, Status> {
        self.0.create_certificate(request).await.map(tonic::Response::into_inner)
    }
}

pub(crate) fn request(message: IstioCertificateRequest, token: Option<&str>) -> Request<IstioCertificateRequest> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

pub(crate) fn root_hash(token: &str) -> [u8; 32] {
    let hex = token.rsplit('.').next().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap();
    std::array::from_fn(byte)
}

pub(crate) fn csr(key: &KeyPair, uris: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.serialize_request(key).unwrap().pem().unwrap()
}

pub(crate) fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

/// What an agent makes of an answer: every element but the last is one certificate, the last is the
/// roots.
pub(crate) fn identity(answer: &IstioCertificateResponse, key: &KeyPair) -> Identity {
    let (roots, chain) = answer.cert_chain.split_last().unwrap();
    let chain: Vec<_> = chain
        .iter()
        .map(|element| {
            let mut found = certificates(element);
            assert_eq!(found.len(), 1, "one certificate an element");
            found.remove(0)
        })
        .collect();
    let bundle = TrustBundle::from_pem(domain(), roots.as_bytes()).unwrap();
    let key = PrivateKey::from_pkcs8_der(key.serialize_der()).unwrap();
    let svid = X509Svid::new(chain, key).unwrap();
    Identity { svid: Arc::new(svid), bundles: Arc::new(TrustBundles::from_iter([bundle])) }
}
