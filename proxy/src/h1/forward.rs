//! Forwarding one granted request: find a connection, exchange, retry only where nothing can happen twice, keep the
//! connection if the exchange ended cleanly.

use std::sync::Arc;

use palisade_policies::AppProtocol;

use super::body::Framing;
use super::encode::{self, Outgoing, Sending};
use super::exchange::{Exchange, ExchangeError};
use super::relay::Relay;
use super::request::{RequestHead, is_idempotent};
use super::response::{ResponseError, ResponseHead};
use super::serve::Next;
use super::view::Settled;
use crate::certs::Alpn;
use crate::connect::{self, ConnectError, Connected};
use crate::endpoint::{Endpoint, InFlight};
use crate::grant::{self, Grant, Terms};
use crate::guard::{Cut, Guard};
use crate::leg::Leg;
use crate::reply::Reply;
use crate::session::Session;

/// Endpoints tried when connecting fails: nothing was sent yet, so that is always safe.
const CONNECT_TRIES: usize = 3;

/// What became of a request.
pub(crate) enum Forwarded {
    Next(Next),
    /// Nothing was answered yet: the caller answers this. `whole` says that the request's body is still unread.
    Answered {
        reply: Reply,
        whole: bool,
    },
}

/// An upstream connection in use.
struct Upstream {
    endpoint: Arc<Endpoint>,
    leg: Leg,
    connected: Connected,
    reused: bool,
    _in_flight: InFlight,
}

/// A request that was granted.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) session: &'a Session,
    pub(crate) head: &'a RequestHead,
    pub(crate) settled: &'a Settled<'a>,
    /// What authorization made of it.
    pub(crate) terms: Option<&'a Arc<Terms>>,
    /// Its trailers are forwarded.
    pub(crate) trailers: bool,
}

impl Request<'_> {
    /// Forwards it. The grant is spent with the status that the caller sees.
    pub(crate) async fn forward(&self, client: &mut Leg, response: &mut ResponseHead, grant: Grant) -> Forwarded {
        let (session, ask) = (self.session, self.settled.ask());
        let terms = self.terms();
        let mut denied = None;
        let mut denied_now = || {
            denied = grant::denied_now(session, &ask, terms);
            denied.is_some()
        };
        let mut guard = Guard::new(&session.open.signal, &mut denied_now);
        let mut exchange = self.exchange();
        match self.send(client, response, &mut guard, &mut exchange).await {
            Ok(upstream) => {
                let status = response.status;
                grant.spend(session, &ask, status);
                let (next, cut) = self.answer(client, response, upstream, exchange, &mut guard).await;
                if cut {
                    grant::record_cut(session, &ask, terms, denied, status);
                }
                Forwarded::Next(next)
            }
            Err(SendError::Exchange(ExchangeError::Cut(Cut::Denied))) => {
                let reply = grant::record_denied(session, &ask, terms, denied);
                Forwarded::Answered { reply, whole: exchange.body_untouched() }
            }
            Err(failure) => self.failed(&failure, grant, exchange.body_untouched()),
        }
    }

    fn terms(&self) -> Option<&Terms> {
        self.terms.map(Arc::as_ref)
    }

    /// There is no response, and the caller is told so, if it is still there.
    fn failed(&self, failure: &SendError, grant: Grant, whole: bool) -> Forwarded {
        let (session, ask) = (self.session, self.settled.ask());
        let (status, body) = failure.answer();
        if status == 0 {
            grant.spend(session, &ask, status);
            return Forwarded::Next(Next::Reset);
        }
        let reply = Reply::text(status, body).edited(grant::response_edits(self.terms()));
        grant.spend(session, &ask, reply.seen(grant::is_grpc(self.settled)));
        failure.note(session, body);
        Forwarded::Answered { reply, whole }
    }

    fn exchange(&self) -> Exchange {
        let exchange = Exchange::new(self.head.framing, self.head.method() == "HEAD", self.head.upgrade.is_some());
        exchange.trailing(self.trailers)
    }

    /// Sends the request until a response head came, on a fresh connection if a pooled one turned out to be dead.
    async fn send(
        &self,
        client: &mut Leg,
        response: &mut ResponseHead,
        guard: &mut Guard<'_>,
        exchange: &mut Exchange,
    ) -> Result<Upstream, SendError> {
        let (session, head) = (self.session, self.head);
        if matches!(session.protocol, AppProtocol::Http2 | AppProtocol::Grpc) {
            return Err(SendError::Http2Only);
        }
        let endpoint = session.endpoint(None).ok_or(SendError::NoEndpoint)?;
        let outgoing = self.outgoing();
        let idempotent = is_idempotent(outgoing.method);
        let cautious = !idempotent || head.framing != Framing::Length(0);
        let mut upstream = acquire(session, endpoint, cautious).await?;
        loop {
            encode::request(head, &outgoing, &mut upstream.leg.wbuf);
            match exchange.head(client, &mut upstream.leg, response, guard).await {
                Ok(()) if response.status != 101 || self.agreed(response) => return Ok(upstream),
                Ok(()) => return Err(ExchangeError::from(ResponseError("101 to another protocol")).into()),
                // The server closed an idle connection while we took it: it read nothing of this request's body, and
                // the request can be repeated by its method.
                Err(ExchangeError::NoAnswer(_)) if upstream.reused && idempotent && exchange.body_untouched() => {
                    *exchange = self.exchange();
                    upstream = fresh(session, upstream.endpoint).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The server switches to the protocol asked for, and to no other.
    fn agreed(&self, response: &ResponseHead) -> bool {
        let asked = self.head.upgrade.as_ref().map(|range| self.head.at(range));
        let mut named = response.values(b"upgrade");
        let agreed = named.next().zip(asked).is_some_and(|(named, asked)| named.eq_ignore_ascii_case(asked));
        agreed && named.next().is_none()
    }

    fn outgoing(&self) -> Outgoing<'_> {
        let changes = grant::changes(self.terms());
        let method = changes.and_then(|changes| changes.method.as_ref()).map(|method| method.as_str());
        let target = changes.and_then(|changes| changes.target.as_ref()).map(|target| target.as_str());
        let host = changes.and_then(|changes| changes.host.as_ref()).map(|host| host.as_str());
        Outgoing {
            method: method.unwrap_or(self.head.method()),
            target: target.or(self.settled.target.as_deref()).unwrap_or("/"),
            changes,
            host: host.unwrap_or(self.settled.host).as_bytes(),
            xfcc: self.settled.xfcc(),
            upgrade: self.head.upgrade.as_ref().map(|range| self.head.at(range)),
        }
    }

    /// Sends the response on. True when it was cut by policy.
    async fn answer(
        &self,
        client: &mut Leg,
        response: &ResponseHead,
        mut upstream: Upstream,
        mut exchange: Exchange,
        guard: &mut Guard<'_>,
    ) -> (Next, bool) {
        let edits = grant::response_edits(self.terms());
        if response.status == 101 {
            encode::switching(response, edits, &mut client.wbuf);
            return (Next::Tunnel(Box::new(upstream.leg), self.terms.cloned()), false);
        }
        let sending = self.sending(client, response, &exchange);
        encode::response(response, sending, self.head.http10, edits, &mut client.wbuf);
        let mut download = Relay::new(response.framing, sending.coding);
        if let Err(error) = exchange.body(client, &mut upstream.leg, &mut download, guard).await {
            upstream.leg.io.reset();
            return (Next::Reset, matches!(error, ExchangeError::Cut(Cut::Denied)));
        }
        let complete = exchange.upload_complete();
        if complete && response.keep_alive && upstream.leg.rbuf.is_empty() && !upstream.leg.eof {
            let core = &self.session.core;
            let keep = core.limits.pool_idle_timeout;
            upstream.endpoint.checkin(upstream.leg, upstream.connected, core.tick(), keep, response.idle_hint);
        }
        let again = complete && !sending.close && !client.eof;
        (if again { Next::Again } else { Next::Close }, false)
    }

    /// How the response is framed for this client, and whether the connection ends with it.
    fn sending(&self, client: &Leg, response: &ResponseHead, exchange: &Exchange) -> Sending {
        let coding = match response.framing {
            Framing::Length(n) => Framing::Length(n),
            // HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
            Framing::Chunked | Framing::UntilClose if self.head.http10 => Framing::UntilClose,
            Framing::Chunked | Framing::UntilClose => Framing::Chunked,
        };
        // After an upgrade that the server did not accept, what the client sent meanwhile is no request.
        let close = !self.head.keep_alive
            || coding == Framing::UntilClose
            || client.eof
            || self.head.upgrade.is_some()
            || !exchange.upload_complete()
            || self.session.is_ending();
        Sending { coding, close }
    }
}

/// Why there is no response head.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("service has no endpoint")]
    NoEndpoint,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("the service speaks HTTP/2 only")]
    Http2Only,
}

impl SendError {
    /// Status and reason for the caller; 0 where there is nobody to answer.
    fn answer(&self) -> (u16, &'static str) {
        match self {
            SendError::NoEndpoint => (503, "no-endpoint"),
            SendError::Connect(error) => (503, error.reason()),
            SendError::Exchange(ExchangeError::RequestBody(_)) => (400, "request-body"),
            SendError::Exchange(ExchangeError::NoAnswer(_)) => (503, "upstream-reset"),
            SendError::Exchange(ExchangeError::Upstream(_) | ExchangeError::Response(_)) => (502, "upstream-response"),
            SendError::Exchange(ExchangeError::Client(_) | ExchangeError::Cut(_)) => (0, "client-gone"),
            SendError::Http2Only => (505, "http2-only"),
        }
    }

    fn note(&self, session: &Session, reason: &'static str) {
        session.core.metrics.upstream_failure(reason);
        let source = std::error::Error::source(self).map(ToString::to_string);
        tracing::debug!(error = %self, source, reason, "request failed upstream");
    }
}

async fn acquire(session: &Session, endpoint: Arc<Endpoint>, cautious: bool) -> Result<Upstream, ConnectError> {
    let core = &session.core;
    match endpoint.checkout(core.certs.number(), core.tick(), core.now(), cautious) {
        Some(idle) => {
            let connected = Connected { epoch: idle.epoch, expires: idle.expires };
            let _in_flight = endpoint.begin();
            Ok(Upstream { endpoint, leg: idle.leg, connected, reused: true, _in_flight })
        }
        None => fresh(session, endpoint).await,
    }
}

/// Opens a connection, to another endpoint of the service if this one cannot be reached.
async fn fresh(session: &Session, mut endpoint: Arc<Endpoint>) -> Result<Upstream, ConnectError> {
    let mut tries = 1;
    loop {
        let _in_flight = endpoint.begin();
        match connect::open(&session.core, &endpoint, Alpn::IstioHttp1).await {
            Ok((stream, connected)) => {
                let leg = Leg::new(stream, bytes::BytesMut::new());
                return Ok(Upstream { endpoint, leg, connected, reused: false, _in_flight });
            }
            Err(error) => {
                let other = session.endpoint(Some(&endpoint)).filter(|other| !Arc::ptr_eq(other, &endpoint));
                match other {
                    Some(other) if tries < CONNECT_TRIES => endpoint = other,
                    _ => return Err(error),
                }
                tries += 1;
            }
        }
    }
}
