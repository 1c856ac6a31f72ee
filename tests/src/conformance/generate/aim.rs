//! Requests that are meant to match a rule: every positive list finds one of its values.

use std::net::IpAddr;

use palisade_policies::{AuthorizationPolicy, Condition, Operation, Rule, Source};
use serde_json::{Map, Value};

use crate::conformance::dice::Dice;
use crate::conformance::scene::METADATA;

use super::text;
use super::world::World;
use super::{claims, request};

/// What a request is to be like; what is `None` is chosen freely.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) principal: Option<String>,
    pub(super) source: Option<IpAddr>,
    pub(super) remote: Option<IpAddr>,
    pub(super) destination: Option<IpAddr>,
    pub(super) port: Option<u16>,
    pub(super) sni: Option<String>,
    pub(super) metadata: Option<Value>,
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
    pub(super) host: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) claims: Map<String, Value>,
}

/// A draft for one of the rules.
pub(super) fn aim(dice: &mut Dice, world: &World, policies: &[impl AsRef<AuthorizationPolicy>]) -> Draft {
    let mut draft = Draft::default();
    let Some(policy) = dice.pick_any(policies).map(AsRef::as_ref) else { return draft };
    let Some(rule) = dice.pick_any(&policy.rules) else { return draft };
    rule_into(dice, world, rule, &policy.meta.namespace, &mut draft);
    // Another rule may want the rest: rules of different actions meet in one request.
    if dice.chance(30)
        && let Some(other) = dice.pick_any(policies).and_then(|policy| dice.pick_any(&policy.as_ref().rules))
    {
        rule_into(dice, world, other, &policy.meta.namespace, &mut draft);
    }
    draft
}

fn rule_into(dice: &mut Dice, world: &World, rule: &Rule, namespace: &str, draft: &mut Draft) {
    if let Some(source) = dice.pick_any(&rule.from) {
        source_into(dice, world, source, namespace, draft);
    }
    if let Some(operation) = dice.pick_any(&rule.to) {
        operation_into(dice, world, operation, draft);
    }
    for condition in &rule.when {
        condition_into(dice, world, condition, namespace, draft);
    }
}

/// One of the values, or, to miss a negation, one that must not match.
fn choose<'a>(dice: &mut Dice, values: &'a [String], not_values: &'a [String]) -> Option<&'a str> {
    let list = if values.is_empty() && dice.chance(40) { not_values } else { values };
    dice.pick_any(list).map(String::as_str)
}

fn source_into(dice: &mut Dice, world: &World, s: &Source, namespace: &str, draft: &mut Draft) {
    let lists = [
        ("source.principal", &s.principals, &s.not_principals),
        ("request.auth.principal", &s.request_principals, &s.not_request_principals),
        ("source.namespace", &s.namespaces, &s.not_namespaces),
        ("source.serviceAccount", &s.service_accounts, &s.not_service_accounts),
        ("source.trustDomain", &s.trust_domains, &s.not_trust_domains),
        ("source.ip", &s.ip_blocks, &s.not_ip_blocks),
        ("remote.ip", &s.remote_ip_blocks, &s.not_remote_ip_blocks),
    ];
    for (key, values, not_values) in lists {
        if let Some(value) = choose(dice, values, not_values) {
            attribute(dice, world, (key, value), namespace, draft);
        }
    }
}

fn operation_into(dice: &mut Dice, world: &World, o: &Operation, draft: &mut Draft) {
    if let Some(value) = choose(dice, &o.hosts, &o.not_hosts) {
        draft.host = Some(text::instance(dice, value, &world.hosts));
    }
    if let Some(value) = choose(dice, &o.methods, &o.not_methods) {
        draft.method = Some(text::instance(dice, value, &world.methods));
    }
    if let Some(value) = choose(dice, &o.ports, &o.not_ports) {
        draft.port = value.parse().ok();
    }
    if let Some(value) = choose(dice, &o.paths, &o.not_paths) {
        draft.path = Some(request::path_like(dice, world, value));
    }
}

fn condition_into(dice: &mut Dice, world: &World, condition: &Condition, namespace: &str, draft: &mut Draft) {
    if let Some(value) = choose(dice, &condition.values, &condition.not_values) {
        attribute(dice, world, (&condition.key, value), namespace, draft);
    }
}

fn attribute(dice: &mut Dice, world: &World, (key, value): (&str, &str), namespace: &str, draft: &mut Draft) {
    let identity = |dice: &mut Dice, domain: Option<String>, ns: Option<String>, account: Option<String>| {
        let domain = domain.unwrap_or_else(|| dice.pick(&world.trust_domains).clone());
        let ns = ns.unwrap_or_else(|| dice.pick(&world.namespaces).clone());
        let account = account.unwrap_or_else(|| dice.pick(&world.accounts).clone());
        Some(world.shaped(dice, &domain, &ns, &account))
    };
    match key {
        "source.principal" => draft.principal = Some(principal(dice, world, value)),
        "source.namespace" => {
            let name = text::instance(dice, value, &world.namespaces).replace('*', "x");
            draft.principal = identity(dice, None, Some(name), None);
        }
        "source.serviceAccount" => {
            let (name, account) = value.split_once('/').unwrap_or((namespace, value));
            draft.principal = identity(dice, None, Some(name.to_owned()), Some(account.to_owned()));
        }
        "source.trustDomain" => {
            let name = text::instance(dice, value, &world.trust_domains).replace('*', "x");
            draft.principal = identity(dice, Some(name), None, None);
        }
        "source.ip" => draft.source = address(dice, value),
        "remote.ip" => draft.remote = address(dice, value),
        "destination.ip" => draft.destination = address(dice, value),
        "destination.port" => draft.port = value.parse().ok(),
        "connection.sni" => draft.sni = Some(text::instance(dice, value, &world.servers)),
        "request.auth.principal" => request_principal(dice, world, value, draft),
        "request.auth.audiences" => claim(dice, world, "[aud]", value, draft),
        "request.auth.presenter" => claim(dice, world, "[azp]", value, draft),
        _ => mapped(dice, world, key, value, draft),
    }
}

fn mapped(dice: &mut Dice, world: &World, key: &str, value: &str, draft: &mut Draft) {
    if let Some(path) = key.strip_prefix("request.auth.claims") {
        return claim(dice, world, path, value, draft);
    }
    if let Some(name) = key.strip_prefix("request.headers[").and_then(|name| name.strip_suffix(']')) {
        let text = text::instance(dice, value, &world.texts);
        match name {
            "Host" | ":authority" => draft.host = Some(text),
            ":path" => draft.path = Some(request::path_like(dice, world, value)),
            ":method" => draft.method = Some(text),
            _ => draft.headers.push((name.to_owned(), text)),
        }
        return;
    }
    if key.contains(METADATA.0) {
        let inner = value.trim_matches(['[', ']']);
        let text = Value::from(text::instance(dice, inner, &world.texts));
        draft.metadata = Some(if dice.chance(50) { text } else { Value::Array(vec![Value::Null, text]) });
    }
}

fn principal(dice: &mut Dice, world: &World, value: &str) -> String {
    let value = value.strip_prefix("spiffe://").filter(|_| dice.chance(80)).unwrap_or(value);
    // The mesh has several names: any of them may stand for the one in the policy.
    if let Some((_, rest)) = value.split_once('/').filter(|_| dice.chance(40)) {
        return format!(
            "{}/{}",
            dice.pick(&world.trust_domains),
            rest.replace('*', dice.pick(&world.accounts).as_str())
        );
    }
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        _ if value == "*" => world.principal(dice),
        (Some(suffix), _) => format!("{}{suffix}", dice.pick(&world.trust_domains)),
        (None, Some(prefix)) => {
            let full = format!("ns/{}/sa/{}", dice.pick(&world.namespaces), dice.pick(&world.accounts));
            let tail: String = if prefix.contains("/sa/") { dice.pick(&world.accounts).clone() } else { full };
            format!("{prefix}{tail}")
        }
        (None, None) => value.to_owned(),
    }
}

fn request_principal(dice: &mut Dice, world: &World, value: &str, draft: &mut Draft) {
    let (issuer, subject) = value.rsplit_once('/').unwrap_or((value, "*"));
    let issuer = text::instance(dice, issuer, &world.issuers);
    let subject = text::instance(dice, subject, &world.subjects);
    draft.claims.insert("iss".to_owned(), issuer.into());
    draft.claims.insert("sub".to_owned(), subject.into());
}

fn claim(dice: &mut Dice, world: &World, path: &str, value: &str, draft: &mut Draft) {
    let inner = path.strip_prefix('[').and_then(|path| path.strip_suffix(']')).unwrap_or(path);
    let path: Vec<String> = inner.split("][").map(str::to_owned).collect();
    let value = claims::instance(dice, world, value);
    claims::set(&mut draft.claims, &path, value);
}

/// An address in a block: its first, or one nearby.
fn address(dice: &mut Dice, block: &str) -> Option<IpAddr> {
    let (address, length) = block.split_once('/').unwrap_or((block, ""));
    let address: IpAddr = address.parse().ok()?;
    let host_bits = length.parse::<u32>().map_or(0, |length| match address {
        IpAddr::V4(_) => 32_u32.saturating_sub(length),
        IpAddr::V6(_) => 128_u32.saturating_sub(length),
    });
    if dice.chance(50) {
        return Some(address);
    }
    // One bit flipped, inside the block or just outside.
    let bit = u32::try_from(dice.below(usize::try_from(host_bits).unwrap_or_default() + 1)).unwrap_or_default();
    Some(match address {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) ^ 1_u32.checked_shl(bit).unwrap_or_default()).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) ^ 1_u128.checked_shl(bit).unwrap_or_default()).into()),
    })
}
