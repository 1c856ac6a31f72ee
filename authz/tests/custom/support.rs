//! Providers of both forms whose answers a test writes, and the configuration that names them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_authz::provider::{CheckRequest, Limits, Party, Providers, TcpDial, Verdict};
use palisade_policies::{ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, MeshConfig, ProviderKind};
use palisade_wire::envoy::envoy::config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter};
use palisade_wire::envoy::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use palisade_wire::envoy::envoy::service::auth::v3::check_response::HttpResponse;
use palisade_wire::envoy::envoy::service::auth::v3::{
    CheckRequest as Question, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use palisade_wire::envoy::envoy::r#type::v3::HttpStatus;
use palisade_wire::envoy::google::protobuf::BoolValue;
use palisade_wire::envoy::google::rpc::Status as RpcStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

/// Ends a task with the test.
pub(crate) struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn task(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(tokio::spawn(future))
}

type Answer = Arc<dyn Fn(&Question) -> Result<CheckResponse, Status> + Send + Sync>;

/// A gRPC provider.
pub(crate) struct GrpcServer {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Question>>>,
    _task: Task,
}

struct Service {
    answer: Answer,
    seen: Arc<Mutex<Vec<Question>>>,
}

#[tonic::async_trait]
impl Authorization for Service {
    async fn check(&self, request: Request<Question>) -> Result<Response<CheckResponse>, Status> {
        assert_eq!(request.metadata().get("grpc-timeout").map(|_| ()), Some(()));
        let question = request.into_inner();
        let answer = (self.answer)(&question);
        self.seen.lock().unwrap().push(question);
        answer.map(Response::new)
    }
}

impl GrpcServer {
    pub(crate) async fn start(
        answer: impl Fn(&Question) -> Result<CheckResponse, Status> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Question>>>::default());
        let service = AuthorizationServer::new(Service { answer: Arc::new(answer), seen: Arc::clone(&seen) });
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let serving = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
        Self { address, seen, _task: task(async move { serving.await.unwrap() }) }
    }

    /// One that always says this.
    pub(crate) async fn saying(answer: CheckResponse) -> Self {
        Self::start(move |_| Ok(answer.clone())).await
    }

    pub(crate) fn seen(&self) -> Vec<Question> {
        self.seen.lock().unwrap().clone()
    }
}

/// A server of raw bytes: each connection gets its turn in `serve`, with its number from 0.
pub(crate) struct RawServer {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _task: Task,
}

impl RawServer {
    pub(crate) async fn start<F>(serve: impl Fn(usize, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&connections);
        let accepting = async move {
            let mut served = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                served.spawn(serve(count.fetch_add(1, Ordering::SeqCst), stream));
            }
        };
        Self { address, connections, _task: task(accepting) }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// One HTTP request as text: head and body. None at the end of the connection.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let end = text.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            if text.len() >= end + length.map_or(0, |length| length.parse().unwrap()) {
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
        }
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
}

/// An HTTP provider that answers with these bytes, and what it was asked.
pub(crate) async fn http_server(answer: &'static str) -> (RawServer, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let all = Arc::clone(&seen);
    let server = RawServer::start(move |_, mut stream| {
        let all = Arc::clone(&all);
        async move {
            while let Some(request) = read_request(&mut stream).await {
                all.lock().unwrap().push(request);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (server.await, seen)
}

pub(crate) fn grpc(address: SocketAddr) -> ExtAuthzGrpc {
    ExtAuthzGrpc {
        service: format!("any/{}", address.ip()),
        port: address.port(),
        timeout: Duration::from_secs(600),
        fail_open: false,
        status_on_error: None,
        body: None,
        clear_route_cache: false,
    }
}

pub(crate) fn http(address: SocketAddr) -> ExtAuthzHttp {
    ExtAuthzHttp {
        service: address.ip().to_string(),
        port: address.port(),
        timeout: Duration::from_secs(600),
        fail_open: false,
        status_on_error: None,
        body: None,
        clear_route_cache: false,
        path_prefix: String::new(),
        include_headers: Vec::new(),
        include_additional: BTreeMap::new(),
        headers_to_upstream_on_allow: Vec::new(),
        headers_to_downstream_on_allow: Vec::new(),
        headers_to_downstream_on_deny: Vec::new(),
    }
}

/// A mesh whose providers are these, by name.
pub(crate) fn mesh(providers: Vec<(&str, ProviderKind)>) -> MeshConfig {
    let named = |(name, kind): (&str, ProviderKind)| ExtensionProvider { name: name.to_owned(), kind };
    MeshConfig { extension_providers: providers.into_iter().map(named).collect(), ..MeshConfig::default() }
}

/// The one provider `ext`.
pub(crate) fn providers(kind: ProviderKind) -> Providers {
    limited(kind, Limits::default())
}

pub(crate) fn limited(kind: ProviderKind, limits: Limits) -> Providers {
    Providers::with_limits(&mesh(vec![("ext", kind)]), Arc::new(TcpDial::default()), limits)
}

/// What must happen, or the test fails instead of hanging.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("nothing happened for a minute")
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// The request that the facts about Envoy were found with.
pub(crate) fn request() -> CheckRequest {
    let headers = [("X-A", "1"), ("x-a", "2"), ("x-b", "b"), ("accept", "a1"), ("accept", "a2"), ("cookie", "c=1")];
    CheckRequest {
        method: Some("GET".into()),
        target: Some("/pA?b=2&a&c=3&b=4".into()),
        host: Some("Web.example:80".into()),
        scheme: Some("http".into()),
        protocol: "HTTP/1.1".into(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect(),
        source: Party {
            address: Some("10.0.0.7:4711".parse().unwrap()),
            principal: Some("cluster.local/ns/web/sa/front".into()),
        },
        destination: Party {
            address: Some("[fd00::1]:8080".parse().unwrap()),
            principal: Some("cluster.local/ns/shop/sa/cart".into()),
        },
        sni: Some("cart.shop".into()),
        ..CheckRequest::default()
    }
}

/// A header option: `append` where given, else `append_action`.
pub(crate) fn option(name: &str, value: &str, append: Option<bool>, action: i32) -> HeaderValueOption {
    let header = HeaderValue { key: name.into(), value: value.into(), ..HeaderValue::default() };
    #[expect(deprecated, reason = "providers still send it")]
    let option = HeaderValueOption {
        header: Some(header),
        append: append.map(|value| BoolValue { value }),
        append_action: action,
        keep_empty_value: false,
    };
    option
}

pub(crate) fn yes(ok: OkHttpResponse) -> CheckResponse {
    CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::OkResponse(ok)),
        dynamic_metadata: None,
    }
}

pub(crate) fn setting(headers: &[(&str, &str)]) -> CheckResponse {
    let headers = headers.iter().map(|(name, value)| option(name, value, None, 0)).collect();
    yes(OkHttpResponse { headers, ..OkHttpResponse::default() })
}

pub(crate) fn denied(status: i32, headers: Vec<HeaderValueOption>, body: &str) -> DeniedHttpResponse {
    DeniedHttpResponse { status: Some(HttpStatus { code: status }), headers, body: body.into() }
}

pub(crate) fn no(response: Option<HttpResponse>) -> CheckResponse {
    let status = RpcStatus { code: 7, ..RpcStatus::default() };
    CheckResponse { status: Some(status), http_response: response, dynamic_metadata: None }
}

pub(crate) fn refusing(status: i32, headers: Vec<HeaderValueOption>, body: &str) -> CheckResponse {
    no(Some(HttpResponse::DeniedResponse(denied(status, headers, body))))
}

pub(crate) fn parameter(name: &str, value: &str) -> QueryParameter {
    QueryParameter { key: name.into(), value: value.into() }
}

/// A verdict in short: `ok`, or reason, status, headers and body.
pub(crate) fn short(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Approved { approval, .. } => format!("ok {}", approval.provider()),
        Verdict::Refused { response, reason } => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers: Vec<String> =
                response.headers.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
            format!("{reason} {} [{}] {}", response.status, headers.join(" "), text(&response.body))
        }
    }
}
