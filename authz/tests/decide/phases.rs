//! The order of phases, dry-run, audit, and what slips past validation.

use palisade_authz::{CompiledSet, Outcome, Phase, Semantics};
use palisade_policies::MeshConfig;
use serde_json::{Value, json};

use crate::ask::{Ask, decided, evaluate, from, http, policy, tcp, to, when};

fn any(action: &str, name: &str, dry_run: bool) -> Value {
    json!({"action": action, "name": name, "dryRun": dry_run, "rules": [{}]})
}

#[test]
fn row_3_1_deny_comes_before_allow_and_audit_before_both() {
    let all = json!([any("ALLOW", "a", false), any("DENY", "d", false), any("AUDIT", "u", false)]);
    let found = evaluate(&all, Semantics::Http, &Ask::get("/"));
    assert_eq!(decided(&found), (Outcome::Deny, Phase::Deny, Some("ns[foo]-policy[d]-rule[0]")));
    assert!(found.audited);
    assert_eq!(found.reason(), "deny-matched");
    let found = evaluate(&any("AUDIT", "u", false), Semantics::Http, &Ask::get("/"));
    assert_eq!(decided(&found), (Outcome::Allow, Phase::Default, None));
    assert!(found.audited && found.reason() == "no-allow-policy");
}

#[test]
fn shadow_and_enforced_coexist() {
    let miss = to("ALLOW", json!({"ports": ["1"]}));
    let found =
        evaluate(&json!([miss, any("ALLOW", "s", true), any("DENY", "t", true)]), Semantics::Http, &Ask::get("/"));
    assert_eq!(decided(&found), (Outcome::Deny, Phase::Default, None));
    assert_eq!(found.reason(), "no-allow-matched");
    let (allow, deny) = (found.shadow.allow.unwrap(), found.shadow.deny.unwrap());
    assert_eq!((allow.as_str(), allow.policy.unwrap().id()), ("allowed", "ns[foo]-policy[s]-rule[0]"));
    assert_eq!((deny.as_str(), deny.policy.unwrap().id()), ("denied", "ns[foo]-policy[t]-rule[0]"));
}

#[test]
fn a_shadow_deny_without_a_match_says_allowed() {
    let mut miss = to("DENY", json!({"ports": ["1"]}));
    miss["dryRun"] = json!(true);
    let deny = evaluate(&miss, Semantics::Http, &Ask::get("/")).shadow.deny.unwrap();
    assert!(deny.allowed && deny.policy.is_none());
}

#[test]
fn a_custom_policy_that_slips_through_denies_what_it_matches() {
    let custom = json!({"action": "CUSTOM", "rules": [{"to": [{"operation": {"paths": ["/x"]}}]}]});
    let found = evaluate(&json!([custom, any("ALLOW", "a", false)]), Semantics::Http, &Ask::get("/x"));
    let id = "istio-ext-authz-ext-ns[foo]-policy[p]-rule[0]-deny-due-to-bad-CUSTOM-action";
    assert_eq!(decided(&found), (Outcome::Deny, Phase::Custom, Some(id)));
    assert!(http(&custom, &Ask::get("/y")));
}

/// Section 3.4, for objects that bypass validation.
#[test]
fn row_3_4_a_bad_value_drops_an_allow_rule_and_is_left_out_of_a_deny() {
    let source = |action| from(action, json!({"ipBlocks": ["nonsense", "10.0.0.7"]}));
    assert!(!http(&source("ALLOW"), &Ask::get("/")));
    assert!(!http(&source("DENY"), &Ask::get("/")), "the good value still counts");
    let alone = |action| to(action, json!({"ports": ["+80"]}));
    assert!(!http(&alone("ALLOW"), &Ask::get("/")));
    assert!(!http(&alone("DENY"), &Ask::tcp(9)), "a field without values constrains nothing");
    for key in ["request.headers", "request.headersX[y]", "request.auth.claimsX[y]", "experimental.envoy.filters.x"] {
        assert!(!http(&when("ALLOW", key, "values", &["a"]), &Ask::get("/")), "ALLOW {key}");
        assert!(!http(&when("DENY", key, "values", &["a"]), &Ask::get("/")), "DENY {key}");
    }
    for action in ["ALLOW", "DENY"] {
        let template = to(action, json!({"paths": ["{*}"]}));
        assert!(!http(&template, &Ask::get("/a")), "{action}");
    }
}

#[test]
fn row_3_4_an_unknown_key_skips_the_rule_for_every_action() {
    assert!(http(&when("DENY", "destination.user", "values", &["a"]), &Ask::get("/")));
    assert!(!http(&when("ALLOW", "destination.user", "values", &["a"]), &Ask::get("/")));
}

#[test]
fn row_3_1_two_conditions_with_one_key_are_both_required() {
    let twice = json!({"rules": [{"when": [
        {"key": "request.headers[x]", "values": ["a"]}, {"key": "request.headers[x]", "values": ["b"]}]}]});
    assert!(!http(&twice, &Ask::with(&[("x", "a")])));
    assert!(http(&twice, &Ask::with(&[("x", "a"), ("x", "b")])));
}

#[test]
fn every_dropped_allow_rule_leaves_a_default_deny() {
    assert!(!tcp(&to("ALLOW", json!({"methods": ["GET"]})), &Ask::tcp(80)));
}

#[test]
fn headers_read_lists_plain_headers_once() {
    let list: Vec<_> = [
        when("ALLOW", "request.headers[X-B]", "values", &["a", "b"]),
        when("DENY", "request.headers[accept]", "notValues", &["a"]),
        when("DENY", "request.headers[:path]", "values", &["a"]),
        when("DENY", "request.headers[x-b]", "values", &["c"]),
    ]
    .iter()
    .map(policy)
    .collect();
    let set = CompiledSet::compile(&list, &MeshConfig::default(), Semantics::Http);
    assert_eq!(set.headers_read(), ["accept", "x-b"]);
    assert!(!set.is_empty());
    assert!(CompiledSet::compile(&[], &MeshConfig::default(), Semantics::Http).is_empty());
}
