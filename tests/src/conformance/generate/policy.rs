//! Policies with every field, negation and condition.

use std::collections::BTreeMap;
use std::sync::Arc;

use palisade_policies::{Action, AuthorizationPolicy, Condition, Meta, Operation, Origin, Rule, Source};

use crate::conformance::dice::Dice;
use crate::conformance::scene::{METADATA, NAMESPACE};

use super::value::{Field, value};
use super::world::World;

/// The providers of CUSTOM policies: the first allows, the second refuses, the third does not exist.
pub(super) const PROVIDERS: [&str; 3] = ["grant", "refuse", "absent"];

/// Policies of one workload with `rules` rules in all.
pub(super) fn policies(dice: &mut Dice, world: &World, rules: usize, custom: bool) -> Vec<Arc<AuthorizationPolicy>> {
    let mut policies: Vec<Arc<AuthorizationPolicy>> = Vec::new();
    let (mut left, mut number) = (rules, 0);
    while left > 0 {
        let most = if rules > 20 { 6 } else { 3 };
        // `rule[10]` stands before `rule[2]`.
        let many = left > 10 && dice.chance(25);
        let rules = if many { dice.between(11, 14).min(left) } else { dice.below(most + 1).min(left) };
        let policy = policy(dice, world, number, rules, custom);
        left = left.saturating_sub(policy.rules.len().max(1));
        number += 1;
        policies.push(Arc::new(policy));
    }
    policies
}

pub(super) fn meta(name: String, namespace: &str) -> Meta {
    Meta {
        name,
        namespace: namespace.to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        created: None,
        origin: origin(),
    }
}

pub(super) fn origin() -> Origin {
    Origin { file: "generated".into(), line: 1 }
}

fn policy(dice: &mut Dice, world: &World, number: usize, rules: usize, custom: bool) -> AuthorizationPolicy {
    let action = match dice.below(20) {
        0..=8 => Action::Allow,
        9..=15 => Action::Deny,
        16 | 17 => Action::Audit,
        _ if custom => Action::Custom { provider: provider(dice) },
        _ => Action::Allow,
    };
    let dry_run = matches!(action, Action::Allow | Action::Deny) && dice.chance(18);
    let namespace = if dice.chance(20) { "istio-system" } else { NAMESPACE };
    let name = format!("{}{}{number}", dice.pick(&["a", "b", "z", "Z", "m.n"]), dice.pick(&["", "-"]));
    let rules = (0..rules).map(|_| rule(dice, world, &action)).collect();
    AuthorizationPolicy { meta: meta(name, namespace), selector: None, target_refs: Vec::new(), action, dry_run, rules }
}

fn provider(dice: &mut Dice) -> String {
    let [grant, refuse, absent] = PROVIDERS;
    dice.text(&[grant, grant, grant, refuse, absent])
}

fn rule(dice: &mut Dice, world: &World, action: &Action) -> Rule {
    // CUSTOM rules cannot name identities.
    let custom = matches!(action, Action::Custom { .. });
    let count = |dice: &mut Dice| {
        if world.selective { *dice.pick(&[1, 1, 1, 2]) } else { *dice.pick(&[0, 0, 1, 1, 1, 2, 3]) }
    };
    let (from, to, when) = (count(dice), count(dice), *dice.pick(&[0, 0, 1, 1, 2]));
    Rule {
        from: (0..from).map(|_| source(dice, world, custom)).collect(),
        to: (0..to).map(|_| operation(dice, world)).collect(),
        when: (0..when).map(|_| condition(dice, world, custom)).collect(),
        origin: origin(),
    }
}

/// Values of one list, few or, seldom, many.
fn values(dice: &mut Dice, world: &World, field: Field) -> Vec<String> {
    let count = *dice.pick(&[1, 1, 1, 2, 2, 3, 5]);
    let mut one = || {
        let first = value(dice, world, field);
        if world.selective && first == "*" { value(dice, world, field) } else { first }
    };
    (0..count).map(|_| one()).collect()
}

/// A list and its negation, one of which is filled, or both.
fn lists(dice: &mut Dice, world: &World, field: Field) -> (Vec<String>, Vec<String>) {
    let positive = world.selective && dice.chance(80);
    match if positive { 0 } else { dice.below(10) } {
        0..=5 => (values(dice, world, field), Vec::new()),
        6..=8 => (Vec::new(), values(dice, world, field)),
        _ => (values(dice, world, field), values(dice, world, field)),
    }
}

fn source(dice: &mut Dice, world: &World, custom: bool) -> Source {
    let mut source = Source::default();
    for _ in 0..*dice.pick(&[1, 1, 1, 2, 2, 3]) {
        let field = if custom { dice.between(5, 6) } else { dice.below(7) };
        let s = &mut source;
        match field {
            0 => (s.principals, s.not_principals) = lists(dice, world, Field::Principal),
            1 => (s.request_principals, s.not_request_principals) = lists(dice, world, Field::RequestPrincipal),
            2 => (s.namespaces, s.not_namespaces) = lists(dice, world, Field::Namespace),
            3 => (s.service_accounts, s.not_service_accounts) = lists(dice, world, Field::ServiceAccount),
            4 => (s.trust_domains, s.not_trust_domains) = lists(dice, world, Field::TrustDomain),
            5 => (s.ip_blocks, s.not_ip_blocks) = lists(dice, world, Field::Ip),
            _ => (s.remote_ip_blocks, s.not_remote_ip_blocks) = lists(dice, world, Field::RemoteIp),
        }
    }
    source
}

fn operation(dice: &mut Dice, world: &World) -> Operation {
    let mut operation = Operation::default();
    for _ in 0..*dice.pick(&[1, 1, 1, 2, 2, 3]) {
        let o = &mut operation;
        match dice.below(6) {
            0 => (o.hosts, o.not_hosts) = lists(dice, world, Field::Host),
            1 => (o.methods, o.not_methods) = lists(dice, world, Field::Method),
            2 => (o.ports, o.not_ports) = lists(dice, world, Field::Port),
            _ => (o.paths, o.not_paths) = lists(dice, world, Field::Path),
        }
    }
    operation
}

fn condition(dice: &mut Dice, world: &World, custom: bool) -> Condition {
    // Claims in a CUSTOM rule get past no admission; where they do, tokens are not read yet.
    let choice = if custom { dice.between(7, 17) } else { dice.below(22) };
    let (key, field) = match choice {
        0 => ("source.namespace".to_owned(), Field::Namespace),
        1 => ("source.principal".to_owned(), Field::Principal),
        2 => ("source.serviceAccount".to_owned(), Field::ServiceAccount),
        3 => ("source.trustDomain".to_owned(), Field::TrustDomain),
        4 => ("request.auth.principal".to_owned(), Field::RequestPrincipal),
        5 => ("request.auth.audiences".to_owned(), Field::Audience),
        6 => ("request.auth.presenter".to_owned(), Field::Presenter),
        7 => ("source.ip".to_owned(), Field::Ip),
        8 => ("remote.ip".to_owned(), Field::RemoteIp),
        9 => ("destination.ip".to_owned(), Field::DestinationIp),
        10 => ("destination.port".to_owned(), Field::Port),
        11 => ("connection.sni".to_owned(), Field::Sni),
        12 => (format!("experimental.{}[{}]", METADATA.0, METADATA.1), Field::Metadata),
        13 if dice.chance(10) => (odd_key(dice), Field::Header),
        13..=16 => (format!("request.headers[{}]", dice.pick(&world.headers)), Field::Header),
        _ => (claim_key(dice, world), Field::Claim),
    };
    let (values, not_values) = lists(dice, world, field);
    Condition { key, values, not_values }
}

fn claim_key(dice: &mut Dice, world: &World) -> String {
    let path: String = dice.pick(&world.claims).iter().map(|name| format!("[{name}]")).collect();
    format!("request.auth.claims{path}")
}

/// Keys that admission refuses or that mean something else than they look like.
fn odd_key(dice: &mut Dice) -> String {
    dice.text(&[
        "request.nonsense",
        "destination.labels[a]",
        "request.auth.claims[g][0]",
        "request.auth.claims[g",
        "request.auth.claims[o[p]]",
        "request.headers[x-a",
        "request.auth.claims",
        "experimental.envoy.filters.x",
        "experimental.envoy.filters.other[k]",
    ])
}
