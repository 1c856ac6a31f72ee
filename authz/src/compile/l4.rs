//! Rules as istiod hands them to ztunnel and ztunnel evaluates them.
//!
//! An HTTP field anywhere drops an ALLOW rule. In a DENY rule it is left out, and an alternative that ends
//! up empty matches nothing: the opposite of Envoy's TCP filter, where it matches everything.

use std::collections::BTreeMap;

use palisade_policies::{Action, AuthorizationPolicy, Condition, Operation, Rule as PolicyRule, Source};

use super::envoy::{network, port};
use super::{Context, Dropped, Place, add};
use crate::predicate::{Interner, PeerTest, Predicate, Text};
use crate::program::{Draft, Field, Parts};

/// Whether the policy reaches ztunnel at all: no target references, ALLOW or DENY, and not `selector: {}`,
/// which is attached to no workload there.
pub(super) fn applies(policy: &AuthorizationPolicy) -> bool {
    let empty_selector = policy.selector.as_ref().is_some_and(|selector| selector.matches(&BTreeMap::new()));
    policy.target_refs.is_empty() && matches!(policy.action, Action::Allow | Action::Deny) && !empty_selector
}

pub(super) fn rule(rule: &PolicyRule, context: &Context<'_>, interner: &mut Interner) -> Result<Parts, Dropped> {
    let l7 = rule.from.iter().any(source_is_http)
        || rule.to.iter().any(operation_is_http)
        || rule.when.iter().any(|condition| !is_l4_key(&condition.key));
    if context.strict && l7 {
        return Err(Dropped);
    }
    let mut when = Vec::new();
    for (index, condition) in (0..).zip(&rule.when) {
        let before = when.len();
        condition_clauses(index, condition, interner, &mut when);
        if when.len() == before {
            // An empty match never holds, and this clause has no other.
            return Err(Dropped);
        }
    }
    let from = alternatives(&rule.from, |index, source, out| source_clauses(index, source, context, interner, out))?;
    let to = alternatives(&rule.to, |index, operation, out| operation_clauses(index, operation, interner, out))?;
    Ok(Parts { when, from, to })
}

/// Empty alternatives match nothing; a side with nothing else makes the rule silent.
fn alternatives<T>(items: &[T], mut compile: impl FnMut(u32, &T, &mut Vec<Draft>)) -> Result<Vec<Vec<Draft>>, Dropped> {
    let mut compiled = Vec::with_capacity(items.len());
    for (index, item) in (0..).zip(items) {
        let mut out = Vec::new();
        compile(index, item, &mut out);
        if !out.is_empty() {
            compiled.push(out);
        }
    }
    if compiled.is_empty() && !items.is_empty() {
        return Err(Dropped);
    }
    Ok(compiled)
}

fn source_is_http(source: &Source) -> bool {
    let s = source;
    [&s.remote_ip_blocks, &s.not_remote_ip_blocks, &s.request_principals, &s.not_request_principals]
        .iter()
        .any(|list| !list.is_empty())
}

fn operation_is_http(operation: &Operation) -> bool {
    let o = operation;
    [&o.hosts, &o.not_hosts, &o.methods, &o.not_methods, &o.paths, &o.not_paths].iter().any(|list| !list.is_empty())
}

fn is_l4_key(key: &str) -> bool {
    matches!(key, "source.ip" | "source.namespace" | "source.principal" | "destination.ip" | "destination.port")
}

/// `trustDomains` is not converted and not reported: alone it matches nothing, beside others it is ignored.
fn source_clauses(index: u32, source: &Source, context: &Context<'_>, interner: &mut Interner, out: &mut Vec<Draft>) {
    let s = source;
    let account = |value: &str| Some(service_account(value, context.namespace));
    both((Field::IpBlocks, index), [&s.ip_blocks, &s.not_ip_blocks], source_ip, interner, out);
    both((Field::Namespaces, index), [&s.namespaces, &s.not_namespaces], namespace, interner, out);
    both((Field::ServiceAccounts, index), [&s.service_accounts, &s.not_service_accounts], account, interner, out);
    both((Field::Principals, index), [&s.principals, &s.not_principals], principal, interner, out);
}

fn operation_clauses(index: u32, operation: &Operation, interner: &mut Interner, out: &mut Vec<Draft>) {
    both((Field::Ports, index), [&operation.ports, &operation.not_ports], destination_port, interner, out);
}

fn condition_clauses(index: u32, condition: &Condition, interner: &mut Interner, out: &mut Vec<Draft>) {
    let Condition { key, values, not_values } = condition;
    let (place, sides) = ((Field::When, index), [values, not_values]);
    match key.as_str() {
        "source.ip" => both(place, sides, source_ip, interner, out),
        "source.namespace" => both(place, sides, namespace, interner, out),
        "source.principal" => both(place, sides, principal, interner, out),
        "destination.ip" => both(place, sides, destination_ip, interner, out),
        "destination.port" => both(place, sides, destination_port, interner, out),
        _ => {}
    }
}

fn both(
    place: Place,
    sides: [&Vec<String>; 2],
    predicate: impl Fn(&str) -> Option<Predicate>,
    interner: &mut Interner,
    out: &mut Vec<Draft>,
) {
    for (values, negated) in sides.into_iter().zip([false, true]) {
        let found = values.iter().filter_map(|value| predicate(value));
        let any = found.map(|predicate| interner.intern(predicate)).collect();
        add(any, place, negated, interner, out);
    }
}

fn source_ip(value: &str) -> Option<Predicate> {
    network(value).map(Predicate::SourceIp)
}

fn destination_ip(value: &str) -> Option<Predicate> {
    network(value).map(Predicate::DestinationIp)
}

fn destination_port(value: &str) -> Option<Predicate> {
    port(value).map(Predicate::DestinationPort)
}

fn namespace(value: &str) -> Option<Predicate> {
    Some(Predicate::Peer(PeerTest::L4Namespace(Text::parse(value, Text::Filled))))
}

fn principal(value: &str) -> Option<Predicate> {
    Some(Predicate::Peer(PeerTest::L4Principal(Text::parse(value, Text::Filled))))
}

fn service_account(value: &str, policy_namespace: &str) -> Predicate {
    let (namespace, account) = value.split_once('/').unwrap_or((policy_namespace, value));
    Predicate::Peer(PeerTest::L4ServiceAccount { namespace: namespace.into(), account: account.into() })
}
