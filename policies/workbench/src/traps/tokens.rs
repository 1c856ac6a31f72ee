//! Tokens: request principals that no token has, and claims that are not what they are compared with.

use palisade_authz::Semantics;
use palisade_policies::{AuthorizationPolicy, Condition};
use serde_json::{Number, Value};

use super::slot::{Field, List, Side, Slot};
use super::witness::issuer_and_subject;
use super::{Proposal, Stage};

const HTTP: Semantics = Semantics::Http;

/// A request principal that is cut into an issuer and a subject of no token.
pub(super) fn request_principal(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    if slot.list.field != Field::RequestPrincipal || slot.value == "*" || slot.value.starts_with('*') {
        return None;
    }
    let (issuer, subject) = meant_token(stage, slot.value)?;
    let mut request = stage.setting("PAL0718").matching(slot, HTTP);
    request.claim(&["iss"], Value::from(issuer.clone()));
    request.claim(&["sub"], Value::from(subject));
    let (read_issuer, read_subject) = cut(slot.value);
    Some(Proposal {
        code: "PAL0718",
        field: slot.path(),
        message: format!("`{}` asks for the issuer `{read_issuer}` and the subject `{read_subject}`", slot.value),
        request,
        meant: Some(slot.instead(stage.policy, &[&format!("{issuer}/*")])?),
        passes: stage.closes(slot.list),
    })
}

/// Issuer and subject as they are read, wildcards kept.
fn cut(value: &str) -> (String, String) {
    match value.rsplit_once('/') {
        Some((issuer, subject)) => (issuer.to_owned(), subject.to_owned()),
        None if value.ends_with('*') => (value.to_owned(), "*".to_owned()),
        None => (value.to_owned(), String::new()),
    }
}

/// Issuer and subject of a token that the author probably thought of, where the value says something else.
fn meant_token(stage: Stage<'_>, value: &str) -> Option<(String, String)> {
    let (issuer, _) = cut(value);
    let alice = |issuer: String| (issuer, "alice".to_owned());
    if matches!(issuer.as_str(), "http:/" | "https:/") {
        // The last slash is the one of the scheme: no issuer is left.
        let domain = value.trim_end_matches('*');
        return Some(alice(if domain.contains('.') { domain.to_owned() } else { format!("{domain}.example") }));
    }
    if !value.contains(['/', '*']) {
        // An issuer alone asks for an empty subject.
        return Some(alice(value.to_owned()));
    }
    let policies = stage.scene.token_rules(stage.workload);
    let issuers: Vec<&str> =
        policies.iter().flat_map(|policy| &policy.rules).map(|rule| rule.issuer.as_str()).collect();
    if issuers.iter().any(|known| known.is_empty() || *known == issuer) || !value.contains('/') {
        return None;
    }
    // An issuer with a slash is a URI: of anything else the first part is the issuer, and the subject has a slash.
    if !value.contains("://")
        && let Some((first, rest)) = value.split_once('/').filter(|(_, rest)| rest.contains('/'))
    {
        return Some((first.to_owned(), rest.trim_end_matches('*').to_owned()));
    }
    let (_, subject) = issuer_and_subject(value);
    issuers.into_iter().find_map(|known| {
        let rest = value.strip_prefix(known).and_then(|rest| rest.strip_prefix('/'));
        match rest {
            // More slashes follow: the subject has one in it.
            Some(rest) if !rest.is_empty() => Some((known.to_owned(), rest.trim_end_matches('*').to_owned())),
            _ if known.strip_suffix('/') == Some(issuer.as_str()) => Some((known.to_owned(), subject.clone())),
            _ => None,
        }
    })
}

/// The one name of a claim that a condition on claims reads, and the condition's index.
fn claim<'a>(stage: Stage<'_>, list: &'a List<'_>) -> Option<(&'a [String], usize)> {
    let (Field::Claim(names), Side::When(index)) = (&list.field, list.side) else { return None };
    let key = &stage.policy.rules.get(list.rule)?.when.get(index)?.key;
    key.starts_with("request.auth.claims").then_some((names, index))
}

/// A value that is written like a boolean or a number, as the claim probably is.
pub(super) fn claim_type(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let (names, index) = claim(stage, slot.list)?;
    let typed = match slot.value {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Value::Number(digits.parse::<Number>().ok()?),
        _ => return None,
    };
    let mut request = stage.setting("PAL0719").matching(slot, HTTP);
    let path: Vec<&str> = names.iter().map(String::as_str).collect();
    request.claim(&path, typed);
    Some(Proposal {
        code: "PAL0719",
        field: slot.path(),
        message: format!(
            "the claim matches only if it is the text \"{0}\", not the {1} {0}",
            slot.value,
            what(slot.value)
        ),
        request,
        meant: Some(decided(stage, slot.list, index)?),
        passes: stage.closes(slot.list),
    })
}

fn what(value: &str) -> &'static str {
    if matches!(value, "true" | "false") { "boolean" } else { "number" }
}

/// The policy with a condition that holds, or for `notValues` one that does not.
fn decided(stage: Stage<'_>, list: &List<'_>, index: usize) -> Option<AuthorizationPolicy> {
    let mut policy = stage.policy.clone();
    let rule = policy.rules.get_mut(list.rule)?;
    if list.negated {
        let condition = rule.when.get_mut(index)?;
        // No request has such a claim.
        *condition = Condition { key: condition.key.clone(), values: vec!["\u{0}".to_owned()], not_values: Vec::new() };
    } else {
        rule.when.remove(index);
    }
    Some(policy)
}

/// A claim within a claim, written with a dot.
pub(super) fn claim_dot(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let (names, index) = claim(stage, slot.list)?;
    let [name] = names else { return None };
    // Names of claims that are URIs have dots by right.
    if !name.contains('.') || name.contains(['/', ':']) || name.split('.').any(str::is_empty) {
        return None;
    }
    let key = format!("request.auth.claims[{}]", name.replace('.', "]["));
    let mut meant = stage.policy.clone();
    meant.rules.get_mut(slot.list.rule)?.when.get_mut(index)?.key.clone_from(&key);
    let setting = super::Setting { policy: &meant, ..stage.setting("PAL0720") };
    let mut request = setting.matching(slot, HTTP);
    if slot.list.negated {
        let path: Vec<&str> = name.split('.').collect();
        request.claim(&path, Value::from(slot.value));
    }
    let message = format!("`{name}` is read as one name; the claim within a claim is `{key}`");
    Some(Proposal {
        code: "PAL0720",
        field: slot.path(),
        message,
        request,
        passes: stage.closes(slot.list),
        meant: Some(meant),
    })
}

/// A value with a blank, of a claim that is split at blanks.
pub(super) fn claim_split(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let (names, _) = claim(stage, slot.list)?;
    let [name] = names else { return None };
    let word = slot.value.split(' ').find(|word| !word.is_empty())?;
    let policies = stage.scene.token_rules(stage.workload);
    let mut rules = policies.iter().flat_map(|policy| &policy.rules);
    let always = matches!(name.as_str(), "scope" | "permission");
    let split = always || rules.any(|rule| rule.space_delimited_claims.iter().any(|claim| claim == name));
    if !split || !slot.value.contains(' ') {
        return None;
    }
    let mut request = stage.setting("PAL0721").matching(slot, HTTP);
    // What only a RequestAuthentication names is a list once the token is verified.
    let words: Value = slot.value.split(' ').collect();
    request.claim(&[name], if always { Value::from(slot.value) } else { words });
    Some(Proposal {
        code: "PAL0721",
        field: slot.path(),
        message: format!("`{name}` is split at blanks: `{}` matches no word of it", slot.value),
        request,
        meant: Some(slot.instead(stage.policy, &[word])?),
        passes: stage.closes(slot.list),
    })
}
