//! One connection: prove who calls, speak HTTP/2, end in time.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use palisade_identity::VerifiedPeer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceExt;

use super::authority::ValidAuthority;
use super::gather::{Sender, gather};
use super::turn::{Place, in_turn};
use super::{Limits, ServerTls};
use crate::{Caller, UnixCaller};

/// Length of the HTTP/2 client preface (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// Wall clocks step and machines sleep: a certificate's end is looked at this often.
const EXPIRY_CHECK: Duration = Duration::from_secs(30);
/// What a client may still hear after its certificate was revoked; what it has open is cut.
const REVOKED_DRAIN: Duration = Duration::from_secs(1);

/// What all connections of a listener share.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) routes: Routes,
    pub(super) limits: Arc<Limits>,
    pub(super) shutdown: CancellationToken,
    /// Places of those that have not had an answer yet.
    newcomers: Arc<Semaphore>,
}

impl Serving {
    pub(super) fn new(routes: Routes, limits: Arc<Limits>, shutdown: CancellationToken) -> Self {
        Self { routes: routes.prepare(), newcomers: Arc::new(Semaphore::new(limits.newcomers)), limits, shutdown }
    }
}

pub(super) async fn over_tls(stream: TcpStream, address: SocketAddr, tls: Arc<dyn ServerTls>, serving: Serving) {
    let (newcomers, shutdown) = (Arc::clone(&serving.newcomers), serving.shutdown.clone());
    // Who says nothing takes nobody's turn.
    let begun = tokio::time::timeout(serving.limits.handshake_timeout, stream.readable());
    if !matches!(shutdown.run_until_cancelled(begun).await, Some(Ok(Ok(())))) {
        return tracing::debug!(%address, "connection closed: the client said nothing");
    }
    // Made when its turn has come: what waits is small.
    let work = |place| Box::pin(prove_and_serve(stream, address, tls, serving, place));
    in_turn(&newcomers, &shutdown, work).await;
}

async fn prove_and_serve(
    stream: TcpStream,
    address: SocketAddr,
    tls: Arc<dyn ServerTls>,
    serving: Serving,
    place: Place,
) {
    let handshake = Box::pin(handshake(stream, &*tls, serving.limits.handshake_timeout));
    let stream = match serving.shutdown.run_until_cancelled(handshake).await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => return tracing::debug!(%address, %error, "handshake failed"),
        None => return,
    };
    let (mut peer, mut stranger) = (None, None);
    if let Some(chain) = stream.get_ref().1.peer_certificates() {
        match tls.verify(chain) {
            Ok(verified) => peer = Some(Arc::new(verified)),
            Err(_) if tls.admits(chain) => stranger = Some(chain.iter().map(|one| one.clone().into_owned()).collect()),
            Err(error) => return tracing::warn!(%address, %error, "client certificate refused"),
        }
    }
    let caller = Caller { peer: peer.clone(), stranger, address: Some(address), unix: None };
    Box::pin(serve(stream, caller, serving, place, end(peer, tls))).await;
}

pub(super) async fn over_unix(stream: UnixStream, serving: Serving) {
    let credentials = match stream.peer_cred() {
        Ok(credentials) => credentials,
        Err(error) => return tracing::warn!(%error, "peer credentials unreadable"),
    };
    let pid = credentials.pid().unwrap_or(0);
    let started = super::pin::started(&stream, pid);
    let unix = UnixCaller { pid, uid: credentials.uid(), gid: credentials.gid(), started };
    let caller = Caller { unix: Some(unix), ..Caller::default() };
    serve(ValidAuthority::new(stream), caller, serving, Place::default(), std::future::pending()).await;
}

pub(super) async fn handshake(
    stream: TcpStream,
    tls: &dyn ServerTls,
    timeout: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    tokio::time::timeout(timeout, TlsAcceptor::from(tls.config()).accept(stream)).await?
}

/// Why a connection must end that its client would keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Expired,
    Revoked,
}

/// Ends when the peer's certificate does; never for a caller without one.
async fn end(peer: Option<Arc<VerifiedPeer>>, tls: Arc<dyn ServerTls>) -> End {
    let Some(peer) = peer else { return std::future::pending().await };
    let mut changes = tls.changes();
    loop {
        if tls.revokes(&peer) {
            return End::Revoked;
        }
        let left = peer.not_after().as_secs().saturating_sub(tls.now().as_secs());
        if left == 0 {
            return End::Expired;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(left).min(EXPIRY_CHECK)) => {}
            () = changed(changes.as_mut()) => {}
        }
    }
}

async fn changed(changes: Option<&mut watch::Receiver<()>>) {
    let heard = match changes {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !heard {
        // Who is gone says nothing any more.
        std::future::pending::<()>().await;
    }
}

async fn serve<S>(stream: S, caller: Caller, serving: Serving, place: Place, end: impl Future<Output = End>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Serving { routes, limits, shutdown, .. } = serving;
    let (stream, sender) = gather(stream);
    let io = TokioIo::new(stream);
    let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        let (answer, place) = (routes.clone().oneshot(request), place.clone());
        async move {
            let answer = answer.await;
            place.leave();
            answer
        }
    });
    // Boxed, so that the task holds one of it: each future that something is moved through keeps a place for it.
    let mut connection = Box::pin(builder(&limits).serve_connection(io, service));
    let mut drain = limits.drain;
    tokio::select! {
        () = poll_fn(|cx| converse(connection.as_mut(), &sender, cx)) => return,
        () = silence(&sender, limits.handshake_timeout) => {
            return tracing::debug!("connection closed: the client said nothing");
        }
        end = end => {
            tracing::debug!(?end, "connection is ended: the client's certificate is good no longer");
            if end == End::Revoked {
                drain = drain.min(REVOKED_DRAIN);
            }
        }
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let rest = poll_fn(|cx| converse(connection.as_mut(), &sender, cx));
    if tokio::time::timeout(drain, rest).await.is_err() {
        tracing::debug!("connection cut: requests outlived the drain deadline");
    }
}

/// Polls the connection and sends what it wrote; ready when either has ended.
fn converse<C, S>(connection: Pin<&mut C>, sender: &Sender<S>, cx: &mut Context<'_>) -> Poll<()>
where
    C: Future<Output = hyper::Result<()>>,
    S: AsyncWrite + Unpin,
{
    let ended = connection.poll(cx);
    let sent = sender.poll_send(cx);
    match (ended, sent) {
        (Poll::Ready(Err(error)), _) => tracing::debug!(%error, "connection failed"),
        (_, Poll::Ready(Err(error))) => tracing::debug!(%error, "connection failed"),
        (Poll::Ready(Ok(())), _) => {}
        (Poll::Pending, _) => return Poll::Pending,
    }
    Poll::Ready(())
}

fn builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(limits.max_header_list)
        .max_pending_accept_reset_streams(limits.max_pending_resets)
        .max_local_error_reset_streams(limits.max_pending_resets)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    builder
}

/// Ends if no HTTP/2 preface came in time. Keepalive covers the rest of the connection's life.
async fn silence<S>(sender: &Sender<S>, timeout: Duration) {
    tokio::time::sleep(timeout).await;
    if sender.read() >= PREFACE {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_answer_leaves_the_place_and_the_connection_stays() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (places, shutdown) = (Arc::new(Semaphore::new(1)), CancellationToken::new());
        let serving = Serving::new(Routes::default(), Arc::default(), shutdown.clone());
        let caller = Caller::default();
        let work = |place| Box::pin(serve(ours, caller, serving, place, std::future::pending()));
        // Time stands still, so that nobody loses the place by it.
        tokio::time::pause();
        let client = async {
            let (executor, io) = (TokioExecutor::new(), TokioIo::new(theirs));
            let (mut client, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
            let connection = tokio::spawn(connection);
            assert_eq!(places.available_permits(), 0);
            let request = http::Request::new(String::new());
            client.send_request(request).await.unwrap();
            assert_eq!(places.available_permits(), 1);
            assert!(!connection.is_finished());
            shutdown.cancel();
        };
        tokio::join!(in_turn(&places, &shutdown, work), client);
    }
}
