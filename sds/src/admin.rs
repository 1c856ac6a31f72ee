//! The operator's view of the agent: what it holds, and why a process has the identity it has, or none.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_identity::{Identity, TrustBundle, UnixTime, X509Svid, error_chain};
use palisade_wire::node::node_server::Node;
use palisade_wire::node::{
    Identity as IdentityMessage, ListRequest, ListResponse, Near, TrustDomain, Unknown, WhyRequest, WhyResponse,
};
use tonic::{Request, Response, Status};

use crate::attest::{Attestor, Evidence};
use crate::roster::{Entry, State};
use crate::secrets::{Feed, Standing};

/// Most entries named as nearly matching.
const MAX_NEAR: usize = 5;

/// What the service asks of the agent that it does not find in the feed.
pub(crate) trait Agent: Send + Sync + 'static {
    /// Why the last attempt to renew failed.
    fn last_error(&self) -> Option<String>;
    /// Is the server followed at this moment?
    fn following(&self) -> bool;
}

/// The service behind `palisade.node.v1.Node`.
pub(crate) struct NodeService<A> {
    pub(crate) agent: A,
    pub(crate) feed: Feed,
    pub(crate) attestor: Attestor,
}

#[tonic::async_trait]
impl<A: Agent> Node for NodeService<A> {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let (own, state) = self.feed.parts();
        let now = self.feed.clock().now();
        let entries = state.entries.iter().flat_map(|entries| entries.iter());
        let of_entries = entries.map(|entry| of_entry(entry, &state, own.as_deref(), now));
        Ok(Response::new(ListResponse {
            identities: own.iter().map(|own| of_agent(own, now)).chain(of_entries).collect(),
            trust_domains: own.iter().flat_map(|own| domains(own)).collect(),
            last_error: self.agent.last_error().unwrap_or_default(),
            following: self.agent.following(),
        }))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        let pid = request.into_inner().pid;
        let evidence = match self.attestor.look_at(pid).await {
            Ok(evidence) => evidence,
            // That is no answer about an identity.
            Err(error) if error.has_ended() => {
                return Err(Status::not_found(format!("there is no process {pid}: it has ended, or never was")));
            }
            Err(error) => {
                let refused = error_chain(&error);
                let verdict = format!("process {pid} gets nothing: {refused}");
                return Ok(Response::new(WhyResponse { refused, verdict, ..WhyResponse::default() }));
            }
        };
        let (own, state) = self.feed.parts();
        let now = self.feed.clock().now();
        let view = self.feed.view(&self.feed.caller(&evidence));
        let slot = |entry: &Option<Arc<Entry>>| match (entry, &own) {
            (Some(entry), own) => Some(of_entry(entry, &state, own.as_deref(), now)),
            (None, Some(own)) => Some(of_agent(own, now)),
            (None, None) => None,
        };
        let identities: Vec<IdentityMessage> = view.slots.iter().filter_map(|one| slot(&one.entry)).collect();
        let near = near(&evidence.selectors, &state);
        let verdict = verdict(pid, view.standing, &identities, &near, &state);
        Ok(Response::new(WhyResponse {
            refused: String::new(),
            unknown: unknown(&evidence),
            selectors: evidence.selectors.into_iter().collect(),
            identities,
            near,
            verdict,
        }))
    }
}

fn unknown(evidence: &Evidence) -> Vec<Unknown> {
    let one = |(kind, reason): &(&'static str, String)| Unknown { kind: (*kind).to_owned(), reason: reason.clone() };
    evidence.unknown.iter().map(one).collect()
}

/// One sentence that says what is the case, and what to do where something is missing.
fn verdict(pid: i32, standing: Standing, identities: &[IdentityMessage], near: &[Near], state: &State) -> String {
    match (standing, identities, near) {
        (Standing::Unknown, ..) => "the server has not said yet which entries this agent has".to_owned(),
        (Standing::Entitled, ..) => match identities.iter().find(|identity| !identity.problem.is_empty()) {
            Some(bad) => format!("process {pid} is `{}`, which is not served: {}", bad.spiffe_id, bad.problem),
            None => format!("process {pid} has {} identities", identities.len()),
        },
        (Standing::Nobody, _, [nearest, ..]) => format!(
            "process {pid} has no identity; entry `{}` is the nearest and wants {} besides",
            nearest.entry_id,
            nearest.missing.join(", ")
        ),
        (Standing::Nobody, ..) if state.entries.as_ref().is_none_or(|entries| entries.is_empty()) => format!(
            "process {pid} has no identity: this agent has no entries, and the process' user is not among those that get the \
             agent's own identity"
        ),
        (Standing::Nobody, ..) => {
            format!("process {pid} has no identity: no entry of this agent has a selector that it shows")
        }
    }
}

/// Entries of which the process shows a part, the fewest missing selectors first.
fn near(shown: &BTreeSet<String>, state: &State) -> Vec<Near> {
    let entries = state.entries.iter().flat_map(|entries| entries.iter());
    let part = |entry: &Arc<Entry>| {
        let (matched, missing): (Vec<String>, Vec<String>) =
            entry.selectors.iter().cloned().partition(|selector| shown.contains(selector));
        let (entry_id, spiffe_id) = (entry.id.clone(), entry.spiffe_id.to_string());
        (!matched.is_empty() && !missing.is_empty()).then_some(Near { entry_id, spiffe_id, matched, missing })
    };
    let mut near: Vec<Near> = entries.filter_map(part).collect();
    near.sort_by_key(|entry| (entry.missing.len(), usize::MAX - entry.matched.len()));
    near.truncate(MAX_NEAR);
    near
}

fn of_agent(own: &Identity, now: UnixTime) -> IdentityMessage {
    let problem = own.svid.usable(&own.bundles, now).err().map(|error| error_chain(&error));
    let mut message = IdentityMessage { problem: problem.unwrap_or_default(), ..IdentityMessage::default() };
    of_svid(&own.svid, &mut message);
    message
}

fn of_entry(entry: &Entry, state: &State, own: Option<&Identity>, now: UnixTime) -> IdentityMessage {
    let wire = entry.to_wire();
    let mut message = IdentityMessage {
        spiffe_id: wire.spiffe_id,
        entry_id: wire.id,
        selectors: wire.selectors,
        hint: wire.hint,
        federates_with: wire.federates_with,
        dns_names: wire.dns_names,
        ..IdentityMessage::default()
    };
    match (state.svids.get(&entry.id), own) {
        (Some(held), Some(own)) => {
            of_svid(&held.svid, &mut message);
            message.renew_at = seconds(held.due);
            let problem = held.svid.usable(&own.bundles, now).err().map(|error| error_chain(&error));
            message.problem = problem.unwrap_or_default();
        }
        (None, _) => "its certificate has not been issued yet".clone_into(&mut message.problem),
        (_, None) => "the agent has no identity itself".clone_into(&mut message.problem),
    }
    message
}

fn of_svid(svid: &X509Svid, message: &mut IdentityMessage) {
    message.spiffe_id = svid.id().to_string();
    message.not_before = seconds(svid.not_before());
    message.not_after = seconds(svid.not_after());
    message.serial = svid.serial().to_owned();
    message.certificate_chain = svid.chain_pem();
}

fn domains(own: &Identity) -> Vec<TrustDomain> {
    let denied = u32::try_from(own.bundles.denied().len()).unwrap_or(u32::MAX);
    let one = |bundle: &TrustBundle| TrustDomain {
        name: bundle.trust_domain().as_str().to_owned(),
        authorities: u32::try_from(bundle.authorities().len()).unwrap_or(u32::MAX),
        digest: bundle.digest().iter().map(|byte| format!("{byte:02x}")).collect(),
        denied_serials: denied,
    };
    own.bundles.iter().map(one).collect()
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
