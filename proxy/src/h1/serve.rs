//! The life of one HTTP/1.1 connection from a caller: read a head, have it decided, forward it, answer, again.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use palisade_policies::PathNormalization;
use tokio::time::{Instant, sleep_until};

use super::body::{Framing, Piece, Reader};
use super::early::Early;
use super::encode::{self, Shape};
use super::forward::{Forwarded, Request};
use super::request::{HeadError, RequestHead, head_end, leading_blank};
use super::response::ResponseHead;
use super::view::Settled;
use crate::grant::{self, Refused, Terms};
use crate::guard::Guard;
use crate::leg::Leg;
use crate::live::{CUT, DRAIN};
use crate::metrics::Outcome;
use crate::reply::Reply;
use crate::session::Session;
use crate::tunnel;

/// How long a closing connection is still read, so that its last response arrives.
const LINGER: Duration = Duration::from_secs(1);
/// Bodies up to this size are read and thrown away after a refusal, to keep the connection.
const DISCARD: u64 = 64 * 1024;

/// What follows a request.
pub(crate) enum Next {
    /// Another request.
    Again,
    /// Say goodbye.
    Close,
    /// Nothing may look complete: reset.
    Reset,
    /// The connection became a tunnel to this upstream, on these terms.
    Tunnel(Box<Leg>, Option<Arc<Terms>>),
}

/// Buffers that go from request to request.
#[derive(Debug, Default)]
struct Heads {
    request: RequestHead,
    response: ResponseHead,
    /// How the path of the request was normalised: as its snapshot said. None outbound.
    mode: Option<PathNormalization>,
}

/// The request in the form it is decided and forwarded in.
fn settled<'a>(
    session: &'a Session,
    head: &'a RequestHead,
    mode: Option<PathNormalization>,
) -> Result<Settled<'a>, HeadError> {
    let party = session.party.as_ref();
    Settled::of(head, mode, party.and_then(|party| party.xfcc.as_deref()), party.map_or("http", |party| party.scheme))
}

/// Serves a connection until it ends.
pub(crate) async fn serve(session: &Session, mut leg: Leg) {
    let mut heads = Heads::default();
    let mut first = true;
    loop {
        match read_head(session, &mut leg, &mut heads.request, first).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                refuse_head(session, &mut leg, error);
                break;
            }
        }
        first = false;
        match turn(session, &mut leg, &mut heads).await {
            Next::Again => {}
            Next::Close => break,
            Next::Reset => {
                leg.io.reset();
                return session.record_strict_cut();
            }
            Next::Tunnel(upstream, terms) => return upgraded(session, leg, *upstream, &heads, terms.as_deref()).await,
        }
    }
    session.record_strict_cut();
    leg.close(LINGER).await;
}

/// Reads until a head is complete. False when the connection ended or has to end between requests.
async fn read_head(session: &Session, leg: &mut Leg, head: &mut RequestHead, first: bool) -> Result<bool, HeadError> {
    let mut searched = 0;
    let mut deadline = (first && leg.rbuf.is_empty()).then(|| Instant::now() + session.core.limits.header_timeout);
    if leg.rbuf.is_empty() {
        leg.release();
        session.open.idle_since.store(session.core.tick().max(1), Ordering::Relaxed);
    }
    loop {
        let blank = leading_blank(&leg.rbuf);
        leg.rbuf.advance(blank);
        if let Some(end) = head_end(&leg.rbuf, searched) {
            if end > session.core.limits.max_head {
                return Err(HeadError { status: 431, reason: "head-too-long" });
            }
            session.open.idle_since.store(0, Ordering::Relaxed);
            head.read(leg.rbuf.get(..end).unwrap_or_default())?;
            leg.rbuf.advance(end);
            return Ok(true);
        }
        searched = leg.rbuf.len();
        // What cannot begin a method will not become a request: no deadline is waited for.
        if leg.rbuf.first().is_some_and(|byte| !byte.is_ascii_uppercase() && *byte != b'\r') {
            return Err(HeadError { status: 400, reason: "method" });
        }
        if searched > session.core.limits.max_head {
            return Err(HeadError { status: 431, reason: "head-too-long" });
        }
        if searched > 0 && deadline.is_none() {
            deadline = Some(Instant::now() + session.core.limits.header_timeout);
        }
        match fill(session, leg, deadline).await {
            Some(Ok(n)) if n > 0 => {}
            Some(_) => return Ok(false),
            None if leg.rbuf.is_empty() => return Ok(false),
            None => return Err(HeadError { status: 408, reason: "head-timeout" }),
        }
    }
}

/// Reads once; none when the time is over or the connection has to end.
async fn fill(session: &Session, leg: &mut Leg, deadline: Option<Instant>) -> Option<io::Result<usize>> {
    let signal = &session.open.signal;
    let read = poll_fn(|cx| {
        let flags = signal.poll(cx);
        // Bytes that came count, even in the moment of a drain: their request is served and then the connection closes.
        match leg.poll_fill(cx) {
            Poll::Ready(_) if flags & CUT != 0 => Poll::Ready(None),
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending if flags & CUT != 0 || (flags & DRAIN != 0 && leg.rbuf.is_empty()) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    match deadline {
        None => read.await,
        Some(deadline) => {
            tokio::select! {
                biased;
                read = read => read,
                () = sleep_until(deadline) => None,
            }
        }
    }
}

async fn turn(session: &Session, leg: &mut Leg, heads: &mut Heads) -> Next {
    let head = &heads.request;
    let snapshot = session.party.as_ref().and_then(|_| session.core.snapshot.load_full());
    heads.mode =
        session.party.as_ref().map(|_| snapshot.as_ref().map(|now| now.mesh.path_normalization).unwrap_or_default());
    let settled = match settled(session, head, heads.mode) {
        Ok(settled) => settled,
        Err(error) => {
            refuse_head(session, leg, error);
            return Next::Close;
        }
    };
    let ask = settled.ask();
    let caller = Early::new(&session.open.signal, leg, head);
    let granted = grant::http(session, snapshot, &ask, &caller).await;
    caller.put_back();
    match granted {
        Ok(grant) if ask.target.is_none() => {
            grant.spend(session, &ask, 405);
            refuse(session, leg, head, &Reply::text(405, "CONNECT is not served here"), true).await
        }
        Ok(grant) => {
            let terms = grant.terms.clone();
            let (terms, trailers) = (terms.as_ref(), grant.trailers());
            let request = Request { session, head, settled: &settled, terms, trailers };
            match request.forward(leg, &mut heads.response, grant).await {
                Forwarded::Next(next) => next,
                Forwarded::Answered { reply, whole } => refuse(session, leg, head, &reply, whole).await,
            }
        }
        Err(Refused::Denied(reply)) => refuse(session, leg, head, &reply, true).await,
        Err(Refused::NoSnapshot) => refuse(session, leg, head, &grant::no_snapshot(), true).await,
        Err(Refused::Malformed) => refuse(session, leg, head, &Reply::text(400, "request-body"), false).await,
        Err(Refused::Late) => refuse(session, leg, head, &grant::late(), false).await,
        Err(Refused::Gone) => Next::Reset,
    }
}

/// Answers a head that is not served. Its body is not understood, so the connection ends.
fn refuse_head(session: &Session, leg: &mut Leg, error: HeadError) {
    tracing::debug!(reason = error.reason, status = error.status, "request refused");
    session.core.metrics.request(session.direction(), Outcome::Refused, error.status);
    let shape = Shape { close: true, ..Shape::default() };
    encode::reply(&Reply::text(error.status, error.reason), shape, &mut leg.wbuf);
}

/// Answers in place of the upstream. A small body that nobody began to read (`whole`) is read to keep the connection;
/// otherwise nobody knows where the next request begins.
async fn refuse(session: &Session, leg: &mut Leg, head: &RequestHead, reply: &Reply, whole: bool) -> Next {
    let discarded = whole && !head.expects_continue && discard(leg, head.framing).await;
    let keep = discarded && head.keep_alive && !leg.eof && head.upgrade.is_none() && !session.is_ending();
    let shape = Shape { grpc: grant::is_grpc(head), close: !keep, to_head: head.method() == "HEAD" };
    encode::reply(reply, shape, &mut leg.wbuf);
    match leg.flush().await {
        Ok(()) if keep => Next::Again,
        Ok(()) => Next::Close,
        Err(_) => Next::Reset,
    }
}

/// Reads the body to its end if it is small and comes soon.
async fn discard(leg: &mut Leg, framing: Framing) -> bool {
    if matches!(framing, Framing::Length(n) if n > DISCARD) {
        return false;
    }
    let mut reader = Reader::new(framing);
    let mut left = DISCARD as usize;
    let discarding = async {
        loop {
            match reader.next(&mut leg.rbuf) {
                Ok(Piece::End(_)) => return true,
                Ok(Piece::Data(n)) if n <= left => {
                    left -= n;
                    leg.rbuf.advance(n);
                    reader.took(n);
                }
                Ok(Piece::Need) => match poll_fn(|cx| leg.poll_fill(cx)).await {
                    Ok(n) if n > 0 => {}
                    _ => return false,
                },
                _ => return false,
            }
        }
    };
    tokio::time::timeout(LINGER, discarding).await.unwrap_or(false)
}

/// Carries an upgraded connection. It was decided as the request it began as, and is judged again as that.
async fn upgraded(session: &Session, mut leg: Leg, upstream: Leg, heads: &Heads, terms: Option<&Terms>) {
    if leg.flush().await.is_err() {
        return upstream.io.reset();
    }
    let Ok(settled) = settled(session, &heads.request, heads.mode) else { return upstream.io.reset() };
    let ask = settled.ask();
    let mut denied = None;
    let mut denied_now = || {
        denied = grant::denied_now(session, &ask, terms);
        denied.is_some()
    };
    let mut guard = Guard::new(&session.open.signal, &mut denied_now);
    let (end, carried) = tunnel::run(leg, upstream, None, &mut guard).await;
    session.core.metrics.carried(session.direction(), carried);
    match end {
        tunnel::End::Cut(crate::guard::Cut::Denied) => grant::record_cut(session, &ask, terms, denied, 101),
        tunnel::End::Cut(crate::guard::Cut::Told) => session.record_strict_cut(),
        tunnel::End::Finished | tunnel::End::Reset(_) | tunnel::End::Http(_) => {}
    }
}
