//! Leave to forward: what an inbound request holds between its decision and its outcome.
//!
//! The permit is taken by value and spent with the status the caller saw; an outbound request needs none, because the
//! deciding proxy is the other one. Where no CUSTOM policy and no RequestAuthentication is attached, which is what most
//! requests meet, the decision is made in place; otherwise it may wait for a provider or for the keys of a token.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use palisade_authz::gate::{Judgement, Standing};
use palisade_authz::provider::ResponseEdits;
use palisade_authz::{Decision, Denial, Headers, Permit, reason};

use crate::edits::{Changes, Unfit};
use crate::metrics::Outcome;
use crate::party::{Ask, Party, Went};
use crate::reply::Reply;
use crate::session::Session;
use crate::snapshot::ProxySnapshot;
use crate::waiting::{self, Body, Caller, Left};

/// Leave to forward one request.
#[derive(Debug)]
pub(crate) struct Grant {
    /// What decided it; none outbound.
    permit: Option<(Permit, Arc<ProxySnapshot>)>,
    began: Instant,
    /// None where policy alone decided.
    pub(crate) terms: Option<Arc<Terms>>,
}

/// What authorization made of a request besides letting it pass; kept for as long as the request is under way.
#[derive(Debug)]
pub(crate) struct Terms {
    /// What providers and tokens said, for judging again.
    pub(crate) standing: Standing,
    /// What changes in the request.
    pub(crate) changes: Changes,
    /// What changes in the response.
    response: ResponseEdits,
}

/// Why a request is not forwarded.
#[derive(Debug)]
pub(crate) enum Refused {
    /// By policy, a provider, or for its token. Recorded and counted.
    Denied(Reply),
    /// Nothing to decide by.
    NoSnapshot,
    /// The body that a provider wanted to see is framed wrongly.
    Malformed,
    /// The body that a provider wanted to see did not come.
    Late,
    /// The caller went away, or has to, while something was waited for.
    Gone,
}

/// The answer while there is no snapshot.
pub(crate) const fn no_snapshot() -> Reply {
    Reply::text(503, "no-snapshot: the proxy has no policy yet")
}

/// The answer to whoever announced a body and does not send it.
pub(crate) const fn late() -> Reply {
    Reply::text(408, "request-body-timeout")
}

/// Decides an HTTP request on the one snapshot it was settled on; a denial is recorded before it returns. A newer
/// snapshot that comes meanwhile raises the connection's signal, and the request is judged again.
pub(crate) async fn http(
    session: &Session,
    snapshot: Option<Arc<ProxySnapshot>>,
    ask: &Ask<'_>,
    caller: &dyn Caller,
) -> Result<Grant, Refused> {
    let began = Instant::now();
    let Some(party) = &session.party else { return Ok(Grant { permit: None, began, terms: None }) };
    if !session.core.sink.has_room() {
        session.core.sink.room().await;
    }
    party.count_request();
    let Some(snapshot) = snapshot else {
        party.refuse(&session.core, reason::NO_SNAPSHOT);
        session.core.metrics.request(session.direction(), Outcome::Refused, no_snapshot().seen(is_grpc(ask.headers)));
        return Err(Refused::NoSnapshot);
    };
    let this = Asking { session, party, snapshot: &snapshot, ask, began };
    if !snapshot.http.is_plain() {
        // Boxed: a connection that waits for its next request does not hold the room for this.
        return Box::pin(this.judge(caller)).await;
    }
    match party.judge_again(&snapshot, ask, None) {
        Decision::Allow(permit) => Ok(Grant { permit: Some((permit, snapshot)), began, terms: None }),
        Decision::Deny(denial) => Err(this.refuse(denial, Reply::denied(), None)),
    }
}

/// A request being decided.
struct Asking<'a> {
    session: &'a Session,
    party: &'a Party,
    snapshot: &'a Arc<ProxySnapshot>,
    ask: &'a Ask<'a>,
    began: Instant,
}

impl Asking<'_> {
    async fn judge(&self, caller: &dyn Caller) -> Result<Grant, Refused> {
        let late = AtomicBool::new(false);
        let mut body = Body { caller, patience: self.session.core.limits.header_timeout, late: &late };
        let judging = self.party.judge(self.snapshot, self.ask, &mut body, self.session.core.wall_time());
        let judgement = waiting::wait(caller, &late, judging).await.map_err(|left| self.left(left))?;
        match judgement {
            Judgement::Forward { permit, edits, response_headers, standing } => {
                let read = self.snapshot.http.policies().headers_read();
                let changes = Changes::of(&edits, self.ask.method, read).ok();
                let Some(mut changes) = changes.filter(|changes| !changes.loses(self.ask.headers, read)) else {
                    return Err(self.unfit(permit));
                };
                if caller.was_read() {
                    // The body is here: nobody behind has to ask for it.
                    changes.remove(http::header::EXPECT);
                }
                let terms = Terms { standing, changes, response: response_headers };
                self.still_stands(&terms)?;
                let permit = Some((permit, self.snapshot.clone()));
                Ok(Grant { permit, began: self.began, terms: Some(Arc::new(terms)) })
            }
            Judgement::Refuse { denial, response, edits, .. } => {
                let reply = Reply::with(response.status, response.headers, response.body);
                let changes = Changes::of(&edits, self.ask.method, &[]).ok();
                Err(self.refuse(denial, reply, changes.as_ref()))
            }
        }
    }

    /// A policy that came while something was waited for is asked before anything is opened.
    fn still_stands(&self, terms: &Terms) -> Result<(), Refused> {
        if self.session.core.snapshot.load().as_ref().is_some_and(|newest| Arc::ptr_eq(newest, self.snapshot)) {
            return Ok(());
        }
        match denied_now(self.session, self.ask, Some(terms)) {
            None => Ok(()),
            denied => Err(Refused::Denied(record_denied(self.session, self.ask, Some(terms), denied))),
        }
    }

    /// Records and counts a denial of the request as it was after these changes.
    fn refuse(&self, denial: Denial, reply: Reply, changes: Option<&Changes>) -> Refused {
        let status = reply.seen(is_grpc(self.ask.headers));
        let facts = self.party.http_facts(self.snapshot, self.ask, changes, Went { status, began: self.began });
        denial.record(&*self.session.core.sink, facts);
        self.session.core.metrics.request(self.session.direction(), Outcome::Deny, status);
        Refused::Denied(reply)
    }

    /// Allowed, with a change that no proxy can make: it fails as if the application could not be reached.
    fn unfit(&self, permit: Permit) -> Refused {
        let reply = Reply::text(502, "provider-edits");
        tracing::debug!(error = ?Unfit, "a provider changes the request into none");
        self.session.core.metrics.upstream_failure("provider-edits");
        let grant = Grant { permit: Some((permit, self.snapshot.clone())), began: self.began, terms: None };
        grant.spend(self.session, self.ask, reply.seen(is_grpc(self.ask.headers)));
        Refused::Denied(reply)
    }

    fn left(&self, left: Left) -> Refused {
        let (status, refused) = match left {
            Left::Gone => (0, Refused::Gone),
            Left::Malformed => (400, Refused::Malformed),
            Left::Late => (408, Refused::Late),
        };
        self.session.core.metrics.request(self.session.direction(), Outcome::Refused, status);
        refused
    }
}

/// Whether the request is gRPC, by its content type as Envoy reads it: gRPC-Web, for one, is not.
pub(crate) fn is_grpc(headers: &dyn Headers) -> bool {
    let mut grpc = false;
    headers.for_each("content-type", &mut |value| {
        let rest = value.strip_prefix(b"application/grpc");
        grpc |= rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')));
    });
    grpc
}

/// What changes in the request.
pub(crate) fn changes(terms: Option<&Terms>) -> Option<&Changes> {
    terms.map(|terms| &terms.changes)
}

/// What changes in the response.
pub(crate) fn response_edits(terms: Option<&Terms>) -> Option<&ResponseEdits> {
    terms.map(|terms| &terms.response).filter(|edits| !edits.is_empty())
}

impl Grant {
    /// Whether the request's trailers may be forwarded: not where anybody read or changed its head, because some
    /// servers merge the one into the other, and nobody decided on that.
    pub(crate) fn trailers(&self) -> bool {
        self.permit.as_ref().is_none_or(|(_, snapshot)| !snapshot.reads_headers())
    }

    /// The outcome is known: writes the request's one record and counts it.
    pub(crate) fn spend(self, session: &Session, ask: &Ask<'_>, status: u16) {
        session.core.metrics.request(session.direction(), Outcome::Allow, status);
        if let (Some((permit, snapshot)), Some(party)) = (self.permit, &session.party) {
            let went = Went { status, began: self.began };
            permit.spend(&*session.core.sink, party.http_facts(&snapshot, ask, changes(self.terms.as_deref()), went));
        }
    }
}

/// A request under way, judged again on the newest snapshot. Providers are not asked again, and tokens not read again:
/// what they said stands.
pub(crate) fn denied_now(
    session: &Session,
    ask: &Ask<'_>,
    terms: Option<&Terms>,
) -> Option<(Denial, Arc<ProxySnapshot>)> {
    let party = session.party.as_ref()?;
    let snapshot = session.core.snapshot.load_full()?;
    match party.judge_again(&snapshot, ask, terms) {
        Decision::Allow(_) => None,
        Decision::Deny(denial) => Some((denial, snapshot)),
    }
}

/// Records that something let in before was ended because it is denied now.
pub(crate) fn record_cut(
    session: &Session,
    ask: &Ask<'_>,
    terms: Option<&Terms>,
    denied: Option<(Denial, Arc<ProxySnapshot>)>,
    status: u16,
) {
    session.core.metrics.policy_cuts.inc();
    if let (Some((denial, snapshot)), Some(party)) = (denied, &session.party) {
        let facts = party.http_facts(&snapshot, ask, changes(terms), Went { status, began: Instant::now() });
        denial.record_as(reason::POLICY_CHANGED, &*session.core.sink, facts);
    }
}

/// The same before anything was answered: the caller sees a denial, and the request counts as denied.
pub(crate) fn record_denied(
    session: &Session,
    ask: &Ask<'_>,
    terms: Option<&Terms>,
    denied: Option<(Denial, Arc<ProxySnapshot>)>,
) -> Reply {
    let reply = Reply::denied();
    let status = reply.seen(is_grpc(ask.headers));
    session.core.metrics.request(session.direction(), Outcome::Deny, status);
    record_cut(session, ask, terms, denied, status);
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_from_its_neighbours() {
        for (content_type, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=x", true),
            ("application/grpc-web+proto", false),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&vec![("Content-Type", content_type)]), grpc, "{content_type}");
        }
        assert!(!is_grpc(&palisade_authz::NoHeaders));
    }
}
