//! Documents over HTTPS for whoever asks: HTTP/1.1 and HTTP/2, GET and HEAD, no bodies read, nobody asked who they are.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::connection::handshake;
use super::{Limits, ServerTls, accept};

/// A document, as it is at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its media type.
    pub content_type: &'static str,
    /// Seconds for which it may be kept.
    pub max_age: u64,
    /// The document.
    pub body: Bytes,
}

/// Finds documents by path.
pub trait Pages: Send + Sync + 'static {
    /// The document at `path`, or the text that says why there is none.
    ///
    /// # Errors
    /// The text goes to the caller with 404.
    fn page(&self, path: &str) -> Result<Page, &'static str>;
}

/// Serves `pages` over TLS until `shutdown`, then drains and returns. Certificates of clients play no part.
pub async fn pages(
    listener: TcpListener,
    tls: Arc<dyn ServerTls>,
    pages: Arc<dyn Pages>,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let limits = Arc::new(limits);
    let (stop, all) = (shutdown.clone(), Arc::clone(&limits));
    accept::run(listener, &limits, &stop, move |(stream, address)| {
        serve(stream, address, Arc::clone(&tls), Arc::clone(&pages), Arc::clone(&all), shutdown.clone())
    })
    .await;
}

async fn serve(
    stream: TcpStream,
    address: SocketAddr,
    tls: Arc<dyn ServerTls>,
    pages: Arc<dyn Pages>,
    limits: Arc<Limits>,
    shutdown: CancellationToken,
) {
    let stream = match shutdown.run_until_cancelled(handshake(stream, &*tls, limits.handshake_timeout)).await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => return tracing::debug!(%address, %error, "handshake failed"),
        None => return,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(&request, &*pages);
        async move { Ok::<_, Infallible>(answer) }
    });
    let builder = builder(&limits);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        // Nobody needs a connection for longer: documents are fetched every few minutes.
        () = tokio::time::sleep(limits.keepalive_interval) => {}
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    if tokio::time::timeout(limits.drain, connection).await.is_err() {
        tracing::debug!(%address, "connection cut: it outlived the drain deadline");
    }
}

fn answer(request: &Request<Incoming>, pages: &dyn Pages) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET here");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match pages.page(request.uri().path()) {
        Ok(page) => {
            let mut response = Response::new(Full::new(page.body));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
            let kept = HeaderValue::try_from(format!("max-age={}", page.max_age));
            headers.insert(header::CACHE_CONTROL, kept.unwrap_or(HeaderValue::from_static("no-store")));
            response
        }
        Err(reason) => text(StatusCode::NOT_FOUND, reason),
    }
}

fn text(status: StatusCode, reason: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{reason}\n"))));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head = usize::try_from(limits.max_header_list).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.handshake_timeout)
        .max_buf_size(head.max(8_192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams.min(64))
        .max_header_list_size(limits.max_header_list)
        .max_pending_accept_reset_streams(limits.max_pending_resets)
        .max_local_error_reset_streams(limits.max_pending_resets);
    builder
}
