//! Section 7.2: what a token must say, with the status and the text of the answer.

use palisade_authz::{Refusal, TokenRequest};
use palisade_policies::JwtRule;
use serde_json::{Value, json};

use crate::kit::*;

#[track_caller]
fn refusal(claims: &Value) -> Refusal {
    refused(bearer(&P256.claims(claims)).to(vec![rule()]))
}

#[track_caller]
fn passes(claims: &Value) {
    assert_eq!(subject(bearer(&P256.claims(claims)).to(vec![rule()])).as_deref(), Some("alice"), "{claims}");
}

#[test]
fn a_refusal_is_answered_as_envoy_answers_it() {
    let refusal = refused(bearer(&bad()).target("/p/q?x=1").to(vec![rule()]));
    assert_eq!((refusal.status, refusal.body, refusal.reason), (401, "Jwt verification fails", "token-invalid"));
    let expected = "Bearer realm=\"http://h.example/p/q?x=1\", error=\"invalid_token\"";
    assert_eq!(refusal.www_authenticate.as_deref(), Some(expected));
}

#[test]
fn the_realm_is_cut_and_never_repeats_a_token() {
    let long = refused(bearer(&bad()).target(&format!("/{}", "a".repeat(300))).to(vec![rule()]));
    let expected = format!("Bearer realm=\"http://h.example/{}\", error=\"invalid_token\"", "a".repeat(255));
    assert_eq!(long.www_authenticate, Some(expected));
    let token = refused(call().target("/p?x=1&access_token=secret").to(vec![rule()]));
    let expected = "Bearer realm=\"http://h.example/p\", error=\"invalid_token\"";
    assert_eq!(token.www_authenticate.as_deref(), Some(expected));
}

#[test]
fn expiry_has_a_minute_of_grace() {
    for exp in [json!(NOW), json!(NOW - 60), json!(NOW + 1000), json!(0), json!(1e18)] {
        passes(&with(&json!({ "exp": exp })));
    }
    passes(&with(&json!({})));
    assert_eq!(refusal(&with(&json!({"exp": NOW - 61}))).body, "Jwt is expired");
    assert_eq!(refusal(&with(&json!({"exp": 1.5}))).body, "Jwt is expired");
}

#[test]
fn not_before_has_a_minute_of_grace() {
    for nbf in [json!(NOW), json!(NOW + 60), json!(0), json!(1.9)] {
        passes(&with(&json!({ "nbf": nbf })));
    }
    assert_eq!(refusal(&with(&json!({"nbf": NOW + 61}))).body, "Jwt not yet valid");
}

#[test]
fn an_issue_time_in_the_future_passes() {
    passes(&with(&json!({"iat": NOW + 100_000})));
}

#[test]
fn the_issuer_has_to_be_the_rules() {
    for claims in [with(&json!({"iss": null})), with(&json!({"iss": ""})), with(&json!({"iss": "https://a.example/"}))]
    {
        assert_eq!(refusal(&claims).body, "Jwt issuer is not configured", "{claims}");
    }
}

#[test]
fn an_empty_issuer_in_the_rule_accepts_any() {
    let mut rule = rule();
    rule.issuer = String::new();
    for claims in [with(&json!({"iss": null})), with(&json!({"iss": "anybody"}))] {
        assert_eq!(subject(bearer(&P256.claims(&claims)).to(vec![rule.clone()])).as_deref(), Some("alice"));
    }
}

#[test]
fn claims_of_the_wrong_type_are_refused() {
    let numbers = [json!("1"), json!(true), json!([1]), json!({})];
    for name in ["exp", "nbf", "iat"] {
        for value in &numbers {
            let body = refusal(&with(&json!({ name: value }))).body;
            assert_eq!(body, format!("Jwt payload [{name}] field is not an integer"));
        }
        for value in [json!(-1), json!(1e30), json!(18_446_744_073_709_551_615_u64)] {
            let body = refusal(&with(&json!({ name: value }))).body;
            assert_eq!(body, format!("Jwt payload [{name}] field is not a positive 64 bit integer"));
        }
    }
    for name in ["iss", "sub", "jti"] {
        for value in [json!(1), json!(false), json!(["a"]), json!({"a": 1})] {
            let body = refusal(&with(&json!({ name: value }))).body;
            assert_eq!(body, format!("Jwt payload [{name}] field is not a string"));
        }
    }
    for value in [json!(1), json!({}), json!(["a", 1])] {
        let body = refusal(&with(&json!({ "aud": value }))).body;
        assert_eq!(body, "Jwt payload [aud] field is not a string or string list");
    }
}

#[test]
fn null_is_a_wrong_type_too() {
    for name in ["exp", "nbf", "iat", "iss", "sub", "jti", "aud"] {
        let payload = json!({"iss": ISSUER, "sub": "alice", name: null}).to_string();
        let token = P256.raw_token(r#"{"alg":"ES256"}"#, &payload);
        assert_eq!(refused(bearer(&token).to(vec![rule()])).status, 401, "{name}");
    }
}

#[test]
fn a_token_has_three_parts_of_base64() {
    let shape = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    let header = b64(br#"{"alg":"ES256"}"#);
    for (token, body) in [
        ("a".to_owned(), shape),
        ("a.b".to_owned(), shape),
        ("a.b.c.d".to_owned(), shape),
        ("a!.b.c".to_owned(), "Jwt header is an invalid Base64url encoded"),
        (format!("{}.b.c", b64(b"x")), "Jwt header is an invalid JSON"),
        (format!("{}.b.c", b64(b"{}")), "Jwt header [alg] field is required and must be a string"),
        (format!("{}.b.c", b64(br#"{"alg":"XS256"}"#)), "Jwt header [alg] is not supported"),
        (format!("{}.b.c", b64(br#"{"alg":"ES256","kid":1}"#)), "Jwt header [kid] field is not a string"),
        (format!("{header}.!.c"), "Jwt payload is an invalid Base64url encoded"),
        (format!("{header}.{}.c", b64(b"[]")), "Jwt payload is an invalid JSON"),
        (format!("{header}.{}.!", b64(b"{}")), "Jwt signature is an invalid Base64url encoded"),
    ] {
        assert_eq!(refused(bearer(&token).to(vec![rule()])).body, body, "{token}");
    }
}

#[test]
fn empty_parts_are_skipped_as_envoy_skips_them() {
    let doubled = format!("..{}..", good().replace('.', ".."));
    assert_eq!(subject(bearer(&doubled).to(vec![rule()])).as_deref(), Some("alice"));
}

#[test]
fn a_key_id_on_both_sides_has_to_be_the_same() {
    let token = |kid: Value| P256.token(&json!({"alg": "ES256", "kid": kid}), &with(&json!({})));
    let missing = "Jwks doesn't have key to match kid or alg from Jwt";
    assert_eq!(refused(bearer(&token(json!("unknown"))).to(vec![rule()])).body, missing);
    assert_eq!(subject(bearer(&token(json!(""))).to(vec![rule()])).as_deref(), Some("alice"));
    let mut unnamed = P256.jwk();
    unnamed.as_object_mut().unwrap().shift_remove("kid");
    let mut rule = rule();
    rule.jwks = palisade_policies::JwksSource::Inline(set(&[OTHER.jwk(), unnamed]));
    assert_eq!(subject(bearer(&token(json!("any"))).to(vec![rule.clone()])).as_deref(), Some("alice"));
    let without = P256.token(&json!({"alg": "ES256"}), &with(&json!({})));
    assert_eq!(subject(bearer(&without).to(vec![rule])).as_deref(), Some("alice"));
}

#[test]
fn audiences_are_compared_without_scheme_and_slash() {
    let mut rule = rule();
    rule.audiences = vec!["a1".to_owned(), "https://svc.example/".to_owned()];
    let ask = |aud: Value| bearer(&P256.claims(&with(&json!({ "aud": aud })))).to(vec![rule.clone()]);
    for aud in ["a1", "https://a1/", "http://a1", "a1/", "svc.example", "http://svc.example/"] {
        assert_eq!(subject(ask(json!(aud))).as_deref(), Some("alice"), "{aud}");
    }
    assert_eq!(subject(ask(json!(["zz", "a1"]))).as_deref(), Some("alice"));
    for aud in [json!("A1"), json!("a1//"), json!("HTTPS://a1"), json!([]), json!(["zz"]), json!(""), Value::Null] {
        let refusal = refused(ask(aud.clone()));
        let seen = (refusal.status, refusal.body, refusal.reason);
        assert_eq!(seen, (403, "Audiences in Jwt are not allowed", "token-audience"), "{aud}");
    }
}

#[test]
fn times_are_looked_at_before_audiences_and_those_before_the_signature() {
    let mut rule = rule();
    rule.audiences = vec!["a1".to_owned()];
    let old = OTHER.claims(&with(&json!({"exp": 1, "aud": "zz"})));
    assert_eq!(refused(bearer(&old).to(vec![rule.clone()])).body, "Jwt is expired");
    let forged = OTHER.claims(&with(&json!({"aud": "zz"})));
    assert_eq!(refused(bearer(&forged).to(vec![rule])).status, 403);
}

#[test]
fn preflight_requests_are_left_alone() {
    let preflight = |token: &str| {
        bearer(token).method("OPTIONS").header("origin", "http://o").header("access-control-request-method", "GET")
    };
    anonymous(preflight(&bad()).to(vec![rule()]));
    anonymous(preflight(&good()).to(vec![rule()]));
    assert_eq!(refused(preflight(&bad()).method("GET").to(vec![rule()])).status, 401);
    let without = bearer(&bad()).method("OPTIONS").header("origin", "").header("access-control-request-method", "GET");
    assert_eq!(refused(without.to(vec![rule()])).status, 401);
    assert_eq!(refused(bearer(&bad()).method("OPTIONS").to(vec![rule()])).status, 401);
}

#[test]
fn connect_has_no_path_and_is_left_alone() {
    let rule = JwtRule { output_payload_to_header: Some("x-payload".to_owned()), ..rule() };
    let authenticator = compile(vec![rule]);
    for token in [good(), bad()] {
        let call = bearer(&token).method("CONNECT").header("x-payload", "forged");
        let request = TokenRequest { method: Some("CONNECT"), headers: &call.headers, ..TokenRequest::default() };
        let accepted = accepted(authenticator.authenticate(&request, &NoKeys, NOW));
        assert!(accepted.claims.is_none());
        // The token stays where it is; what only a rule may write does not.
        assert_eq!(call.forwarded(&accepted, "authorization"), [format!("Bearer {token}")]);
        assert!(call.forwarded(&accepted, "x-payload").is_empty());
    }
}

#[test]
fn a_path_that_is_not_known_exempts_from_nothing() {
    let authenticator = compile(vec![rule()]);
    for method in [None, Some("GET")] {
        let call = bearer(&bad());
        let request = TokenRequest { method, headers: &call.headers, ..TokenRequest::default() };
        refused(authenticator.authenticate(&request, &NoKeys, NOW));
    }
}

#[test]
fn keys_that_cannot_be_had_refuse_tokens_and_nothing_else() {
    let mut rule = rule();
    rule.jwks = palisade_policies::JwksSource::Uri("https://keys.example".to_owned());
    anonymous(call().to(vec![rule.clone()]));
    assert_eq!(refused(bearer(&good()).to(vec![rule.clone()])).body, "Jwks remote fetch is failed");
    rule.jwks = palisade_policies::JwksSource::Inline("{}".to_owned());
    assert_eq!(refused(bearer(&good()).to(vec![rule])).body, "Jwks doesn't have any valid public key");
}
