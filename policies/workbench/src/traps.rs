//! The traps of Istio's policies, each shown by a request: what is valid, and means something else than its author
//! probably thinks.
//!
//! A finder proposes a request and what the policy was probably meant to say. The finding is made only if the engine
//! decides that request otherwise by what was meant than by what is written, in the company of all the other policies:
//! a slip that another policy covers is no finding, and neither is a guess.

use std::collections::HashSet;
use std::sync::Arc;

use palisade_authz::{Evaluation, Phase, Semantics};
use palisade_policies::{Action, AuthorizationPolicy, MeshConfig, Resources, Workload};
use serde::Serialize;
use serde_json::Value;

mod draft;
mod headers;
mod hosts;
mod modes;
mod network;
mod paths;
mod peers;
mod scene;
mod sets;
mod slot;
mod tokens;
mod witness;

use draft::Draft;
use scene::{Asked, Scene};
use slot::{List, Slot, lists, slots};
use witness::{Base, Setting};

/// How many traps one check reports; an author begins with the first.
const MAX_TRAPS: usize = 1000;

/// How many alternatives of ALLOW policies a request for a trap is made from.
const MAX_BASES: usize = 16;

/// A request, and what is decided about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// A line of evaluation input.
    pub request: Value,
    /// The answer of the engine, as `policy eval` prints it; for a trap of PeerAuthentication with the mode of the
    /// port as `mtls`.
    pub decision: Value,
}

impl Example {
    /// Gives request and answer the code under which they are shown as their id.
    pub(crate) fn rename(&mut self, code: &str) {
        for value in [&mut self.request, &mut self.decision] {
            if let Some(object) = value.as_object_mut() {
                object.insert("id".to_owned(), Value::from(code));
            }
        }
    }
}

/// A trap at its place.
pub(crate) struct Trap {
    pub(crate) code: &'static str,
    /// Kind, namespace and name of the resource.
    pub(crate) resource: (&'static str, String, String),
    /// The path of the field.
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) example: Example,
}

/// What a search gave.
pub(crate) struct Search {
    pub(crate) traps: Vec<Trap>,
    /// Whether there may be more: findings are bounded, and so is what looking for them costs.
    pub(crate) more: bool,
}

/// What a finder suspects.
struct Proposal {
    code: &'static str,
    field: String,
    message: String,
    request: Draft,
    /// The policy as it was probably meant; `None` where it was not meant to match.
    meant: Option<AuthorizationPolicy>,
    /// Whether the request passes, which it would not as meant, or the other way round.
    passes: bool,
}

/// A policy on a workload.
#[derive(Clone, Copy)]
struct Stage<'a> {
    scene: &'a Scene<'a>,
    policy: &'a AuthorizationPolicy,
    workload: &'a Workload,
    base: Option<Base<'a>>,
}

impl<'a> Stage<'a> {
    /// What a request for a proposal is made from. A proposal is a copy of the policy, and is paid for here, whether or
    /// not one comes of it.
    fn setting(&self, code: &'static str) -> Setting<'a> {
        self.scene.spend(slot::weight(self.policy));
        Setting { code, policy: self.policy, workload: self.workload, mesh: self.scene.mesh, base: self.base }
    }

    /// Whether a match of a list's values keeps requests out: a DENY, or the negation in an ALLOW.
    fn closes(&self, list: &List<'_>) -> bool {
        (self.policy.action == Action::Allow) == list.negated
    }
}

type OfValue = fn(Stage<'_>, Slot<'_>) -> Option<Proposal>;
type OfList = fn(Stage<'_>, &List<'_>) -> Option<Proposal>;
type OfRule = fn(Stage<'_>, usize) -> Option<Proposal>;

const OF_VALUES: &[OfValue] = &[
    paths::inner_star,
    paths::spelling,
    paths::bracket,
    paths::segments,
    paths::slashes,
    paths::slashes_within,
    hosts::port,
    hosts::prefix,
    headers::empty,
    headers::joined,
    headers::host,
    peers::scheme,
    peers::rewritten,
    peers::kept,
    peers::root_account,
    tokens::request_principal,
    tokens::claim_type,
    tokens::claim_dot,
    tokens::claim_split,
    network::family,
    network::server_name,
    network::domains_ambient,
];

const OF_LISTS: &[OfList] = &[
    paths::connect,
    headers::absent,
    peers::deny_identity,
    peers::not_identity,
    peers::not_identity_denied,
    network::spoofed,
    network::lost_ambient,
];

const OF_RULES: &[OfRule] = &[network::allow_lost, network::widened];

/// Looks for traps in accepted resources. Their order is that of the resources, and within one that of its fields.
pub(crate) fn find(resources: &Resources, mesh: &MeshConfig, mesh_given: bool) -> Search {
    let scene = Scene::new(resources, mesh, mesh_given);
    let mut traps = Vec::new();
    for policy in &resources.authorization_policies {
        if traps.len() > MAX_TRAPS || scene.is_spent() {
            break;
        }
        of_policy(&scene, policy, &mut traps);
    }
    traps.extend(sets::find(&scene));
    traps.extend(modes::find(&scene));
    let more = traps.len() > MAX_TRAPS || scene.is_spent();
    traps.truncate(MAX_TRAPS);
    Search { traps, more }
}

fn of_policy(scene: &Scene<'_>, policy: &AuthorizationPolicy, traps: &mut Vec<Trap>) {
    if policy.action == Action::Audit {
        return;
    }
    let stages = scene.stages(policy);
    let attached: Vec<_> = stages.iter().map(|workload| scene.attached(workload, Semantics::Http)).collect();
    let mut tried = Vec::new();
    for (workload, attached) in stages.iter().zip(&attached) {
        tried.extend(bases(policy, attached).map(|base| Stage { scene, policy, workload, base }));
    }
    let mut found = Found { scene, policy, seen: HashSet::new(), traps };
    let on = |find: &dyn Fn(Stage<'_>) -> Option<Proposal>, found: &mut Found<'_, '_>| {
        for stage in &tried {
            if found.is_full() {
                return;
            }
            if find(*stage).is_some_and(|proposal| found.add(proposal)) {
                break;
            }
        }
    };
    let lists = lists(policy);
    for rule in 0..policy.rules.len() {
        for find in OF_RULES {
            on(&|stage| find(stage, rule), &mut found);
        }
        for list in lists.iter().filter(|list| list.rule == rule) {
            for slot in slots(list) {
                if found.is_full() {
                    return;
                }
                for find in OF_VALUES {
                    on(&|stage| find(stage, slot), &mut found);
                }
            }
            for find in OF_LISTS {
                on(&|stage| find(stage, list), &mut found);
            }
        }
    }
}

/// What requests are made from: nothing, and for what closes also what an ALLOW lets in. What a DENY leaves open shows
/// only in a request that gets as far.
fn bases<'a>(
    policy: &AuthorizationPolicy,
    attached: &'a [Arc<AuthorizationPolicy>],
) -> impl Iterator<Item = Option<Base<'a>>> {
    let bound = if policy.action == Action::Allow { 0 } else { MAX_BASES };
    std::iter::once(None).chain(Base::all(attached).take(bound).map(Some))
}

/// The traps of one policy.
struct Found<'a, 't> {
    scene: &'a Scene<'a>,
    policy: &'a AuthorizationPolicy,
    /// Codes with the field, or with the part of the policy, that has one already.
    seen: HashSet<(&'static str, String)>,
    traps: &'t mut Vec<Trap>,
}

impl Found<'_, '_> {
    /// Whether there are more traps than are shown, or looking for them has cost enough.
    fn is_full(&self) -> bool {
        self.traps.len() > MAX_TRAPS || self.scene.is_spent()
    }

    /// Takes a proposal that the engine bears out and whose place has none yet; whether the place has one now.
    fn add(&mut self, proposal: Proposal) -> bool {
        let once = once_in(proposal.code, &proposal.field);
        let place = (proposal.code, proposal.field.clone());
        if self.seen.contains(&place) || once.as_ref().is_some_and(|once| self.seen.contains(once)) {
            return true;
        }
        let Some(example) = shown(self.scene, self.policy, &proposal) else { return false };
        self.seen.insert(place);
        self.seen.extend(once);
        let meta = &self.policy.meta;
        self.traps.push(Trap {
            code: proposal.code,
            resource: ("AuthorizationPolicy", meta.namespace.clone(), meta.name.clone()),
            field: proposal.field,
            message: proposal.message,
            example,
        });
        true
    }
}

/// Where a trap that comes with every value alike is reported once only: in the policy, or in the rule.
fn once_in(code: &'static str, field: &str) -> Option<(&'static str, String)> {
    match code {
        "PAL0713" => Some((code, String::new())),
        "PAL0702" | "PAL0716" | "PAL0717" | "PAL0725" | "PAL0740" => {
            let rule = field.split_once(']').map_or(field, |(rule, _)| rule);
            Some((code, rule.to_owned()))
        }
        _ => None,
    }
}

/// The example of a proposal, if the engine decides as proposed, and would not as meant.
fn shown(scene: &Scene<'_>, policy: &AuthorizationPolicy, proposal: &Proposal) -> Option<Example> {
    let asked = Asked::of(&proposal.request, scene.mesh)?;
    let (passes, evaluation) = scene.passes_now(&asked, policy)?;
    if passes != proposal.passes || covered(policy, &evaluation, passes) {
        return None;
    }
    if scene.passes(&asked, policy, proposal.meant.as_ref()) == proposal.passes {
        return None;
    }
    Some(Example { request: proposal.request.json()?, decision: scene.answer(&asked, &evaluation)? })
}

/// Whether the whole set alone says that another policy decides, whatever this one says: it spares asking them all.
fn covered(policy: &AuthorizationPolicy, evaluation: &Evaluation, passes: bool) -> bool {
    if policy.dry_run || matches!(policy.action, Action::Custom { .. }) {
        return false;
    }
    let by_other = evaluation
        .policy
        .as_ref()
        .is_some_and(|by| (by.namespace(), by.name()) != (policy.meta.namespace.as_str(), policy.meta.name.as_str()));
    match (&policy.action, passes) {
        (Action::Allow, true) => by_other,
        (_, false) => by_other && evaluation.phase == Phase::Deny,
        (_, true) => false,
    }
}
