//! What Envoy said, as an answer that can be compared.

use palisade_policies::Action;
use serde_json::Value;

use super::listener::watched;
use crate::conformance::compare::{Answer, ShadowAnswer};
use crate::conformance::scene::Scene;
use crate::conformance::translate::Chain;

/// An answer from a status and what Envoy wrote beside it: the body of a response, or the log line of a connection.
pub(super) fn answer(scene: &Scene, status: u16, facts: &Value) -> Answer {
    let details = facts["details"].as_str().unwrap_or_default();
    let mut answer = Answer { status, details: Some(details.to_owned()), ..Answer::default() };
    let rbac = &facts["rbac"];
    let denied = details
        .split_once("rbac_access_denied_matched_policy[")
        .map(|(_, rest)| rest.strip_suffix(']').unwrap_or(rest));
    let asked = rbac["istio_ext_authz_shadow_effective_policy_id"].as_str().unwrap_or_default();
    let mut reached = Reached::Allow;
    match denied {
        Some("none") => decide(&mut answer, "default", ""),
        Some(id) if id.starts_with("istio-ext-authz-") => {
            decide(&mut answer, "custom", id);
            reached = Reached::Custom;
        }
        Some(id) => {
            decide(&mut answer, "deny", id);
            reached = Reached::Deny;
        }
        None if details.contains("ext_authz") => {
            decide(&mut answer, "custom", asked);
            reached = Reached::Custom;
        }
        None if details.starts_with("jwt_authn_access_denied") => {
            decide(&mut answer, "authn", "");
            reached = Reached::Authn;
        }
        None if status != 200 => {
            answer.phase = Some("codec");
            reached = Reached::Nothing;
        }
        None => allowed(scene, &mut answer, rbac),
    }
    if reached != Reached::Nothing {
        answer.asked = (scene.chain == Chain::Http).then(|| asked.to_owned());
        results(scene, &mut answer, facts, reached);
    }
    answer
}

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Nothing,
    Custom,
    Authn,
    Deny,
    Allow,
}

fn decide(answer: &mut Answer, phase: &'static str, policy: &str) {
    answer.phase = Some(phase);
    answer.policy = Some(policy.to_owned());
}

fn allowed(scene: &Scene, answer: &mut Answer, rbac: &Value) {
    let attached = scene.policies.iter().any(|policy| policy.action == Action::Allow && !policy.dry_run);
    if !attached {
        return decide(answer, "default", "");
    }
    answer.phase = Some("allow");
    // The network filter does not name the rule that let a connection through.
    if scene.chain == Chain::Http {
        answer.policy = Some(rbac["enforced_effective_policy_id"].as_str().unwrap_or_default().to_owned());
    }
}

/// What the filters that were reached wrote.
fn results(scene: &Scene, answer: &mut Answer, facts: &Value, reached: Reached) {
    let shadow = |action: &str| -> ShadowAnswer {
        let field = |name: &str| facts["rbac"][format!("istio_dry_run_{action}_shadow_{name}")].as_str();
        let result = match field("engine_result")? {
            "allowed" => "allowed",
            _ => "denied",
        };
        Some((result, field("effective_policy_id").unwrap_or_default().to_owned()))
    };
    if reached >= Reached::Deny {
        answer.shadow_deny = Some(shadow("deny"));
        answer.audited = Some(facts["audited"] == true);
    }
    if reached >= Reached::Allow {
        answer.shadow_allow = Some(shadow("allow"));
    }
    if scene.chain == Chain::Http && reached >= Reached::Deny {
        answer.target = facts["path"].as_str().map(|target| scene.comparable(target).to_owned());
    }
    // Behind a refused token nothing is forwarded, so what its headers are does not matter.
    if reached >= Reached::Deny {
        let header = |name: &str| facts["headers"][name].as_str().unwrap_or_default().to_owned();
        answer.headers = watched(scene).into_iter().map(|name| (name.clone(), header(&name))).collect();
    }
}
