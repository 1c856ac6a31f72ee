//! Scenes with fewer policies, rules, alternatives and values.

use std::sync::Arc;

use palisade_policies::{
    AuthorizationPolicy, Condition, JwksSource, JwtRule, Operation, RequestAuthentication, Rule, Source,
};
use serde_json::Value;

use super::text::{shorter, without_one};
use crate::conformance::scene::Scene;

/// Whole policies and token rules away.
pub(super) fn without_policies(scene: &Scene) -> Vec<Scene> {
    let fewer = without_one(&scene.policies).into_iter().map(|policies| Scene { policies, ..scene.clone() });
    let untrusted = if scene.trusts_claims() { Vec::new() } else { without_one(&scene.authentications) };
    let tokens = untrusted.into_iter().map(|authentications| Scene { authentications, ..scene.clone() });
    fewer.chain(tokens).collect()
}

/// Parts of single policies away, the largest first.
pub(super) fn without_parts(scene: &Scene) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for (at, policy) in scene.policies.iter().enumerate() {
        for smaller in policy_parts(policy) {
            let mut scene = scene.clone();
            if let Some(slot) = scene.policies.get_mut(at) {
                *slot = Arc::new(smaller);
            }
            scenes.push(scene);
        }
    }
    if !scene.trusts_claims() {
        for (at, policy) in scene.authentications.iter().enumerate() {
            for smaller in token_parts(policy) {
                let mut scene = scene.clone();
                if let Some(slot) = scene.authentications.get_mut(at) {
                    *slot = Arc::new(smaller);
                }
                scenes.push(scene);
            }
        }
    }
    scenes
}

fn policy_parts(policy: &AuthorizationPolicy) -> Vec<AuthorizationPolicy> {
    let with = |rules: Vec<Rule>| AuthorizationPolicy { rules, ..policy.clone() };
    let mut result: Vec<AuthorizationPolicy> = without_one(&policy.rules).into_iter().map(with).collect();
    for (at, rule) in policy.rules.iter().enumerate() {
        for smaller in rule_parts(rule) {
            let mut rules = policy.rules.clone();
            if let Some(slot) = rules.get_mut(at) {
                *slot = smaller;
            }
            result.push(with(rules));
        }
    }
    result
}

/// A list with one of its items replaced by each of its smaller forms.
fn each<T: Clone>(items: &[T], smaller: impl Fn(&T) -> Vec<T>) -> Vec<Vec<T>> {
    let mut result = without_one(items);
    for (at, item) in items.iter().enumerate() {
        for form in smaller(item) {
            let mut items = items.to_vec();
            if let Some(slot) = items.get_mut(at) {
                *slot = form;
            }
            result.push(items);
        }
    }
    result
}

fn rule_parts(rule: &Rule) -> Vec<Rule> {
    let from = each(&rule.from, source_parts).into_iter().map(|from| Rule { from, ..rule.clone() });
    let to = each(&rule.to, operation_parts).into_iter().map(|to| Rule { to, ..rule.clone() });
    let when = each(&rule.when, condition_parts).into_iter().map(|when| Rule { when, ..rule.clone() });
    from.chain(to).chain(when).collect()
}

/// Smaller forms of one list of values; never the empty one, which would constrain nothing.
fn values(list: &[String]) -> Vec<Vec<String>> {
    let fits = |list: &Vec<String>| !list.is_empty() && list.iter().all(|value| !value.is_empty());
    let plain = |value: &String| if value.contains(['{', '}']) { Vec::new() } else { shorter(value) };
    each(list, plain).into_iter().filter(fits).collect()
}

type List<T> = fn(&mut T) -> &mut Vec<String>;

fn lists<T: Clone>(whole: &T, lists: &[List<T>]) -> Vec<T> {
    let mut result = Vec::new();
    for list in lists {
        let mut copy = whole.clone();
        let own = std::mem::take(list(&mut copy));
        if own.is_empty() {
            continue;
        }
        result.push(copy);
        for smaller in values(&own) {
            let mut copy = whole.clone();
            *list(&mut copy) = smaller;
            result.push(copy);
        }
    }
    result
}

fn source_parts(source: &Source) -> Vec<Source> {
    lists(
        source,
        &[
            |s| &mut s.principals,
            |s| &mut s.not_principals,
            |s| &mut s.request_principals,
            |s| &mut s.not_request_principals,
            |s| &mut s.namespaces,
            |s| &mut s.not_namespaces,
            |s| &mut s.service_accounts,
            |s| &mut s.not_service_accounts,
            |s| &mut s.trust_domains,
            |s| &mut s.not_trust_domains,
            |s| &mut s.ip_blocks,
            |s| &mut s.not_ip_blocks,
            |s| &mut s.remote_ip_blocks,
            |s| &mut s.not_remote_ip_blocks,
        ],
    )
}

fn operation_parts(operation: &Operation) -> Vec<Operation> {
    lists(
        operation,
        &[
            |o| &mut o.hosts,
            |o| &mut o.not_hosts,
            |o| &mut o.ports,
            |o| &mut o.not_ports,
            |o| &mut o.methods,
            |o| &mut o.not_methods,
            |o| &mut o.paths,
            |o| &mut o.not_paths,
        ],
    )
}

fn condition_parts(condition: &Condition) -> Vec<Condition> {
    lists(condition, &[|c| &mut c.values, |c| &mut c.not_values])
}

fn token_parts(policy: &RequestAuthentication) -> Vec<RequestAuthentication> {
    let rules = each(&policy.rules, token_rule_parts).into_iter();
    rules.map(|rules| RequestAuthentication { rules, ..policy.clone() }).collect()
}

fn token_rule_parts(rule: &JwtRule) -> Vec<JwtRule> {
    let with = |change: &dyn Fn(&mut JwtRule)| {
        let mut copy = rule.clone();
        change(&mut copy);
        copy
    };
    let mut result = vec![
        with(&|rule| rule.output_claim_to_headers.clear()),
        with(&|rule| rule.output_payload_to_header = None),
        with(&|rule| rule.audiences.clear()),
        with(&|rule| rule.space_delimited_claims.clear()),
        with(&|rule| rule.forward_original_token = false),
    ];
    result.retain(|smaller| smaller != rule);
    for from_headers in without_one(&rule.from_headers) {
        result.push(JwtRule { from_headers, ..rule.clone() });
    }
    for output_claim_to_headers in without_one(&rule.output_claim_to_headers) {
        result.push(JwtRule { output_claim_to_headers, ..rule.clone() });
    }
    result.extend(lists(
        rule,
        &[|rule| &mut rule.from_params, |rule| &mut rule.from_cookies, |rule| &mut rule.audiences],
    ));
    if let JwksSource::Inline(text) = &rule.jwks
        && let Some(keys) = serde_json::from_str::<Value>(text).ok().and_then(|set| set["keys"].as_array().cloned())
    {
        // Envoy takes no set without a key.
        for fewer in without_one(&keys).into_iter().filter(|keys| !keys.is_empty()) {
            let set = serde_json::json!({ "keys": fewer }).to_string();
            result.push(JwtRule { jwks: JwksSource::Inline(set), ..rule.clone() });
        }
    }
    result
}
