//! Sections 7.4 and 7.5: what a verified token leaves in the request and in the claims.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use palisade_policies::{ClaimToHeader, JwtRule};
use serde_json::json;

use crate::kit::*;

fn outputs(pairs: &[(&str, &str)]) -> JwtRule {
    let output = |(header, claim): &(&str, &str)| ClaimToHeader { header: (*header).into(), claim: (*claim).into() };
    JwtRule { output_claim_to_headers: pairs.iter().map(output).collect(), ..rule() }
}

#[test]
fn the_token_is_taken_out_of_its_header() {
    let call = bearer(&good()).header("x-kept", "1");
    let accepted = accepted(call.to(vec![rule()]));
    assert!(call.forwarded(&accepted, "authorization").is_empty());
    assert_eq!(call.forwarded(&accepted, "x-kept"), ["1"]);
    assert_eq!(accepted.edits.target, None);
}

#[test]
fn the_token_is_taken_out_of_the_query_and_the_rest_keeps_its_spelling() {
    let token = good();
    for (target, expected) in [
        (format!("/p?access_token={token}"), "/p"),
        (format!("/p?z=%2fA&access_token={token}&a=%26&&b"), "/p?z=%2fA&a=%26&&b"),
        (format!("/p?access_token={token}&access_token=other&x"), "/p?x"),
        (format!("/p?a&access%5ftoken={token}"), "/p?a"),
        (format!("/p?access_token={token}&q=a?b"), "/p?q=a?b"),
    ] {
        let accepted = accepted(call().target(&target).to(vec![rule()]));
        assert_eq!(accepted.edits.target.as_deref(), Some(expected), "{target}");
    }
}

#[test]
fn a_cookie_stays_as_it_is() {
    let mut rule = rule();
    rule.from_cookies = vec!["session".to_owned()];
    let call = call().header("cookie", &format!("a=b; session={}", good()));
    let accepted = accepted(call.to(vec![rule]));
    assert_eq!(call.forwarded(&accepted, "cookie").len(), 1);
    assert!(accepted.edits.is_empty());
}

#[test]
fn forwarding_the_original_token_changes_nothing() {
    let rule = JwtRule { forward_original_token: true, ..rule() };
    let call = bearer(&good()).target(&format!("/p?access_token={}", good()));
    assert!(accepted(call.to(vec![rule])).edits.is_empty());
}

#[test]
fn the_payload_goes_into_its_header_as_it_stands_in_the_token() {
    let rule = JwtRule { output_payload_to_header: Some("X-Payload".to_owned()), ..rule() };
    let token = good();
    let call = bearer(&token).header("x-payload", "spoofed");
    let accepted = accepted(call.to(vec![rule]));
    let payload = token.split('.').nth(1).unwrap();
    assert_eq!(call.forwarded(&accepted, "x-payload"), [payload]);
}

#[test]
fn output_headers_are_removed_from_every_request() {
    let mut one = outputs(&[("X-Sub", "sub")]);
    one.output_payload_to_header = Some("X-Payload".to_owned());
    let other = JwtRule { issuer: "b".to_owned(), output_payload_to_header: Some("x-other".to_owned()), ..rule() };
    let spoofed = |call: Call| call.header("x-sub", "root").header("X-PAYLOAD", "x").header("x-other", "y");
    let preflight = call().method("OPTIONS").header("origin", "o").header("access-control-request-method", "GET");
    for call in [spoofed(call()), spoofed(bearer(&good())), spoofed(preflight)] {
        let accepted = accepted(call.to(vec![one.clone(), other.clone()]));
        for name in ["x-sub", "x-payload", "x-other"] {
            let seen = call.forwarded(&accepted, name);
            assert!(seen.iter().all(|value| !["root", "x", "y"].contains(&value.as_str())), "{name}: {seen:?}");
        }
    }
}

#[test]
fn claims_are_written_as_envoy_writes_them() {
    let claims = with(&json!({
        "text": "as is", "int": 42, "zero": 0, "yes": true, "no": false, "float": 1.5, "negative": -5, "small": 1e-7,
        "large": 1e19, "list": ["a", 1, true], "object": {"k": ["<"]}, "deep": {"a": {"b": "down"}}, "empty": "",
        "exact": 9_007_199_254_740_993_u64, "dot.name": "never",
    }));
    let expected: Vec<(&str, Option<String>)> = vec![
        ("text", Some("as is".into())),
        ("int", Some("42".into())),
        ("zero", Some("0".into())),
        ("yes", Some("true".into())),
        ("no", Some("false".into())),
        ("float", Some("1.500000".into())),
        ("negative", Some("-5.000000".into())),
        ("small", Some("0.000000".into())),
        ("large", Some("10000000000000000000".into())),
        ("exact", Some("9007199254740992".into())),
        ("list", Some(STANDARD.encode(r#"["a",1,true]"#))),
        ("object", Some(STANDARD.encode(r#"{"k":["\u003c"]}"#))),
        ("deep.a.b", Some("down".into())),
        ("deep.a", Some(STANDARD.encode(r#"{"b":"down"}"#))),
        ("deep.text.b", None),
        ("empty", None),
        ("missing", None),
        ("text.a", None),
        ("dot.name", None),
    ];
    let call = bearer(&P256.claims(&claims));
    for (claim, expected) in expected {
        let accepted = accepted(call.to(vec![outputs(&[("x-claim", claim)])]));
        let seen = call.forwarded(&accepted, "x-claim");
        assert_eq!(seen.first(), expected.as_ref(), "{claim}");
    }
}

#[test]
fn a_null_claim_sets_no_header() {
    let token = P256.raw_token(r#"{"alg":"ES256"}"#, &format!(r#"{{"iss":"{ISSUER}","n":null}}"#));
    let call = bearer(&token);
    let accepted = accepted(call.to(vec![outputs(&[("x-n", "n")])]));
    assert!(call.forwarded(&accepted, "x-n").is_empty());
}

#[test]
fn two_claims_for_one_header_are_two_instances() {
    let call = bearer(&good());
    let accepted = accepted(call.to(vec![outputs(&[("x-who", "iss"), ("X-Who", "sub")])]));
    assert_eq!(call.forwarded(&accepted, "x-who"), [ISSUER, "alice"]);
}

#[test]
fn space_delimited_claims_become_lists_at_the_top_only() {
    let claims = with(&json!({
        "scope": "read  write ", "permission": "p", "roles": "a b", "other": "a b", "deep": {"scope": "a b", "roles": "a b"},
        "deep.scope": "c d",
    }));
    let rule = JwtRule { space_delimited_claims: vec!["roles".to_owned(), "deep.scope".to_owned()], ..rule() };
    let seen = accepted(bearer(&P256.claims(&claims)).to(vec![rule])).claims.unwrap();
    assert_eq!(
        *seen,
        json!({
            "iss": ISSUER, "sub": "alice", "scope": ["read", "write"], "permission": ["p"], "roles": ["a", "b"],
            "other": "a b", "deep": {"scope": "a b", "roles": "a b"}, "deep.scope": ["c", "d"],
        })
    );
}

#[test]
fn a_space_delimited_claim_without_words_or_of_another_type_stays() {
    for scope in [json!(""), json!("  "), json!(1), json!(["a b"]), json!({"a": "b c"})] {
        let token = P256.claims(&with(&json!({ "scope": scope })));
        let claims = accepted(bearer(&token).to(vec![rule()])).claims.unwrap();
        assert_eq!(claims["scope"], scope);
    }
}

#[test]
fn claims_keep_their_shape_for_the_policies() {
    let extra = json!({"groups": ["a", {"b": [1, null]}], "n": 1.5, "b": true, "o": {"p": {"q": "r"}}});
    let claims = accepted(bearer(&P256.claims(&with(&extra))).to(vec![rule()])).claims.unwrap();
    for (name, value) in extra.as_object().unwrap() {
        assert_eq!(&claims[name], value);
    }
}

#[test]
fn what_frames_the_message_is_never_an_output() {
    let mut rule = outputs(&[("Transfer-Encoding", "sub"), ("content-length", "sub"), ("host", "sub"), ("te", "sub")]);
    rule.output_payload_to_header = Some("Connection".to_owned());
    rule.forward_original_token = true;
    let call = bearer(&good()).header("content-length", "5").header("te", "trailers");
    assert!(accepted(call.to(vec![rule])).edits.is_empty());
}

#[test]
fn a_header_that_is_an_output_never_yields_a_token() {
    let mut rule = rule();
    rule.from_headers = vec![from_header("x-jwt", "")];
    rule.output_payload_to_header = Some("x-jwt".to_owned());
    let call = call().header("x-jwt", &good());
    let accepted = accepted(call.to(vec![rule]));
    assert!(accepted.claims.is_none() && call.forwarded(&accepted, "x-jwt").is_empty());
}

#[test]
fn debug_prints_no_claims() {
    let rule = JwtRule { output_payload_to_header: Some("x-payload".to_owned()), ..outputs(&[("x-sub", "sub")]) };
    let authn = bearer(&good()).to(vec![rule]);
    let text = format!("{authn:?}");
    assert!(text.contains("x-payload") && !text.contains("alice") && !text.contains("eyJ"), "{text}");
}
