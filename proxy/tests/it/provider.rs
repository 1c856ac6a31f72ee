//! Extension providers: an Envoy ext_authz server over gRPC, and one over HTTP. They decide by the request's path.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use palisade_wire::envoy::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use palisade_wire::envoy::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use palisade_wire::envoy::envoy::service::auth::v3 as auth;
use palisade_wire::envoy::envoy::r#type::v3::HttpStatus;
use palisade_wire::envoy::google::rpc::Status as RpcStatus;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

use crate::app::{App, read_request};
use crate::certificates::until;

/// What a provider was asked, in the order of asking.
pub(crate) type Asked = Arc<Mutex<Vec<auth::CheckRequest>>>;

/// A gRPC provider that ends with the test.
pub(crate) struct Grpc {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Asked,
    /// Questions about `/wait` are answered for each permit.
    pub(crate) answers: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Grpc {
    pub(crate) async fn start() -> Grpc {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked, answers) = (listener.local_addr().unwrap(), Asked::default(), Arc::new(Semaphore::new(0)));
        let service = Service { asked: asked.clone(), answers: answers.clone() };
        let server = auth::authorization_server::AuthorizationServer::new(service);
        let serving = tonic::transport::Server::builder()
            .add_service(server)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Grpc { address, asked, answers, task }
    }

    /// Waits until it was asked so often.
    pub(crate) async fn asked(&self, n: usize) -> Vec<auth::CheckRequest> {
        until("questions to the provider", || {
            let asked = self.asked.lock().unwrap().clone();
            if asked.len() >= n { Ok(asked) } else { Err(format!("{} of {n}", asked.len())) }
        })
        .await
    }

    /// The mesh configuration that names it `asker`; `more` are further fields of the provider.
    pub(crate) fn mesh(&self, more: &str) -> String {
        mesh("envoyExtAuthzGrpc", self.address, more)
    }
}

/// One provider named `asker`.
pub(crate) fn mesh(kind: &str, at: SocketAddr, more: &str) -> String {
    let (ip, port) = (at.ip(), at.port());
    format!("extensionProviders:\n- name: asker\n  {kind}: {{service: {ip}, port: {port}, timeout: 60s{more}}}\n")
}

/// A CUSTOM policy that asks `asker` about these paths (or whatever `operation` says).
pub(crate) fn custom(operation: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: ask, namespace: shop}}\nspec:\n  \
         action: CUSTOM\n  provider: {{name: asker}}\n  rules:\n  - to: [{{operation: {{{operation}}}}}]\n---\n"
    )
}

struct Service {
    asked: Asked,
    answers: Arc<Semaphore>,
}

#[tonic::async_trait]
impl auth::authorization_server::Authorization for Service {
    async fn check(&self, request: Request<auth::CheckRequest>) -> Result<Response<auth::CheckResponse>, Status> {
        let request = request.into_inner();
        let http = request.attributes.as_ref().and_then(|a| a.request.as_ref()?.http.clone()).unwrap_or_default();
        self.asked.lock().unwrap().push(request);
        let path = http.path;
        if path.contains("/wait") {
            self.answers.acquire().await.unwrap().forget();
        }
        Ok(Response::new(if path.contains("/no") { refusal() } else { approval(&path) }))
    }
}

fn field(name: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    let append_action = HeaderAppendAction::OverwriteIfExistsOrAdd.into();
    HeaderValueOption { header: Some(header), append_action, ..HeaderValueOption::default() }
}

fn approval(path: &str) -> auth::CheckResponse {
    let headers = match path {
        "/renamed" => vec![field(":path", "/other?x"), field(":authority", "other:81"), field(":method", "PUT")],
        "/reserved" => vec![field("x-envoy-team", "a")],
        "/unfit" => vec![field(":method", "HEAD")],
        _ => vec![field("x-user", "bob"), field("x-path", path)],
    };
    let ok = auth::OkHttpResponse {
        headers,
        headers_to_remove: vec!["x-secret".to_owned()],
        response_headers_to_add: vec![field("x-checked", "yes")],
        ..auth::OkHttpResponse::default()
    };
    answer(0, auth::check_response::HttpResponse::OkResponse(ok))
}

fn refusal() -> auth::CheckResponse {
    let denied = auth::DeniedHttpResponse {
        status: Some(HttpStatus { code: 402 }),
        headers: vec![field("x-why", "poor"), field("set-cookie", "a=b")],
        body: "pay first".to_owned(),
    };
    answer(7, auth::check_response::HttpResponse::DeniedResponse(denied))
}

fn answer(code: i32, response: auth::check_response::HttpResponse) -> auth::CheckResponse {
    let status = RpcStatus { code, ..RpcStatus::default() };
    auth::CheckResponse { status: Some(status), http_response: Some(response), ..auth::CheckResponse::default() }
}

/// A provider over HTTP: 200 with `x-user`, or 302 to a login for paths that begin with `/no`. Keeps the heads asked.
pub(crate) async fn over_http() -> (App, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    let app = App::of(move |mut tcp| {
        let kept = kept.clone();
        async move {
            let mut buf = Vec::new();
            while let Some((head, body)) = read_request(&mut tcp, &mut buf).await? {
                let refused = head.split(' ').nth(1).is_some_and(|path| path.contains("/no"));
                kept.lock().unwrap().push(format!("{head}{}", String::from_utf8_lossy(&body)));
                let answer = if refused {
                    "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 5\r\n\r\nlogin"
                } else {
                    "HTTP/1.1 200 OK\r\nX-User: bob\r\nX-Checked: yes\r\nX-Other: no\r\nContent-Length: 0\r\n\r\n"
                };
                tcp.write_all(answer.as_bytes()).await?;
            }
            Ok(())
        }
    })
    .await;
    (app, heads)
}
