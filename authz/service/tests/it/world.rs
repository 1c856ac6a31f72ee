//! A running service with policies written in the test, and clients of it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use palisade_authz::{DecisionRecord, DecisionSink};
use palisade_authz_service::{Callers, Limits, PolicySnapshot, PolicySource, Port, Security, Service, ServiceConfig};
use palisade_policies::{MeshConfig, SourceText, load};
use palisade_wire::envoy::envoy::config::core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier};
use palisade_wire::envoy::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use palisade_wire::envoy::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use palisade_wire::envoy::envoy::service::auth::v3::check_response::HttpResponse;
use palisade_wire::envoy::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use palisade_wire::envoy::google::protobuf::value::Kind;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// Three workloads: `shop/cart` and two that share an address.
pub(crate) const WORKLOADS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart, namespace: shop}
spec: {address: 10.0.0.9, labels: {app: cart}, serviceAccount: cart}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: left, namespace: shop}
spec: {address: 10.0.0.20, labels: {app: twin}, serviceAccount: twin}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: right, namespace: shop}
spec: {address: 10.0.0.20, labels: {app: twin}, serviceAccount: twin}
---
";

/// Policies that a test changes.
#[derive(Default)]
pub(crate) struct Policies(Mutex<Option<Arc<PolicySnapshot>>>);

impl PolicySource for Policies {
    fn current(&self) -> Option<Arc<PolicySnapshot>> {
        self.0.lock().unwrap().clone()
    }
}

impl Policies {
    /// Puts policies into force, beside the workloads.
    pub(crate) fn set(&self, text: &str, mesh: &str) {
        let whole = format!("{WORKLOADS}{text}");
        let loaded = load(&[SourceText::new("policies.yaml", whole.as_str())], "default");
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let (mesh, diagnostics) = MeshConfig::parse(&SourceText::new("mesh.yaml", mesh));
        let mesh = mesh.unwrap_or_else(|| panic!("{diagnostics:?}"));
        let revision = format!("{whole}{mesh:?}");
        self.put(PolicySnapshot::new(revision, Arc::new(loaded.resources), mesh));
    }

    /// Puts a whole snapshot into force.
    pub(crate) fn put(&self, snapshot: PolicySnapshot) {
        *self.0.lock().unwrap() = Some(Arc::new(snapshot));
    }
}

/// Remembers every record.
#[derive(Default)]
pub(crate) struct Records(Mutex<Vec<DecisionRecord>>);

impl DecisionSink for Records {
    fn has_room(&self) -> bool {
        true
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn record(&self, record: DecisionRecord) {
        self.0.lock().unwrap().push(record);
    }
}

/// A service.
pub(crate) struct World {
    pub(crate) policies: Arc<Policies>,
    records: Arc<Records>,
    pub(crate) registry: Registry,
    service: Service,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl World {
    /// A service without policies yet.
    pub(crate) fn new() -> Self {
        Self::limited(Limits { max_body: 64 * 1_024, ..Limits::default() })
    }

    /// The same within these limits.
    pub(crate) fn limited(limits: Limits) -> Self {
        let (policies, records) = (Arc::<Policies>::default(), Arc::<Records>::default());
        let config = ServiceConfig { limits, ..ServiceConfig::default() };
        let mut registry = Registry::default();
        let service = Service::new(Arc::clone(&policies) as _, Arc::clone(&records) as _, config, &mut registry);
        Self { policies, records, registry, service, shutdown: CancellationToken::new(), tasks: Vec::new() }
    }

    /// A service with these policies.
    pub(crate) fn with(text: &str) -> Self {
        let world = Self::new();
        world.policies.set(text, "");
        world
    }

    /// Opens ext_authz.
    pub(crate) async fn ext_authz(&mut self, security: Security, callers: Callers) -> SocketAddr {
        let port = Port::bind("127.0.0.1:0".parse().unwrap(), security).await.unwrap();
        let (address, service, shutdown) = (port.address().unwrap(), self.service.clone(), self.shutdown.clone());
        self.tasks.push(tokio::spawn(async move { service.ext_authz(port, callers, shutdown).await }));
        address
    }

    /// Opens the HTTP API.
    pub(crate) async fn authzen(&mut self, security: Security, callers: Callers) -> SocketAddr {
        let port = Port::bind("127.0.0.1:0".parse().unwrap(), security).await.unwrap();
        let (address, service, shutdown) = (port.address().unwrap(), self.service.clone(), self.shutdown.clone());
        let url = Some("https://pdp.example".to_owned());
        self.tasks.push(tokio::spawn(async move { service.authzen(port, callers, url, shutdown).await }));
        address
    }

    /// A client of a plaintext ext_authz port whose word counts, or does not.
    pub(crate) async fn client(&mut self, believed: bool) -> Client {
        let callers = Callers { trust_loopback: believed, ..Callers::default() };
        let address = self.ext_authz(Security::Loopback, callers).await;
        Client(AuthorizationClient::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()))
    }

    /// What was recorded since the last time.
    pub(crate) fn records(&self) -> Vec<DecisionRecord> {
        std::mem::take(&mut self.records.0.lock().unwrap())
    }

    /// Stops, and waits for the end.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Asks as Envoy does.
pub(crate) struct Client(pub(crate) AuthorizationClient<Channel>);

impl Client {
    pub(crate) async fn ask(&mut self, attributes: AttributeContext) -> CheckResponse {
        let request = CheckRequest { attributes: Some(attributes) };
        self.0.check(request).await.expect("an answer").into_inner()
    }

    /// 200, or the status of the denial; 7 or 16 of gRPC where there is no HTTP.
    pub(crate) async fn status(&mut self, attributes: AttributeContext) -> i32 {
        status(&self.ask(attributes).await)
    }

    pub(crate) async fn reason(&mut self, attributes: AttributeContext) -> String {
        reason(&self.ask(attributes).await)
    }
}

pub(crate) fn status(response: &CheckResponse) -> i32 {
    let code = response.status.as_ref().unwrap().code;
    match &response.http_response {
        Some(HttpResponse::DeniedResponse(denied)) => denied.status.as_ref().unwrap().code,
        Some(HttpResponse::OkResponse(_)) => 200,
        _ => code,
    }
}

pub(crate) fn reason(response: &CheckResponse) -> String {
    metadata(response, "palisade.reason").unwrap()
}

/// A text of the dynamic metadata.
pub(crate) fn metadata(response: &CheckResponse, name: &str) -> Option<String> {
    match response.dynamic_metadata.as_ref()?.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        Kind::BoolValue(value) => Some(value.to_string()),
        other => Some(format!("{other:?}")),
    }
}

pub(crate) fn peer(ip: &str, port: u32, principal: &str) -> Peer {
    let socket = SocketAddress {
        address: ip.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(socket)) };
    Peer { address: Some(address), principal: principal.to_owned(), ..Peer::default() }
}

/// A connection from 10.0.0.7 to the cart's address.
pub(crate) fn connection() -> AttributeContext {
    AttributeContext {
        source: Some(peer("10.0.0.7", 40_000, "")),
        destination: Some(peer("10.0.0.9", 8_080, "")),
        tls_session: Some(TlsSession::default()),
        ..AttributeContext::default()
    }
}

/// `GET path` on such a connection.
pub(crate) fn get(path: &str) -> AttributeContext {
    let http = HttpRequest {
        method: "GET".to_owned(),
        path: path.to_owned(),
        host: "cart.shop:8080".to_owned(),
        scheme: "http".to_owned(),
        protocol: "HTTP/1.1".to_owned(),
        ..HttpRequest::default()
    };
    AttributeContext { request: Some(Request { http: Some(http), ..Request::default() }), ..connection() }
}

/// The HTTP part, to be changed.
pub(crate) fn http(attributes: &mut AttributeContext) -> &mut HttpRequest {
    attributes.request.as_mut().unwrap().http.as_mut().unwrap()
}

/// A header in the form of a map.
pub(crate) fn with_header(mut attributes: AttributeContext, name: &str, value: &str) -> AttributeContext {
    http(&mut attributes).headers.insert(name.to_owned(), value.to_owned());
    attributes
}

/// Names the workload.
pub(crate) fn about(mut attributes: AttributeContext, workload: &str) -> AttributeContext {
    attributes.context_extensions.insert("palisade.workload".to_owned(), workload.to_owned());
    attributes
}

/// A client who says that this is its client.
pub(crate) fn from(mut attributes: AttributeContext, principal: &str) -> AttributeContext {
    attributes.source.as_mut().unwrap().principal = principal.to_owned();
    attributes
}

/// A policy of the cart with one rule, in one line of YAML.
pub(crate) fn policy(name: &str, action: &str, rule: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         selector: {{matchLabels: {{app: cart}}}}\n  action: {action}\n  rules: [{rule}]\n---\n"
    )
}
