//! Opaque connections: decided once, before anything is opened, and again whenever policy changes.
//!
//! On a port whose protocol is detected, no HTTP passes as bytes: requests are decided one by one, and identity fields in
//! them are ours.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use palisade_authz::{Decision, Denial, Permit, reason};
use palisade_policies::AppProtocol;

use crate::certs::Alpn;
use crate::connect::{self, ConnectError};
use crate::endpoint::Endpoint;
use crate::first_line::FirstLine;
use crate::guard::{Cut, Guard};
use crate::leg::Leg;
use crate::party::{Party, Went};
use crate::session::Session;
use crate::snapshot::ProxySnapshot;
use crate::stream::Stream;
use crate::tunnel::{self, End};

/// Carries a connection. It is given back if it turned out to be HTTP before anything was carried.
pub(crate) async fn serve(session: &Session, client: Leg) -> Option<Leg> {
    let permit = match &session.party {
        Some(party) => match decide(session, party).await {
            Some(permit) => Some(permit),
            None => {
                client.io.reset();
                return None;
            }
        },
        None => None,
    };
    let began = Instant::now();
    let opened = open(session).await;
    if let (Some((permit, snapshot)), Some(party)) = (permit, &session.party) {
        permit.spend(&*session.core.sink, party.tcp_facts(&snapshot, Went { status: 0, began }));
    }
    match opened {
        Ok((upstream, endpoint)) => {
            let _in_flight = endpoint.begin();
            carry(session, client, Leg::new(upstream, BytesMut::new())).await
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
async fn decide(session: &Session, party: &Party) -> Option<(Permit, Arc<ProxySnapshot>)> {
    if !session.core.sink.has_room() {
        session.core.sink.room().await;
    }
    let Some(snapshot) = session.core.snapshot.load_full() else {
        party.refuse(&session.core, reason::NO_SNAPSHOT);
        return None;
    };
    match party.decide_tcp(&snapshot) {
        Decision::Allow(permit) => Some((permit, snapshot)),
        Decision::Deny(denial) => {
            session.core.metrics.refused("denied");
            let facts = party.tcp_facts(&snapshot, Went { status: 0, began: Instant::now() });
            denial.record(&*session.core.sink, facts);
            None
        }
    }
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

async fn carry(session: &Session, client: Leg, upstream: Leg) -> Option<Leg> {
    let mut denied = None;
    let mut denied_now = || {
        denied = judge_again(session);
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

fn judge_again(session: &Session) -> Option<(Denial, Arc<ProxySnapshot>)> {
    let party = session.party.as_ref()?;
    let snapshot = session.core.snapshot.load_full()?;
    match party.decide_tcp(&snapshot) {
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
