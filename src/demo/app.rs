//! The demo's workloads: an HTTP server that answers for itself, and calls its upstream when asked to.
//!
//! `GET /balance` and `POST /refund` answer; `/call/<path>` repeats the request to the upstream and returns its answer,
//! so that every request of the story is made by the workload it speaks of.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::runtime::{self, Addresses};

/// One workload.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Its name, in every answer.
    #[arg(long)]
    name: String,
    /// Its own address, to listen on and to call from.
    #[arg(long)]
    address: IpAddr,
    /// Gets `addresses.json`.
    #[arg(long)]
    state_dir: PathBuf,
    /// File that holds the upstream's `host:port` once it is known.
    #[arg(long)]
    upstream_file: Option<PathBuf>,
}

struct App {
    name: String,
    upstream_file: Option<PathBuf>,
    client: Client<HttpConnector, Full<Bytes>>,
}

pub(crate) fn run(options: Options) -> Result<Exit> {
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    threads.block_on(serve(options))?;
    Ok(Exit::Done)
}

async fn serve(options: Options) -> Result<()> {
    let shutdown = CancellationToken::new();
    runtime::on_signal(&shutdown)?;
    Addresses::clear(&options.state_dir);
    let listener = runtime::bind("the demo workload", SocketAddr::new(options.address, 0))?;
    let mut addresses = Addresses::default();
    addresses.note("http", listener.local_addr()?);
    addresses.write(&options.state_dir)?;
    let app = Arc::new(App::new(options));
    loop {
        let (stream, _) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted.context("cannot accept")?,
        };
        let app = Arc::clone(&app);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let app = Arc::clone(&app);
                async move { Ok::<_, Infallible>(app.answer(request).await) }
            });
            // A caller that hangs up early is its own business.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl App {
    fn new(options: Options) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(options.address));
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { name: options.name, upstream_file: options.upstream_file, client }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path().strip_prefix("/call/").map(str::to_owned) {
            Some(path) => self.call(request, &path).await,
            None => self.own(&request),
        }
    }

    fn own(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let caller = request.headers().get("x-forwarded-client-cert").and_then(|value| value.to_str().ok());
        let body = serde_json::json!({
            "workload": self.name,
            "method": request.method().as_str(),
            "path": request.uri().path(),
            "client_cert": caller,
        });
        json(StatusCode::OK, &body)
    }

    async fn call(&self, request: Request<Incoming>, path: &str) -> Response<Full<Bytes>> {
        match self.forward(request, path).await {
            Ok(response) => response,
            Err(error) => json(StatusCode::BAD_GATEWAY, &serde_json::json!({ "error": format!("{error:#}") })),
        }
    }

    async fn forward(&self, request: Request<Incoming>, path: &str) -> Result<Response<Full<Bytes>>> {
        let file = self.upstream_file.as_ref().context("this workload has no upstream")?;
        let upstream = std::fs::read_to_string(file).context("the upstream is not known")?;
        let uri: Uri = format!("http://{}/{path}", upstream.trim()).parse()?;
        let call = Request::builder()
            .method(request.method())
            .uri(uri)
            .header(header::HOST, "payments.shop.svc.cluster.local")
            .body(Full::new(Bytes::new()))?;
        let (parts, body) = self.client.request(call).await.context("the upstream refused")?.into_parts();
        let bytes = body.collect().await.context("the upstream's answer broke off")?.to_bytes();
        let mut response = Response::new(Full::new(bytes));
        *response.status_mut() = parts.status;
        Ok(response)
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
