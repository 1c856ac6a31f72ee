//! HTTP/2 by hyper: requests are decided like HTTP/1.1 ones, and carried over HTTP/2 (or HTTP/1.1 where the application
//! wants only that).

mod body;
mod early;
mod pool;
mod request;
mod upload;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use palisade_authz::Denial;
use palisade_policies::AppProtocol;

use self::body::{Body, Watched};
use self::early::Early;
pub(crate) use self::pool::H2Pool;
use self::request::{Owned, Refusal};
use self::upload::Upload;
use crate::grant::{self, Grant, Refused, Terms};
use crate::guard::{Cut, Guard};
use crate::leg::Leg;
use crate::live::{CUT, DRAIN, Entry, Open};
use crate::metrics::Outcome;
use crate::reply::{self, Reply};
use crate::rewind::Rewind;
use crate::session::Session;
use crate::snapshot::ProxySnapshot;

/// Windows as ztunnel's: one stalled stream cannot starve the rest of its connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Serves an HTTP/2 connection to its end.
pub(crate) async fn serve(session: &Session, leg: Leg) {
    let shared = Arc::new(Shared { session: session.clone() });
    let limits = &session.core.limits;
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .auto_date_header(false);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Rewind::of(leg)), service));
    let mut draining = false;
    let ended = poll_fn(|cx| {
        let flags = session.open.signal.poll(cx);
        if flags & CUT != 0 {
            return Poll::Ready(Ok(()));
        }
        if flags & DRAIN != 0 && !draining {
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "http/2 connection ended");
    }
    session.record_strict_cut();
}

/// What the streams of a connection share; they run in tasks of their own.
pub(crate) struct Shared {
    pub(crate) session: Session,
}

async fn answer(shared: &Arc<Shared>, request: http::Request<Incoming>) -> Response<Body> {
    let session = &shared.session;
    let to_head = request.method() == Method::HEAD;
    // Registered before it is decided, so that no change of policy passes it by.
    let open = session.party.as_ref().map(|party| {
        let entry = Entry::new(Some(party.port), party.is_plaintext(), u64::MAX);
        session.core.live.open(Arc::new(entry))
    });
    let snapshot = session.party.as_ref().and_then(|_| session.core.snapshot.load_full());
    let (owned, body) = match Owned::of(session, snapshot.as_deref(), request) {
        Ok(settled) => settled,
        Err(Refusal { status, reason }) => {
            session.core.metrics.request(session.direction(), Outcome::Refused, status.as_u16());
            return own(&Reply::text(status.as_u16(), reason), false, to_head);
        }
    };
    // The stream's own signal where it has one: the connection's wakes the task of the connection.
    let signal = open.as_ref().map_or(&session.open.signal, |open| &open.signal);
    let caller = Early::new(signal, body);
    let granted = grant::http(session, snapshot, &owned.ask(), &caller).await;
    let body = caller.into_upload();
    let reply = match granted {
        Ok(grant) => return forwarded(shared, owned, body, open, grant).await,
        Err(Refused::Denied(reply)) => reply,
        Err(Refused::NoSnapshot) => grant::no_snapshot(),
        Err(Refused::Late) => grant::late(),
        Err(Refused::Malformed | Refused::Gone) => Reply::text(400, "request-body"),
    };
    own(&reply, grant::is_grpc(&owned), to_head)
}

async fn forwarded(
    shared: &Arc<Shared>,
    owned: Owned,
    body: Upload,
    open: Option<Open>,
    grant: Grant,
) -> Response<Body> {
    let session = &shared.session;
    let (terms, is_grpc, to_head) = (grant.terms.clone(), grant::is_grpc(&owned), owned.parts.method == Method::HEAD);
    if owned.parts.method == Method::CONNECT {
        grant.spend(session, &owned.ask(), 405);
        return own(&Reply::text(405, "CONNECT is not served here"), false, false);
    }
    let body = body.trailing(grant.trailers());
    let (sent, denied) = watched_send(session, &owned, terms.as_deref(), body, open.as_ref()).await;
    let reason = match sent {
        Ok(Ok(response)) => {
            grant.spend(session, &owned.ask(), response.status().as_u16());
            return relayed(shared, owned, terms, response, open);
        }
        Ok(Err(reason)) => {
            session.core.metrics.upstream_failure(reason);
            reason
        }
        Err(Cut::Denied) => {
            let reply = grant::record_denied(session, &owned.ask(), terms.as_deref(), denied);
            return own(&reply, is_grpc, to_head);
        }
        Err(Cut::Told) => "closing",
    };
    let reply = Reply::text(503, reason).edited(grant::response_edits(terms.as_deref()));
    grant.spend(session, &owned.ask(), reply.seen(is_grpc));
    own(&reply, is_grpc, to_head)
}

/// Sends the request while policy is watched; what denied it meanwhile comes along.
async fn watched_send(
    session: &Session,
    owned: &Owned,
    terms: Option<&Terms>,
    body: Upload,
    open: Option<&Open>,
) -> (Result<Result<Response<Incoming>, &'static str>, Cut>, Option<(Denial, Arc<ProxySnapshot>)>) {
    let mut denied = None;
    let mut denied_now = || {
        denied = grant::denied_now(session, &owned.ask(), terms);
        denied.is_some()
    };
    let signal = open.map_or(&session.open.signal, |open| &open.signal);
    let mut guard = Guard::new(signal, &mut denied_now);
    let mut sending = pin!(send(session, owned, terms, body));
    let sent = poll_fn(|cx| match guard.poll(cx) {
        Some(cut) => Poll::Ready(Err(cut)),
        None => sending.as_mut().poll(cx).map(Ok),
    })
    .await;
    (sent, denied)
}

/// Sends the request on; the error is the reason why there is no response.
async fn send(
    session: &Session,
    owned: &Owned,
    terms: Option<&Terms>,
    body: Upload,
) -> Result<Response<Incoming>, &'static str> {
    let endpoint = session.endpoint(None).ok_or("no-endpoint")?;
    let _in_flight = endpoint.begin();
    let http1 = session.protocol == AppProtocol::Http1;
    let request = owned.outgoing(body, grant::changes(terms), http1, endpoint.key.identity.is_some());
    if http1 {
        return pool::http1(&session.core, &endpoint, request).await;
    }
    endpoint.h2.request(&session.core, &endpoint, request).await
}

/// The response as the client gets it; a body that goes on is watched, because policy may change under it.
fn relayed(
    shared: &Arc<Shared>,
    owned: Owned,
    terms: Option<Arc<Terms>>,
    response: Response<Incoming>,
    open: Option<Open>,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        parts.headers.remove(name);
    }
    if let Some(edits) = grant::response_edits(terms.as_deref()) {
        reply::edit(&mut parts.headers, edits);
    }
    let body =
        if body.is_end_stream() { Body::Plain(body) } else { Watched::body(shared.clone(), owned, terms, body, open) };
    parts.version = http::Version::HTTP_2;
    Response::from_parts(parts, body)
}

/// An answer of our own; to HEAD without its body, which is only described.
fn own(reply: &Reply, is_grpc: bool, to_head: bool) -> Response<Body> {
    let body = reply.body(is_grpc);
    let length = to_head.then(|| HeaderValue::from(body.len()));
    let mut response = Response::new(if to_head || body.is_empty() { Body::Empty } else { Body::Whole(body) });
    response.headers_mut().extend(length.map(|length| (header::CONTENT_LENGTH, length)));
    *response.status_mut() = StatusCode::from_u16(reply.seen(is_grpc)).unwrap_or(StatusCode::FORBIDDEN);
    reply.for_each(is_grpc, |name, value| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            response.headers_mut().append(name, value);
        }
    });
    response
}
