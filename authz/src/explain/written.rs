//! A clause as its author wrote it.

use palisade_policies::{Operation, Source};

use crate::evaluation::PolicyRef;
use crate::program::{Clause, Field};

/// Values shown of a long list.
const SHOWN: usize = 8;

/// Field path and what the clause asks for.
pub(super) fn clause(policy: &PolicyRef, clause: &Clause<'_>) -> (String, String) {
    let at = usize::try_from(clause.index).unwrap_or(usize::MAX);
    let rules = &policy.policy().rules;
    let rule = usize::try_from(policy.rule()).ok().and_then(|index| rules.get(index));
    let (negated, field) = (clause.negated(), clause.field());
    let found = rule.and_then(|rule| match field {
        Field::When => rule.when.get(at).map(|condition| {
            let name = if negated { "notValues" } else { "values" };
            let values = if negated { &condition.not_values } else { &condition.values };
            (format!("when[{at}].{name}"), values.as_slice(), Some(condition.key.as_str()))
        }),
        Field::Hosts | Field::Methods | Field::Paths | Field::Ports => rule.to.get(at).map(|operation| {
            let (name, values) = operation_field(operation, field, negated);
            (format!("to[{at}].operation.{name}"), values, None)
        }),
        _ => rule.from.get(at).map(|source| {
            let (name, values) = source_field(source, field, negated);
            (format!("from[{at}].source.{name}"), values, None)
        }),
    });
    let (path, values, key) = found.unwrap_or_default();
    (path, expected(values, negated, key))
}

fn operation_field(o: &Operation, field: Field, negated: bool) -> (&'static str, &[String]) {
    match (field, negated) {
        (Field::Hosts, false) => ("hosts", &o.hosts),
        (Field::Hosts, true) => ("notHosts", &o.not_hosts),
        (Field::Methods, false) => ("methods", &o.methods),
        (Field::Methods, true) => ("notMethods", &o.not_methods),
        (Field::Paths, false) => ("paths", &o.paths),
        (Field::Paths, true) => ("notPaths", &o.not_paths),
        (_, false) => ("ports", &o.ports),
        (_, true) => ("notPorts", &o.not_ports),
    }
}

fn source_field(s: &Source, field: Field, negated: bool) -> (&'static str, &[String]) {
    match (field, negated) {
        (Field::Principals, false) => ("principals", &s.principals),
        (Field::Principals, true) => ("notPrincipals", &s.not_principals),
        (Field::RequestPrincipals, false) => ("requestPrincipals", &s.request_principals),
        (Field::RequestPrincipals, true) => ("notRequestPrincipals", &s.not_request_principals),
        (Field::ServiceAccounts, false) => ("serviceAccounts", &s.service_accounts),
        (Field::ServiceAccounts, true) => ("notServiceAccounts", &s.not_service_accounts),
        (Field::TrustDomains, false) => ("trustDomains", &s.trust_domains),
        (Field::TrustDomains, true) => ("notTrustDomains", &s.not_trust_domains),
        (Field::Namespaces, false) => ("namespaces", &s.namespaces),
        (Field::Namespaces, true) => ("notNamespaces", &s.not_namespaces),
        (Field::RemoteIpBlocks, false) => ("remoteIpBlocks", &s.remote_ip_blocks),
        (Field::RemoteIpBlocks, true) => ("notRemoteIpBlocks", &s.not_remote_ip_blocks),
        (_, false) => ("ipBlocks", &s.ip_blocks),
        (_, true) => ("notIpBlocks", &s.not_ip_blocks),
    }
}

fn expected(values: &[String], negated: bool, key: Option<&str>) -> String {
    let mut shown: Vec<String> = values.iter().take(SHOWN).map(|value| format!("`{value}`")).collect();
    if let Some(more) = values.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        shown.push(format!("{more} more"));
    }
    let list = match shown.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    };
    let list = if negated { format!("none of {list}") } else { list };
    key.map_or_else(|| list.clone(), |key| format!("{list} for {key}"))
}
