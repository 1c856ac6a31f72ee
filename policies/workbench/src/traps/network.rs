//! What becomes of rules without HTTP, and addresses and names below it.

use palisade_authz::Semantics;
use palisade_policies::{Action, AuthorizationPolicy, Operation, Rule, Source};

use super::slot::{Field, List, Side, Slot, rule_lists};
use super::{Proposal, Stage};

/// A port that speaks TCP, and that no author of HTTP rules thinks of.
const OTHER_PORT: u16 = 9000;

/// An ALLOW rule with an alternative for a TCP port that is lost because of another one.
pub(super) fn allow_lost(stage: Stage<'_>, rule: usize) -> Option<Proposal> {
    let of = stage.policy.rules.get(rule)?;
    if stage.policy.action != Action::Allow || of.to.len() < 2 {
        return None;
    }
    let plain = |operation: &Operation| !operation.ports.is_empty() && !http(operation);
    let (index, alternative) = of.to.iter().enumerate().find(|(_, operation)| plain(operation))?;
    let mut meant = stage.policy.clone();
    meant.rules.get_mut(rule)?.to = vec![alternative.clone()];
    Some(Proposal {
        code: "PAL0723",
        field: format!("spec.rules[{rule}].to[{index}]"),
        message: "on a TCP port the whole rule is left out, because another alternative asks for HTTP".to_owned(),
        request: stage.setting("PAL0723").matching_side(rule, Side::To(index), Semantics::Tcp),
        meant: Some(meant),
        passes: false,
    })
}

/// A DENY rule that matches more on TCP than it says. What Istio warns of itself is reported by the loader, and given
/// this request.
pub(super) fn widened(stage: Stage<'_>, rule: usize) -> Option<Proposal> {
    let of = stage.policy.rules.get(rule)?;
    let lists = rule_lists(rule, of);
    let bounded = |list: &List<'_>| list.field == Field::Port && !list.negated;
    if stage.policy.action != Action::Deny || !lists.iter().any(|list| list.field.is_http()) {
        return None;
    }
    // An alternative that nothing is left of matches everything.
    let open = of.to.iter().position(|operation| operation.ports.is_empty() && http(operation));
    if open.is_none() && lists.iter().any(bounded) {
        return None;
    }
    let mut meant = stage.policy.clone();
    meant.rules.remove(rule);
    let mut request = stage.setting("PAL0724").matching_side(rule, Side::To(open.unwrap_or(0)), Semantics::Tcp);
    let allowed = stage.base.is_some_and(|base| base.asks_port());
    if !allowed && !of.when.iter().any(|condition| condition.key == "destination.port") {
        request.destination.port = OTHER_PORT;
    }
    Some(Proposal {
        code: "PAL0724",
        field: format!("spec.rules[{rule}]"),
        message: "on a TCP port the rule also denies connections that its HTTP fields say nothing of".to_owned(),
        request,
        meant: Some(meant),
        passes: false,
    })
}

fn http(operation: &Operation) -> bool {
    let o = operation;
    [&o.hosts, &o.not_hosts, &o.methods, &o.not_methods, &o.paths, &o.not_paths].iter().any(|list| !list.is_empty())
}

/// A DENY rule that ztunnel never finds to match.
pub(super) fn lost_ambient(stage: Stage<'_>, list: &List<'_>) -> Option<Proposal> {
    let l4 = matches!(
        list.field,
        Field::Ip | Field::Namespace | Field::Principal | Field::ServiceAccount | Field::TrustDomain | Field::Port
    ) || list.field == Field::DestinationIp;
    if l4 || stage.policy.action != Action::Deny || is_gateway(stage) || bounded(stage, list)? {
        return None;
    }
    let mut meant = stage.policy.clone();
    strip_http(meant.rules.get_mut(list.rule)?);
    Some(Proposal {
        code: "PAL0725",
        field: list.path(),
        message: "in ambient mode the rule never matches".to_owned(),
        request: stage.setting("PAL0725").matching_side(list.rule, list.side, Semantics::L4),
        meant: Some(meant),
        passes: true,
    })
}

/// Whether the author has said for which ports the rule is, and so thinks of a proxy that reads HTTP there.
fn bounded(stage: Stage<'_>, list: &List<'_>) -> Option<bool> {
    let rule = stage.policy.rules.get(list.rule)?;
    let named = |operation: &Operation| !operation.ports.is_empty();
    let condition = rule.when.iter().any(|condition| condition.key == "destination.port");
    Some(match list.side {
        Side::To(index) => named(rule.to.get(index)?),
        Side::From(_) | Side::When(_) => condition || rule.to.iter().any(named),
    })
}

/// The rule without what ztunnel does not read; an alternative that nothing is left of matches anything.
fn strip_http(rule: &mut Rule) {
    for source in &mut rule.from {
        for list in [
            &mut source.request_principals,
            &mut source.not_request_principals,
            &mut source.remote_ip_blocks,
            &mut source.not_remote_ip_blocks,
        ] {
            list.clear();
        }
    }
    for operation in &mut rule.to {
        let ports = (std::mem::take(&mut operation.ports), std::mem::take(&mut operation.not_ports));
        *operation = Operation { ports: ports.0, not_ports: ports.1, ..Operation::default() };
    }
    if rule.from.contains(&Source::default()) {
        rule.from.clear();
    }
    if rule.to.contains(&Operation::default()) {
        rule.to.clear();
    }
    let read = ["source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port"];
    rule.when.retain(|condition| read.contains(&condition.key.as_str()));
}

/// Trust domains, which ztunnel is not told of.
pub(super) fn domains_ambient(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let Side::From(index) = slot.list.side else { return None };
    if slot.list.field != Field::TrustDomain || slot.list.negated || slot.value == "*" || slot.index > 0 {
        return None;
    }
    let source = stage.policy.rules.get(slot.list.rule)?.from.get(index)?;
    let beside = [&source.principals, &source.namespaces, &source.service_accounts, &source.ip_blocks];
    let alone = beside.iter().all(|list| list.is_empty());
    let mut request = stage.setting("PAL0726").matching(slot, Semantics::L4);
    let mut meant = stage.policy.clone();
    let rule = meant.rules.get_mut(slot.list.rule)?;
    if alone {
        let domain = format!("{}/*", slot.value.trim_matches('*'));
        rule.from.get_mut(index)?.principals = vec![domain];
    } else {
        let own = request.source.principal.as_deref()?;
        let (_, rest) = own.split_once('/')?;
        request.source.principal = Some(format!("other.example/{rest}"));
        meant.rules.remove(slot.list.rule);
    }
    let says = if alone { "matches nobody" } else { "is not looked at" };
    Some(Proposal {
        code: "PAL0726",
        field: slot.path(),
        message: format!("in ambient mode the trust domain {says}"),
        request,
        meant: Some(meant),
        passes: (stage.policy.action == Action::Allow) != alone,
    })
}

/// A client address that the client says itself.
pub(super) fn spoofed(stage: Stage<'_>, list: &List<'_>) -> Option<Proposal> {
    if list.field != Field::RemoteIp || is_gateway(stage) {
        return None;
    }
    let mut request = stage.setting("PAL0727").matching_side(list.rule, list.side, Semantics::Http);
    let listed = list.values.first().and_then(|value| value.split('/').next()).unwrap_or_default();
    let listed = listed.parse().unwrap_or(request.source.ip);
    let elsewhere = std::net::IpAddr::from([192, 0, 2, 55]);
    let (real, said) = if stage.closes(list) { (listed, elsewhere) } else { (elsewhere, listed) };
    request.source.ip = real;
    request.source.remote_ip = None;
    request.header("x-forwarded-for", &said.to_string());
    Some(Proposal {
        code: "PAL0727",
        field: list.path(),
        message: format!("a caller at {real} that sends `X-Forwarded-For: {said}` counts as {said}"),
        request,
        meant: Some(by_peer(stage.policy, list)?),
        passes: true,
    })
}

/// The policy with the TCP peer's address in place of the one that headers say.
fn by_peer(policy: &AuthorizationPolicy, list: &List<'_>) -> Option<AuthorizationPolicy> {
    let mut meant = policy.clone();
    let rule = meant.rules.get_mut(list.rule)?;
    match list.side {
        Side::From(index) => {
            let source = rule.from.get_mut(index)?;
            source.ip_blocks.append(&mut source.remote_ip_blocks);
            source.not_ip_blocks.append(&mut source.not_remote_ip_blocks);
        }
        Side::When(index) => "source.ip".clone_into(&mut rule.when.get_mut(index)?.key),
        Side::To(_) => return None,
    }
    Some(meant)
}

/// Whether the policy is for a gateway, which is told how many proxies stand before it.
fn is_gateway(stage: Stage<'_>) -> bool {
    let named = |key: &str, value: &str| key.contains("gateway") || value.contains("gateway");
    stage.workload.is_gateway_api() || stage.workload.labels.iter().any(|(key, value)| named(key, value))
}

/// A block of the other address family than the callers it is meant for.
pub(super) fn family(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    if !matches!(slot.list.field, Field::Ip | Field::RemoteIp | Field::DestinationIp) {
        return None;
    }
    let mapped = slot.value.strip_prefix("::ffff:").filter(|rest| rest.contains('.'));
    let meant = match (slot.value, mapped) {
        ("::/0", _) if !slot.list.values.iter().any(|value| value == "0.0.0.0/0") => "0.0.0.0/0".to_owned(),
        (_, Some(rest)) => rest.split('/').next()?.to_owned(),
        _ => return None,
    };
    let like = Slot { value: &meant, ..slot };
    Some(Proposal {
        code: "PAL0728",
        field: slot.path(),
        message: format!("`{}` matches no IPv4 caller", slot.value),
        request: stage.setting("PAL0728").matching(like, Semantics::Http),
        meant: Some(slot.instead(stage.policy, &[slot.value, &meant])?),
        passes: stage.closes(slot.list),
    })
}

/// A server name in upper case.
pub(super) fn server_name(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let lower = slot.value.to_lowercase();
    if slot.list.field != Field::Sni || lower == slot.value {
        return None;
    }
    let http =
        rule_lists(slot.list.rule, stage.policy.rules.get(slot.list.rule)?).iter().any(|list| list.field.is_http());
    let semantics = if http { Semantics::Http } else { Semantics::Tcp };
    let mut request = stage.setting("PAL0729").matching(slot, semantics);
    request.sni(&super::witness::concrete(slot.value, "app"));
    Some(Proposal {
        code: "PAL0729",
        field: slot.path(),
        message: format!("`{}` matches no name, not even itself", slot.value),
        request,
        meant: Some(slot.instead(stage.policy, &[&lower])?),
        passes: stage.closes(slot.list),
    })
}
