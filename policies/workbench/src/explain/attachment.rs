//! Which policies were asked, and why the others were not: the first question about a policy without effect.

use std::collections::HashSet;

use palisade_authz::Semantics;
use palisade_policies::{Action, AuthorizationPolicy, Meta, Selector, TargetRef};
use serde::Serialize;

use crate::eval::court::Court;
use crate::input::Input;

/// The policies of the resources, by whether they concern the workload.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policies {
    /// Those that were asked.
    pub attached: Vec<Policy>,
    /// Those that were not.
    pub not_attached: Vec<Policy>,
}

/// One policy.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// `AuthorizationPolicy` or `RequestAuthentication`.
    pub kind: &'static str,
    /// `namespace/name`.
    pub policy: String,
    /// `ALLOW`, `DENY`, `AUDIT` or `CUSTOM`; none for a RequestAuthentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<&'static str>,
    /// Whether it is in a dry run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// File and line.
    pub at: String,
    /// Why it does not concern the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Who has a say about a request. Token rules have one only if tokens are looked at.
pub(super) fn of(court: &Court, input: &Input, authenticate: bool) -> Policies {
    let mut policies = Policies { attached: Vec::new(), not_attached: Vec::new() };
    let names = |semantics| -> HashSet<String> {
        court.attached(input, semantics).iter().map(|policy| policy.meta.to_string()).collect()
    };
    let (asked, selected) = (names(input.semantics), names(Semantics::Http));
    for policy in &court.resources.authorization_policies {
        let name = policy.meta.to_string();
        let why = (!asked.contains(&name)).then(|| why(court, input, policy, selected.contains(&name)));
        let entry = Policy {
            kind: "AuthorizationPolicy",
            policy: name,
            action: Some(policy.action.as_str()),
            dry_run: policy.dry_run,
            at: policy.meta.origin.to_string(),
            why,
        };
        policies.add(entry);
    }
    let asked = court.tokens(input);
    for tokens in &court.resources.request_authentications {
        let why = if !asked.iter().any(|one| one.meta == tokens.meta) {
            Some(not_selected(court, input, &tokens.meta, (tokens.selector.as_ref(), &tokens.target_refs)))
        } else if input.semantics != Semantics::Http {
            Some("without HTTP there are no tokens".to_owned())
        } else {
            (!authenticate).then(|| "tokens are not looked at without --authenticate".to_owned())
        };
        let (policy, at) = (tokens.meta.to_string(), tokens.meta.origin.to_string());
        policies.add(Policy { kind: "RequestAuthentication", policy, action: None, dry_run: false, at, why });
    }
    policies
}

impl Policies {
    fn add(&mut self, policy: Policy) {
        let list = if policy.why.is_none() { &mut self.attached } else { &mut self.not_attached };
        list.push(policy);
    }
}

/// Why a policy was not asked; `selected` says whether a sidecar would ask it.
fn why(court: &Court, input: &Input, policy: &AuthorizationPolicy, selected: bool) -> String {
    if !selected {
        return not_selected(court, input, &policy.meta, (policy.selector.as_ref(), &policy.target_refs));
    }
    // What is left is what ztunnel is not told of.
    match policy.action {
        Action::Audit | Action::Custom { .. } => format!("ztunnel does not know the action {}", policy.action.as_str()),
        _ if policy.dry_run => "ztunnel is not told of policies in a dry run".to_owned(),
        _ => "in ambient mode an empty selector selects nothing".to_owned(),
    }
}

fn not_selected(court: &Court, input: &Input, meta: &Meta, by: (Option<&Selector>, &[TargetRef])) -> String {
    let workload = &input.workload;
    let (selector, targets) = by;
    if meta.namespace != workload.namespace && meta.namespace != court.mesh.root_namespace {
        return format!("it is in the namespace `{}`, the workload in `{}`", meta.namespace, workload.namespace);
    }
    if !targets.is_empty() {
        let names: Vec<String> = targets.iter().map(|target| format!("{} `{}`", target.kind, target.name)).collect();
        return format!("it is attached to {} by targetRefs", names.join(", "));
    }
    if workload.says_waypoint() {
        return "a waypoint takes policies by targetRefs only".to_owned();
    }
    let labels = selector.map(Selector::labels).into_iter().flatten();
    let missing = labels.filter(|(key, value)| workload.labels.get(*key) != Some(*value)).map(|(key, value)| {
        match workload.labels.get(key) {
            Some(has) => format!("its selector asks for `{key}={value}`, the workload has `{key}={has}`"),
            None => format!("its selector asks for `{key}={value}`, the workload has no `{key}`"),
        }
    });
    missing.collect::<Vec<_>>().join("; ")
}
