//! The traps of section 9 that belong to request authentication.

use std::sync::Arc;

use palisade_authz::{CompiledSet, HttpRequest, Known, Outcome, Request, Semantics};
use palisade_policies::{JwksSource, JwtRule, MeshConfig, SourceText, load};
use serde_json::{Value, json};

use crate::kit::*;

/// What a policy decides about a GET with these claims.
fn decides(rules: &str, claims: Option<&Value>) -> Outcome {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {rules}\n"
    );
    let loaded = load(&[SourceText::new("p.yaml", text.as_str())], "shop");
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    let set = CompiledSet::compile(&loaded.resources.authorization_policies, &MeshConfig::default(), Semantics::Http);
    let http = HttpRequest { method: Some("GET"), path: Some("/p"), ..HttpRequest::default() };
    set.evaluate(&Request { http: Some(http), claims, ..Request::default() }, Known::ALL).outcome
}

const ANY_PRINCIPAL: &str = "{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}";

#[test]
fn trap_28_a_wrong_audience_is_403_and_spelling_variants_are_accepted() {
    let rule = JwtRule { audiences: vec!["a1".to_owned()], ..rule() };
    let ask = |aud: &str| bearer(&P256.claims(&with(&json!({ "aud": aud })))).to(vec![rule.clone()]);
    assert_eq!(refused(ask("zz")).status, 403);
    assert_eq!(subject(ask("https://a1/")).as_deref(), Some("alice"));
}

#[test]
fn trap_29_a_lowercase_scheme_is_no_token_so_pair_it_with_request_principals() {
    let call = call().header("authorization", &format!("bearer {}", bad()));
    let claims = accepted(call.to(vec![rule()])).claims;
    assert!(claims.is_none());
    assert_eq!(decides(ANY_PRINCIPAL, claims.as_deref()), Outcome::Deny);
}

#[test]
fn trap_30_a_good_token_of_one_issuer_makes_up_for_garbage_in_the_place_of_another() {
    let place = |name: &str| vec![from_header(name, "")];
    let other = JwksSource::Inline(set(&[OTHER.jwk()]));
    let rules = vec![
        JwtRule { from_headers: place("x-a"), ..rule() },
        JwtRule { issuer: "b".to_owned(), jwks: other, from_headers: place("x-b"), ..rule() },
    ];
    let call = call().header("x-a", &good()).header("x-b", "garbage");
    assert_eq!(subject(call.to(rules)).as_deref(), Some("alice"));
}

#[test]
fn trap_31_a_preflight_with_a_good_token_has_no_identity() {
    let call =
        bearer(&good()).method("OPTIONS").header("origin", "http://o").header("access-control-request-method", "GET");
    let claims = accepted(call.to(vec![rule()])).claims;
    assert_eq!(decides(ANY_PRINCIPAL, claims.as_deref()), Outcome::Deny);
    let verified = accepted(bearer(&good()).to(vec![rule()])).claims;
    assert_eq!(decides(ANY_PRINCIPAL, verified.as_deref()), Outcome::Allow);
}

#[test]
fn trap_32_another_place_switches_the_authorization_header_off() {
    let rule = JwtRule { from_headers: vec![from_header("x-jwt", "")], ..rule() };
    anonymous(bearer("garbage").to(vec![rule]));
}

#[test]
fn trap_47_a_bad_token_is_refused_before_any_rule_is_asked() {
    // The refusal carries the answer: nothing is left for a DENY rule to decide on.
    let refusal = refused(bearer(&bad()).to(vec![rule()]));
    assert_eq!((refusal.status, refusal.reason), (401, "token-invalid"));
    assert_eq!(decides("{action: DENY, rules: [{}]}", None), Outcome::Deny);
}

#[test]
fn trap_27_with_the_rules_own_space_delimited_claims() {
    let rule = JwtRule { space_delimited_claims: vec!["roles".to_owned()], ..rule() };
    let claims = accepted(bearer(&P256.claims(&with(&json!({"roles": "read write"})))).to(vec![rule])).claims;
    let claims: Option<&Value> = claims.as_ref().map(Arc::as_ref);
    let role =
        |value: &str| format!("{{rules: [{{when: [{{key: 'request.auth.claims[roles]', values: ['{value}']}}]}}]}}");
    assert_eq!(decides(&role("read"), claims), Outcome::Allow);
    assert_eq!(decides(&role("read write"), claims), Outcome::Deny);
}
