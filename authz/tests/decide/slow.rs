//! The obvious evaluator: it re-reads the policies for every request, builds every string and regular
//! expression that Istio would emit, and shares no code with the engine. Slow on purpose.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use palisade_authz::Semantics;
use palisade_policies::{Action, AuthorizationPolicy, Rule};
use regex::Regex;
use serde_json::Value;

use crate::ask::Ask;

/// The decision and the id of the rule that made it, with the trust domain `cluster.local` and no aliases.
pub(crate) fn decide(
    policies: &[AuthorizationPolicy],
    semantics: Semantics,
    path: Option<&str>,
    ask: &Ask,
) -> (bool, Option<String>) {
    let eye = Eye { semantics, path, ask };
    let mut attached = false;
    let mut ids = Vec::new();
    for action in [Action::Deny, Action::Allow] {
        for policy in policies.iter().filter(|policy| policy.action == action && !policy.dry_run) {
            attached |= action == Action::Allow;
            for (index, rule) in policy.rules.iter().enumerate() {
                if eye.rule(policy, rule) {
                    ids.push(format!("ns[{}]-policy[{}]-rule[{index}]", policy.meta.namespace, policy.meta.name));
                }
            }
        }
        ids.sort();
        if let Some(first) = ids.first() {
            return (action == Action::Allow, Some(first.clone()));
        }
    }
    (!attached, None)
}

struct Eye<'a> {
    semantics: Semantics,
    path: Option<&'a str>,
    ask: &'a Ask,
}

/// A field: its key, values, negative values.
type Field<'a> = (&'a str, &'a [String], &'a [String]);

/// Every list of alternatives of a rule, all of which must hold.
fn groups(rule: &Rule) -> Vec<Vec<Vec<Field<'_>>>> {
    let when = rule.when.iter();
    let mut groups: Vec<_> =
        when.map(|c| vec![vec![(c.key.as_str(), c.values.as_slice(), c.not_values.as_slice())]]).collect();
    let from = rule.from.iter().map(|s| {
        vec![
            ("source.principal", &s.principals[..], &s.not_principals[..]),
            ("request.auth.principal", &s.request_principals, &s.not_request_principals),
            ("source.namespace", &s.namespaces, &s.not_namespaces),
            ("source.serviceAccount", &s.service_accounts, &s.not_service_accounts),
            ("source.trustDomain", &s.trust_domains, &s.not_trust_domains),
            ("source.ip", &s.ip_blocks, &s.not_ip_blocks),
            ("remote.ip", &s.remote_ip_blocks, &s.not_remote_ip_blocks),
        ]
    });
    let to = rule.to.iter().map(|o| {
        vec![
            ("hosts", &o.hosts[..], &o.not_hosts[..]),
            ("methods", &o.methods, &o.not_methods),
            ("paths", &o.paths, &o.not_paths),
            ("destination.port", &o.ports, &o.not_ports),
        ]
    });
    groups.extend([from.collect::<Vec<_>>(), to.collect()].into_iter().filter(|side| !side.is_empty()));
    groups
}

impl Eye<'_> {
    fn rule(&self, policy: &AuthorizationPolicy, rule: &Rule) -> bool {
        let mut groups = groups(rule);
        // An alternative of an object field holds only what is written in it.
        for alternative in groups.iter_mut().flatten() {
            alternative.retain(|(_, values, not_values)| !values.is_empty() || !not_values.is_empty());
        }
        let allow = policy.action == Action::Allow;
        let mut fields = groups.iter().flatten().flatten();
        if allow && fields.any(|(key, ..)| !self.speaks(key)) {
            return false;
        }
        groups.iter().all(|alternatives| alternatives.iter().any(|fields| self.alternative(policy, fields)))
    }

    /// Whether the evaluator understands the key.
    fn speaks(&self, key: &str) -> bool {
        let http = matches!(key, "hosts" | "methods" | "paths") || key.starts_with("request.");
        match self.semantics {
            Semantics::Http => true,
            Semantics::Tcp => !http,
            // Not understood and not noticed either: `trustDomains` inside a source (tests use it nowhere else).
            Semantics::L4 => {
                !http && !matches!(key, "remote.ip" | "connection.sni") && !key.starts_with("experimental.")
            }
        }
    }

    fn alternative(&self, policy: &AuthorizationPolicy, fields: &[Field<'_>]) -> bool {
        let l4 = self.semantics == Semantics::L4;
        let heard = |key: &str| self.speaks(key) && !(l4 && key == "source.trustDomain");
        let mut spoken = fields.iter().filter(|(key, ..)| heard(key)).peekable();
        if l4 && spoken.peek().is_none() {
            return false;
        }
        spoken.all(|(key, values, not_values)| {
            let holds = |value: &String| self.value(policy, key, value);
            (values.is_empty() || values.iter().any(holds)) && !not_values.iter().any(holds)
        })
    }

    fn value(&self, policy: &AuthorizationPolicy, key: &str, value: &str) -> bool {
        let ask = self.ask;
        match key {
            "source.ip" => inside(value, ask.ip),
            "remote.ip" => inside(value, ask.remote_ip),
            "destination.ip" => inside(value, ask.destination_ip),
            "destination.port" => ask.port.is_some_and(|port| value.parse() == Ok(port)),
            "connection.sni" => ask.sni.as_ref().is_some_and(|sni| string(value, &sni.to_lowercase(), false)),
            "hosts" => self
                .http(ask.host.as_deref())
                .is_some_and(|host| string(&value.to_lowercase(), &host.to_lowercase(), true)),
            "methods" => self.http(ask.method.as_deref()).is_some_and(|method| string(value, method, true)),
            "paths" => self.http(self.path).is_some_and(|path| path_value(value, path)),
            "request.auth.principal" => ask.claims.as_ref().is_some_and(|claims| request_principal(value, claims)),
            "request.auth.audiences" => self.map("request.auth.claims[aud]", value),
            "request.auth.presenter" => self.map("request.auth.claims[azp]", value),
            _ if key.starts_with("source.") => self.peer(policy, key, value),
            _ => self.map(key, value),
        }
    }

    fn http<'v>(&self, value: Option<&'v str>) -> Option<&'v str> {
        value.filter(|_| !self.ask.tcp)
    }

    /// Istio's own regular expressions over the whole URI.
    fn peer(&self, policy: &AuthorizationPolicy, key: &str, value: &str) -> bool {
        let Some(peer) = &self.ask.principal else { return false };
        let quoted: Vec<String> = value.split('*').map(regex::escape).collect();
        let (namespace, account) = value.split_once('/').unwrap_or((&policy.meta.namespace, value));
        let (namespace, account) = (regex::escape(namespace), regex::escape(account));
        let pattern = match (key, self.semantics) {
            ("source.principal", Semantics::L4) => format!("spiffe://{}", star(value)),
            ("source.namespace", Semantics::L4) => format!("spiffe://[^/]*/ns/{}/sa/[^/]*", star(value)),
            ("source.serviceAccount", Semantics::L4) => format!("spiffe://[^/]*/ns/{namespace}/sa/{account}"),
            ("source.principal", _) => format!("spiffe://{}", star(value)),
            ("source.namespace", _) => format!(".*/ns/{}/.*", quoted.join(".*")),
            ("source.serviceAccount", _) => format!("spiffe://.+/ns/{namespace}/(.+/|)sa/{account}(/.+)?"),
            ("source.trustDomain", _) if value == "*" => "spiffe://.*".to_owned(),
            ("source.trustDomain", _) => format!("spiffe://{}/.*", quoted.join("[^/]*")),
            _ => return false,
        };
        let five = full("[^/]*/ns/[^/]*/sa/[^/]*", peer);
        (self.semantics != Semantics::L4 || five) && full(&pattern, &format!("spiffe://{peer}"))
    }

    fn map(&self, key: &str, value: &str) -> bool {
        let inner = key.split_once('[').map(|(_, rest)| rest.trim_end_matches(']')).unwrap_or_default();
        if key.starts_with("request.headers[") {
            let name = inner.to_lowercase();
            let mut instances: Vec<String> = match name.as_str() {
                ":method" => self.ask.method.iter().cloned().collect(),
                "host" | ":authority" => self.ask.host.iter().cloned().collect(),
                _ => self
                    .ask
                    .headers
                    .iter()
                    .filter(|(header, _)| header.to_lowercase() == name)
                    .map(|(_, v)| v.clone())
                    .collect(),
            };
            if matches!(name.as_str(), "accept" | "user-agent" | "x-forwarded-for") && !instances.is_empty() {
                instances.retain(|instance| !instance.is_empty());
                instances = vec![instances.join(",")];
            }
            return !self.ask.tcp && instances.iter().any(|instance| string(value, instance, true));
        }
        if key.starts_with("request.auth.claims[") {
            let mut found = self.ask.claims.as_ref();
            for part in inner.split("][") {
                found = found.and_then(|claims| claims.as_object()?.get(part));
            }
            return found.is_some_and(|claim| claim_value(inner, value, claim));
        }
        let filter = key.trim_start_matches("experimental.").split('[').next().unwrap_or_default();
        let found = self.ask.metadata.as_ref().and_then(|metadata| metadata.get(filter)?.get(inner));
        match value.strip_prefix('[').and_then(|v| v.strip_suffix(']')) {
            Some(value) => found
                .and_then(Value::as_array)
                .is_some_and(|list| list.iter().any(|v| v.as_str().is_some_and(|v| string(value, v, false)))),
            None => found.and_then(Value::as_str).is_some_and(|v| string(value, v, false)),
        }
    }
}

fn claim_value(path: &str, value: &str, claim: &Value) -> bool {
    let list = match claim {
        Value::String(words) if (path == "scope" || path == "permission") && !words.trim_matches(' ').is_empty() => {
            words.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()
        }
        Value::String(one) => vec![one.clone()],
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    list.iter().any(|item| string(value, item, false))
}

/// The table of section 4.10, row by row.
fn request_principal(value: &str, claims: &Value) -> bool {
    let (Some(iss), Some(sub)) = (claims["iss"].as_str(), claims["sub"].as_str()) else { return false };
    match value.rsplit_once('/') {
        None if value == "*" => !iss.is_empty() && !sub.is_empty(),
        None if value.starts_with('*') => !iss.is_empty() && sub.ends_with(&value[1..]),
        None if value.ends_with('*') => iss.starts_with(&value[..value.len() - 1]) && !sub.is_empty(),
        None => iss == value && sub.is_empty(),
        Some(("*", s)) => !iss.is_empty() && sub == s,
        Some((x, s)) if value.starts_with('*') => iss.ends_with(&x[1..]) && sub == s,
        Some((i, "*")) => iss == i && !sub.is_empty(),
        Some((i, p)) if p.ends_with('*') => iss == i && sub.starts_with(&p[..p.len() - 1]),
        Some((i, s)) => iss == i && sub == s,
    }
}

fn path_value(value: &str, path: &str) -> bool {
    if !value.contains("{*}") && !value.contains("{**}") {
        return string(value, path, false);
    }
    let class = "A-Za-z0-9\\-._~%!$&'()*+,;:=@";
    let pattern = regex::escape(value)
        .replace(&regex::escape("{**}"), &format!("[{class}/]*"))
        .replace(&regex::escape("{*}"), &format!("[{class}]+"));
    full(&pattern, path)
}

fn string(value: &str, text: &str, present: bool) -> bool {
    if value == "*" && present { true } else { full(&star(value), text) }
}

/// `*`, `*suffix`, `prefix*`, exact as an expression.
fn star(value: &str) -> String {
    if value == "*" {
        ".+".to_owned()
    } else if let Some(suffix) = value.strip_prefix('*') {
        format!("(?s:.*){}", regex::escape(suffix))
    } else if let Some(prefix) = value.strip_suffix('*') {
        format!("{}(?s:.*)", regex::escape(prefix))
    } else {
        regex::escape(value)
    }
}

fn full(pattern: &str, text: &str) -> bool {
    thread_local! {
        static KNOWN: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        let regex = known.entry(pattern.to_owned());
        regex.or_insert_with(|| Regex::new(&format!(r"\A(?:{pattern})\z")).unwrap()).is_match(text)
    })
}

fn inside(block: &str, ip: Option<IpAddr>) -> bool {
    let (address, bits) =
        block.split_once('/').map_or((block, None), |(address, bits)| (address, bits.parse::<u32>().ok()));
    match (address.parse().unwrap(), ip) {
        (IpAddr::V4(net), Some(IpAddr::V4(ip))) => {
            let keep = bits.unwrap_or(32);
            keep == 0 || (u32::from(net) ^ u32::from(ip)) >> (32 - keep) == 0
        }
        (IpAddr::V6(net), Some(IpAddr::V6(ip))) => {
            let keep = bits.unwrap_or(128);
            keep == 0 || (u128::from(net) ^ u128::from(ip)) >> (128 - keep) == 0
        }
        _ => false,
    }
}
