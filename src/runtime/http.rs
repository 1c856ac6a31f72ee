//! The port of metrics and probes: `/metrics`, `/livez`, `/readyz` (and Istio's `/healthz/ready`), plus pages a process adds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Health;

/// Connections that may wait to be accepted, as far as the kernel's own limit goes: when thousands of agents come at once, one
/// more is not answered and comes back a second later.
const BACKLOG: u32 = 4_096;

/// A page made anew at each request.
type Page = Box<dyn Fn() -> String + Send + Sync>;

/// What the port serves.
pub(crate) struct Pages {
    health: Health,
    registry: Arc<Registry>,
    /// Metrics of a part that begins later.
    more: Arc<OnceLock<Registry>>,
    json: BTreeMap<&'static str, Page>,
}

impl Pages {
    /// Probes and metrics.
    pub(crate) fn new(health: Health, registry: Registry) -> Self {
        Self { health, registry: Arc::new(registry), more: Arc::default(), json: BTreeMap::new() }
    }

    /// The same, with the metrics of a part of the process that begins later, if it ever does.
    pub(crate) fn with_more(self, more: Arc<OnceLock<Registry>>) -> Self {
        Self { more, ..self }
    }

    /// The same probes and metrics, with a JSON page at `path`.
    pub(crate) fn with_json(&self, path: &'static str, page: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let (health, registry) = (self.health.clone(), Arc::clone(&self.registry));
        let more = Arc::clone(&self.more);
        Self { health, registry, more, json: BTreeMap::from([(path, Box::new(page) as Page)]) }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if *method != Method::GET && *method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET here\n".to_owned());
        }
        match path {
            "/metrics" | "/stats/prometheus" => self.metrics(),
            "/livez" | "/healthz/live" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" | "/healthz/ready" => self.ready(),
            _ => match self.json.get(path) {
                Some(page) => with_type(StatusCode::OK, "application/json", page()),
                None => text(StatusCode::NOT_FOUND, "no such page\n".to_owned()),
            },
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let missing = self.health.missing();
        if missing.is_empty() {
            return text(StatusCode::OK, "ok\n".to_owned());
        }
        text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut body = String::new();
        let mut registries = std::iter::once(&*self.registry).chain(self.more.get());
        let written = registries.try_for_each(|registry| encode_registry(&mut body, registry));
        match written.and_then(|()| encode_eof(&mut body)) {
            Ok(()) => with_type(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", body)
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// Binds `address`; the error names the role, the address and what to do.
pub(crate) fn bind(role: &str, address: SocketAddr) -> Result<TcpListener> {
    listen(address).with_context(|| {
        format!("cannot listen on {address} for {role}: choose another address, or stop what listens there")
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown`; probes must work to the end, so callers stop this last.
pub(crate) async fn serve(listener: TcpListener, pages: Arc<Pages>, shutdown: CancellationToken) -> Result<()> {
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the metrics port");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (pages, shutdown) = (Arc::clone(&pages), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = connection(stream, pages) => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = pages.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "metrics connection ended early");
    }
}
