//! The ports: who may listen where, and connections that can hold only so much.
//!
//! A decision service in plaintext on a network would tell anybody what passes, and believe anybody who says he is an
//! enforcer. So plaintext is for loopback, and everything else needs mutual TLS with an identity of this mesh.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use palisade_wire::Caller;
use palisade_wire::serve::ServerTls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::upload::{Held, Upload};

/// Body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, tonic::Status>;

/// What one port lets its callers hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once under mutual TLS; more wait in the kernel's queue.
    pub max_connections: usize,
    /// The same in plaintext, where every process of the machine is a caller.
    pub max_plaintext_connections: usize,
    /// Open requests on one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Bytes of one request's header fields, names and values; HTTP/2 adds 32 for each.
    pub max_header_bytes: u32,
    /// From accept to the end of the handshake, and again to a complete request head.
    pub handshake_timeout: Duration,
    /// Longest time for one answer.
    pub request_timeout: Duration,
    /// From a request's head to the end of its body.
    pub body_timeout: Duration,
    /// Bytes of bodies that all requests together may hold until they are answered; what comes on top is refused.
    pub max_held: usize,
    /// Largest body of an AuthZEN request.
    pub max_body: usize,
    /// Largest message of an ext_authz check; a body that Envoy sends along counts.
    pub max_message: usize,
    /// After shutdown open requests get so long to end.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            max_plaintext_connections: 256,
            max_concurrent_streams: 256,
            max_header_bytes: 16 * 1_024,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(10),
            max_held: 64 * 1_024 * 1_024,
            max_body: 1_024 * 1_024,
            max_message: 4 * 1_024 * 1_024,
            drain: Duration::from_secs(10),
        }
    }
}

/// How a port is protected.
#[derive(Clone)]
pub enum Security {
    /// Plaintext: loopback only.
    Loopback,
    /// Mutual TLS. Who shows no certificate is refused, whatever the configuration says of it.
    Mutual(Arc<dyn ServerTls>),
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_mutual() { "Mutual" } else { "Loopback" })
    }
}

impl Security {
    /// Whether it is mutual TLS.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        matches!(self, Self::Mutual(_))
    }
}

/// Why a port is not opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Plaintext where others can reach it.
    #[error(
        "`{0}` is not a loopback address: without TLS this port is for this machine only; use mutual TLS or 127.0.0.1"
    )]
    Plaintext(SocketAddr),
    /// The system refuses.
    #[error("cannot listen on {address}; choose another address, or stop what listens there")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// An open port; nothing is served yet.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    security: Security,
}

impl Port {
    /// Binds `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// [`ListenError`]: plaintext elsewhere than on loopback is refused before anything is bound.
    pub async fn bind(address: SocketAddr, security: Security) -> Result<Self, ListenError> {
        if !security.is_mutual() && !address.ip().to_canonical().is_loopback() {
            return Err(ListenError::Plaintext(address));
        }
        let listener = TcpListener::bind(address).await.map_err(|source| ListenError::Bind { address, source })?;
        Ok(Self { listener, security })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn slots(&self, limits: &Limits) -> Arc<Semaphore> {
        semaphore(if self.security.is_mutual() { limits.max_connections } else { limits.max_plaintext_connections })
    }

    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    /// Serves until `shutdown`, then drains and returns. Every request carries its [`Caller`]. Accept errors are logged and
    /// backed off; none ends the loop.
    pub(crate) async fn serve<S, F>(self, service: S, limits: Limits, metrics: Metrics, shutdown: CancellationToken)
    where
        S: Fn(Request<Upload>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let (slots, budget) = (self.slots(&limits), semaphore(limits.max_held));
        let tasks = TaskTracker::new();
        let (limits, cut) = (Arc::new(limits), CancellationToken::new());
        loop {
            let next = async { (Arc::clone(&slots).acquire_owned().await, self.listener.accept().await) };
            let Some((slot, accepted)) = shutdown.run_until_cancelled(next).await else { break };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting failed");
                    shutdown.run_until_cancelled(tokio::time::sleep(Duration::from_millis(50))).await;
                    continue;
                }
            };
            let connection = Connection {
                service: service.clone(),
                limits: Arc::clone(&limits),
                budget: Arc::clone(&budget),
                shutdown: shutdown.clone(),
                metrics: metrics.clone(),
            };
            let (security, cut) = (self.security.clone(), cut.clone());
            tasks.spawn(async move {
                let _slot = slot;
                cut.run_until_cancelled(connection.run(stream, address, security)).await;
            });
        }
        drop(self.listener);
        tasks.close();
        if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
            tracing::info!(connections = tasks.len(), "drain deadline passed, connections are cut");
            cut.cancel();
            tasks.wait().await;
        }
    }
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)))
}

/// What serves one connection.
struct Connection<S> {
    service: S,
    limits: Arc<Limits>,
    /// Bytes of bodies that still fit.
    budget: Arc<Semaphore>,
    shutdown: CancellationToken,
    metrics: Metrics,
}

impl<S, F> Connection<S>
where
    S: Fn(Request<Upload>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    async fn run(self, stream: TcpStream, address: SocketAddr, security: Security) {
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::debug!(%address, %error, "connection was gone before it was served");
        }
        let mut caller = Caller { address: Some(address), ..Caller::default() };
        match security {
            Security::Loopback => self.speak(stream, caller, std::future::pending()).await,
            Security::Mutual(tls) => {
                let accept = TlsAcceptor::from(tls.config()).accept(stream);
                let stream = match tokio::time::timeout(self.limits.handshake_timeout, accept).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return tracing::debug!(%address, %error, "handshake failed"),
                    Err(_) => return tracing::debug!(%address, "handshake took too long"),
                };
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let peer = match tls.verify(chain) {
                    Ok(peer) => peer,
                    Err(error) => return tracing::warn!(%address, %error, "client certificate refused"),
                };
                let left = peer.not_after().as_secs().saturating_sub(tls.now().as_secs());
                caller.peer = Some(Arc::new(peer));
                self.speak(stream, caller, tokio::time::sleep(Duration::from_secs(left))).await;
            }
        }
    }

    /// HTTP/1.1 or HTTP/2, as the client begins, until it ends, its certificate does, or the process.
    async fn speak<I>(self, io: I, caller: Caller, expiry: impl Future<Output = ()>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.metrics.connections.inc();
        let _counted = Counted(self.metrics.clone());
        let (service, budget) = (self.service.clone(), Arc::clone(&self.budget));
        let (timeout, body_timeout) = (self.limits.request_timeout, self.limits.body_timeout);
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(caller.clone());
            let held = Held::none(&budget);
            let answer = service(request.map(|body| Upload::new(body, Arc::clone(&held), body_timeout)));
            async move {
                let answer = tokio::time::timeout(timeout, answer).await;
                drop(held);
                answer
            }
        });
        let builder = builder(&self.limits);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended),
            () = expiry => tracing::debug!("connection is ended: the client's certificate expired"),
            () = self.shutdown.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        match tokio::time::timeout(self.limits.drain, connection).await {
            Ok(ended) => log_end(ended),
            Err(_) => tracing::debug!("connection cut: requests outlived the drain deadline"),
        }
    }
}

/// Takes a connection out of the count.
struct Counted(Metrics);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

fn log_end<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection failed");
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let bytes = usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.handshake_timeout)
        .max_buf_size(bytes.max(8_192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_bytes)
        .max_pending_accept_reset_streams(64)
        .max_local_error_reset_streams(64)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}
