//! Opaque connections: decided once, before anything is opened, and again whenever policy changes.
//!
//! Envoy decides with the first bytes of the client, so that a server that speaks first is heard even by who is denied.
//! Here nobody is: a connection is decided when it is made, and a provider is asked before a byte passes either way.
//!
//! On a port whose protocol is detected, no HTTP passes as bytes: requests are decided one by one, and identity fields in
//! them are ours.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;
use palisade_authz::gate::Standing;
use palisade_authz::{Decision, Denial, Permit, reason};
use palisade_policies::AppProtocol;

use crate::certs::Alpn;
use crate::connect::{self, ConnectError};
use crate::endpoint::Endpoint;
use crate::first_line::FirstLine;
use crate::guard::{Cut, Guard};
use crate::leg::{Leg, WRITE_HIGH};
use crate::live::CUT;
use crate::party::{Party, Went};
use crate::session::Session;
use crate::snapshot::ProxySnapshot;
use crate::stream::Stream;
use crate::tunnel::{self, End};

/// What a connection was let in by.
struct Entrance {
    permit: Permit,
    snapshot: Arc<ProxySnapshot>,
    standing: Standing,
}

/// Carries a connection. It is given back if it turned out to be HTTP before anything was carried.
pub(crate) async fn serve(session: &Session, mut client: Leg) -> Option<Leg> {
    let mut standing = Standing::default();
    let mut permit = None;
    if let Some(party) = &session.party {
        let Some(entrance) = decide(session, party, &mut client).await else {
            client.io.reset();
            return None;
        };
        standing = entrance.standing;
        permit = Some((entrance.permit, entrance.snapshot));
    }
    let began = Instant::now();
    let opened = open(session).await;
    if let (Some((permit, snapshot)), Some(party)) = (permit, &session.party) {
        permit.spend(&*session.core.sink, party.tcp_facts(&snapshot, Went { status: 0, began }));
    }
    match opened {
        Ok((upstream, endpoint)) => {
            let _in_flight = endpoint.begin();
            carry(session, client, Leg::new(upstream, BytesMut::new()), &standing).await
        }
        Err(error) => {
            session.core.metrics.upstream_failure(error.as_ref().map_or("no-endpoint", ConnectError::reason));
            tracing::debug!(error = error.map(|e| e.to_string()), "connection failed upstream");
            client.io.reset();
            None
        }
    }
}

/// The connection is registered already: a change of policy from here on raises its signal.
async fn decide(session: &Session, party: &Party, client: &mut Leg) -> Option<Entrance> {
    if !session.core.sink.has_room() {
        session.core.sink.room().await;
    }
    let Some(snapshot) = session.core.snapshot.load_full() else {
        party.refuse(&session.core, reason::NO_SNAPSHOT);
        return None;
    };
    let judged = if snapshot.tcp.is_plain() {
        match party.judge_tcp_again(&snapshot, &Standing::default()) {
            Decision::Allow(permit) => Ok((permit, Standing::default())),
            Decision::Deny(denial) => Err(denial),
        }
    } else {
        Box::pin(ask(session, party, &snapshot, client)).await?
    };
    match judged {
        Ok((permit, standing)) => {
            // A policy that came while a provider was asked decides before anything is opened.
            let changed = session.core.snapshot.load().as_ref().is_none_or(|newest| !Arc::ptr_eq(newest, &snapshot));
            match changed.then(|| judge_again(session, &standing)).flatten() {
                None => Some(Entrance { permit, snapshot, standing }),
                denied => {
                    record_cut(session, denied);
                    None
                }
            }
        }
        Err(denial) => {
            session.core.metrics.refused("denied");
            let facts = party.tcp_facts(&snapshot, Went { status: 0, began: Instant::now() });
            denial.record(&*session.core.sink, facts);
            None
        }
    }
}

/// Judges the connection for as long as its client stays. None when it left: nothing was decided then.
async fn ask(
    session: &Session,
    party: &Party,
    snapshot: &ProxySnapshot,
    client: &mut Leg,
) -> Option<Result<(Permit, Standing), Denial>> {
    let mut judging = pin!(party.judge_tcp(snapshot, session.core.wall_time()));
    poll_fn(|cx| {
        if session.open.signal.poll(cx) & CUT != 0 {
            return Poll::Ready(None);
        }
        if let Poll::Ready(judged) = judging.as_mut().poll(cx) {
            return Poll::Ready(Some(judged));
        }
        // What the client says meanwhile is kept for later; a half-closed client still listens.
        while !client.eof && client.rbuf.len() < WRITE_HIGH {
            match client.poll_fill(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(None),
            }
        }
        Poll::Pending
    })
    .await
}

async fn open(session: &Session) -> Result<(Stream, Arc<Endpoint>), Option<ConnectError>> {
    let mut endpoint = session.endpoint(None).ok_or(None)?;
    match connect::open(&session.core, &endpoint, Alpn::Istio).await {
        Ok((stream, _)) => Ok((stream, endpoint)),
        Err(error) => {
            let other = session.endpoint(Some(&endpoint)).filter(|other| !Arc::ptr_eq(other, &endpoint));
            endpoint = other.ok_or(Some(error))?;
            let (stream, _) = connect::open(&session.core, &endpoint, Alpn::Istio).await.map_err(Some)?;
            Ok((stream, endpoint))
        }
    }
}

async fn carry(session: &Session, client: Leg, upstream: Leg, standing: &Standing) -> Option<Leg> {
    let mut denied = None;
    let mut denied_now = || {
        denied = judge_again(session, standing);
        denied.is_some()
    };
    let mut guard = Guard::ending_at_drain(&session.open.signal, &mut denied_now, &session.core.draining);
    let first = (session.protocol == AppProtocol::Detect).then(FirstLine::default);
    let (end, carried) = tunnel::run(client, upstream, first, &mut guard).await;
    session.core.metrics.carried(session.direction(), carried);
    match end {
        End::Cut(Cut::Denied) => record_cut(session, denied),
        End::Cut(Cut::Told) => session.record_strict_cut(),
        End::Reset(error) => tracing::debug!(%error, "connection reset"),
        End::Http(Some(client)) => return Some(*client),
        End::Http(None) => match &session.party {
            Some(party) => party.refuse(&session.core, reason::HTTP_UNDETECTED),
            None => session.core.metrics.refused(reason::HTTP_UNDETECTED),
        },
        End::Finished => {}
    }
    None
}

fn judge_again(session: &Session, standing: &Standing) -> Option<(Denial, Arc<ProxySnapshot>)> {
    let party = session.party.as_ref()?;
    let snapshot = session.core.snapshot.load_full()?;
    match party.judge_tcp_again(&snapshot, standing) {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some((denial, snapshot)),
    }
}

fn record_cut(session: &Session, denied: Option<(Denial, Arc<ProxySnapshot>)>) {
    session.core.metrics.policy_cuts.inc();
    if let (Some((denial, snapshot)), Some(party)) = (denied, &session.party) {
        let facts = party.tcp_facts(&snapshot, Went { status: 0, began: Instant::now() });
        denial.record_as(reason::POLICY_CHANGED, &*session.core.sink, facts);
    }
}
