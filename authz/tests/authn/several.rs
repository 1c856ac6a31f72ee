//! Several rules: the requirement tree of section 7.1.

use palisade_policies::{JwksSource, JwtRule};
use serde_json::json;

use crate::kit::*;

/// A rule for issuer `b` and the key [`OTHER`].
fn second() -> JwtRule {
    JwtRule { issuer: "b".to_owned(), jwks: JwksSource::Inline(set(&[OTHER.jwk()])), ..rule() }
}

fn bob() -> String {
    OTHER.claims(&json!({"iss": "b", "sub": "bob"}))
}

fn in_headers() -> Vec<JwtRule> {
    vec![
        JwtRule { from_headers: vec![from_header("x-b", "")], ..second() },
        JwtRule { from_headers: vec![from_header("x-a", "")], ..rule() },
    ]
}

#[test]
fn one_of_two_providers_is_enough() {
    let rules = vec![rule(), second()];
    assert_eq!(subject(bearer(&good()).to(rules.clone())).as_deref(), Some("alice"));
    assert_eq!(subject(bearer(&bob()).to(rules.clone())).as_deref(), Some("bob"));
    anonymous(call().to(rules));
}

#[test]
fn two_places_one_good_one_bad_pass_with_the_good_identity() {
    let ask = |a: &str, b: &str| call().header("x-a", a).header("x-b", b).to(in_headers());
    assert_eq!(subject(ask(&good(), "zz")).as_deref(), Some("alice"));
    assert_eq!(subject(ask("zz", &bob())).as_deref(), Some("bob"));
    assert_eq!(refused(ask("zz", "zz")).status, 401);
}

#[test]
fn of_two_good_tokens_the_alphabetically_first_issuer_is_the_identity() {
    let call = call().header("x-b", &bob()).header("x-a", &good());
    let accepted = accepted(call.to(in_headers()));
    // "b" sorts before "https://a.example".
    assert_eq!(accepted.claims.as_ref().unwrap()["sub"], "bob");
    assert!(call.forwarded(&accepted, "x-b").is_empty());
    assert_eq!(call.forwarded(&accepted, "x-a").len(), 1);
}

#[test]
fn a_bad_token_alone_is_refused_although_other_providers_have_none() {
    assert_eq!(refused(call().header("x-a", &bad()).to(in_headers())).body, "Jwt verification fails");
    assert_eq!(refused(call().header("x-b", "zz").to(in_headers())).status, 401);
}

#[test]
fn an_issuer_of_nobody_is_refused() {
    let token = P256.claims(&with(&json!({"iss": "nobody"})));
    assert_eq!(refused(bearer(&token).to(vec![rule(), second()])).body, "Jwt issuer is not configured");
}

#[test]
fn the_complaint_of_the_provider_that_knows_the_issuer_is_the_answer() {
    let old = P256.claims(&with(&json!({"exp": 1})));
    assert_eq!(refused(bearer(&old).to(vec![rule(), second()])).body, "Jwt is expired");
    let old = OTHER.claims(&json!({"iss": "b", "exp": 1}));
    assert_eq!(refused(bearer(&old).to(vec![rule(), second()])).body, "Jwt is expired");
    let wrong = JwtRule { audiences: vec!["x".to_owned()], ..second() };
    assert_eq!(refused(bearer(&bob()).to(vec![rule(), wrong])).status, 403);
}

#[test]
fn the_same_issuer_with_two_keys_accepts_either() {
    let one = JwtRule { jwks: JwksSource::Inline(set(&[OTHER.jwk()])), ..rule() };
    let rules = vec![rule(), one];
    assert_eq!(subject(bearer(&good()).to(rules.clone())).as_deref(), Some("alice"));
    let other = OTHER.claims(&with(&json!({"sub": "carol"})));
    assert_eq!(subject(bearer(&other).to(rules.clone())).as_deref(), Some("carol"));
    assert_eq!(refused(bearer(&bad()).to(rules)).status, 401);
}

#[test]
fn tokens_of_two_providers_in_shared_places_pass_if_each_is_taken_out() {
    let both = bearer(&good()).target(&format!("/p?access_token={}", bob()));
    // The parameter is verified and removed for `b`, the header fails for `b`; then each is asked again.
    assert_eq!(subject(both.to(vec![rule(), second()])).as_deref(), Some("alice"));
    let kept = |rule: JwtRule| JwtRule { forward_original_token: true, ..rule };
    assert_eq!(refused(both.to(vec![kept(rule()), kept(second())])).status, 401);
}

#[test]
fn what_a_provider_wrote_before_it_failed_goes_away_when_it_is_asked_again() {
    let output = palisade_policies::ClaimToHeader { header: "x-sub".to_owned(), claim: "sub".to_owned() };
    let failing = JwtRule {
        from_headers: vec![from_header("x-a", ""), from_header("x-a", "Bearer ")],
        output_claim_to_headers: vec![output],
        ..rule()
    };
    // Behind the prefix the token is good, writes its header and is removed; the whole value is bad. Asked again,
    // the provider finds nothing.
    let call = call().header("x-a", &format!("Bearer {}", good()));
    let accepted = accepted(call.to(vec![failing, second()]));
    assert!(call.forwarded(&accepted, "x-sub").is_empty() && call.forwarded(&accepted, "x-a").is_empty());
}

#[test]
fn policies_are_one_list_of_rules() {
    let meta = |name: &str| palisade_policies::Meta {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        labels: Default::default(),
        annotations: Default::default(),
        created: None,
        origin: rule().origin,
    };
    let policy = |name: &str, rules| {
        std::sync::Arc::new(palisade_policies::RequestAuthentication {
            meta: meta(name),
            selector: None,
            target_refs: Vec::new(),
            rules,
        })
    };
    let authenticator = palisade_authz::Authenticator::compile(&[
        policy("z", vec![rule()]),
        policy("a", vec![]),
        policy("b", vec![second()]),
    ]);
    assert_eq!(format!("{authenticator:?}"), format!("[\"b\", \"{ISSUER}\"]"));
    assert_eq!(subject(bearer(&bob()).ask(&authenticator, &NoKeys)).as_deref(), Some("bob"));
}

#[test]
fn many_rules_share_the_work_on_one_token() {
    let many: Vec<_> = (0..4096).map(|n| JwtRule { issuer: format!("issuer-{n}"), ..rule() }).collect();
    let authenticator = compile(many);
    let token = P256.claims(&with(&json!({"iss": "issuer-4095", "pad": "x".repeat(30_000)})));
    assert_eq!(subject(bearer(&token).ask(&authenticator, &NoKeys)).as_deref(), Some("alice"));
}
