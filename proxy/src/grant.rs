//! Leave to forward: what an inbound request holds between its decision and its outcome.
//!
//! The permit is taken by value and spent with the status the caller saw; an outbound request needs none, because the
//! deciding proxy is the other one.

use std::sync::Arc;
use std::time::Instant;

use palisade_authz::{Decision, Denial, Permit, reason};

use crate::metrics::Outcome;
use crate::party::{Ask, Party, Went};
use crate::session::Session;
use crate::snapshot::ProxySnapshot;

/// Leave to forward one request.
#[derive(Debug)]
pub(crate) struct Grant {
    /// What decided it; none outbound.
    permit: Option<(Permit, Arc<ProxySnapshot>)>,
    began: Instant,
}

/// Why a request is not forwarded.
#[derive(Debug)]
pub(crate) enum Refused {
    /// By policy. Recorded.
    Denied,
    /// Nothing to decide by.
    NoSnapshot,
}

/// Decides an HTTP request on the one snapshot it was settled on; a denial is recorded before it returns. A newer
/// snapshot that comes meanwhile raises the connection's signal, and the request is judged again.
pub(crate) async fn http(
    session: &Session,
    snapshot: Option<Arc<ProxySnapshot>>,
    ask: &Ask<'_>,
) -> Result<Grant, Refused> {
    let began = Instant::now();
    let Some(party) = &session.party else { return Ok(Grant { permit: None, began }) };
    if !session.core.sink.has_room() {
        session.core.sink.room().await;
    }
    decide(session, party, snapshot, ask, began)
}

fn decide(
    session: &Session,
    party: &Party,
    snapshot: Option<Arc<ProxySnapshot>>,
    ask: &Ask<'_>,
    began: Instant,
) -> Result<Grant, Refused> {
    party.count_request();
    let Some(snapshot) = snapshot else {
        party.refuse(&session.core, reason::NO_SNAPSHOT);
        return Err(Refused::NoSnapshot);
    };
    match party.decide_http(&snapshot, ask) {
        Decision::Allow(permit) => Ok(Grant { permit: Some((permit, snapshot)), began }),
        Decision::Deny(denial) => {
            let went = Went { status: denied_status(ask), began };
            denial.record(&*session.core.sink, party.http_facts(&snapshot, ask, went));
            Err(Refused::Denied)
        }
    }
}

/// gRPC clients understand a denial only inside HTTP 200.
fn denied_status(ask: &Ask<'_>) -> u16 {
    if is_grpc(ask) { 200 } else { 403 }
}

/// Whether the request is gRPC, by its content type.
pub(crate) fn is_grpc(ask: &Ask<'_>) -> bool {
    let mut grpc = false;
    ask.headers.for_each("content-type", &mut |value| grpc |= value.starts_with(b"application/grpc"));
    grpc
}

impl Grant {
    /// The outcome is known: writes the request's one record and counts it.
    pub(crate) fn spend(self, session: &Session, ask: &Ask<'_>, status: u16) {
        session.core.metrics.request(session.direction(), Outcome::Allow, status);
        if let (Some((permit, snapshot)), Some(party)) = (self.permit, &session.party) {
            permit.spend(&*session.core.sink, party.http_facts(&snapshot, ask, Went { status, began: self.began }));
        }
    }
}

/// A request under way, judged again on the newest snapshot.
pub(crate) fn denied_now(session: &Session, ask: &Ask<'_>) -> Option<(Denial, Arc<ProxySnapshot>)> {
    let party = session.party.as_ref()?;
    let snapshot = session.core.snapshot.load_full()?;
    match party.decide_http(&snapshot, ask) {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some((denial, snapshot)),
    }
}

/// Records that something let in before was ended because it is denied now.
pub(crate) fn record_cut(session: &Session, ask: &Ask<'_>, denied: Option<(Denial, Arc<ProxySnapshot>)>, status: u16) {
    session.core.metrics.policy_cuts.inc();
    if let (Some((denial, snapshot)), Some(party)) = (denied, &session.party) {
        let facts = party.http_facts(&snapshot, ask, Went { status, began: Instant::now() });
        denial.record_as(reason::POLICY_CHANGED, &*session.core.sink, facts);
    }
}

/// The same before anything was answered: the caller sees a denial, and the request counts as denied.
pub(crate) fn record_denied(session: &Session, ask: &Ask<'_>, denied: Option<(Denial, Arc<ProxySnapshot>)>) {
    let status = denied_status(ask);
    session.core.metrics.request(session.direction(), Outcome::Deny, status);
    record_cut(session, ask, denied, status);
}
