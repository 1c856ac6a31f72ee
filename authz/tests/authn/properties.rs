//! Properties: no bytes in any place panic or make claims out of nothing, and taking a parameter out of a query
//! touches nothing else.

use palisade_authz::{Authn, KeySet};
use palisade_policies::JwtRule;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use crate::kit::*;

fn everywhere() -> Vec<JwtRule> {
    let places = JwtRule {
        from_headers: vec![from_header("x-jwt", ""), from_header("authorization", "Bearer ")],
        from_params: vec!["t".to_owned(), "access_token".to_owned()],
        from_cookies: vec!["s".to_owned()],
        output_payload_to_header: Some("x-payload".to_owned()),
        ..rule()
    };
    vec![places, JwtRule { issuer: String::new(), ..rule() }]
}

/// Bytes that look like tokens more often than chance would have it.
fn tokenish() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..60),
        "[A-Za-z0-9_.=-]{0,80}".prop_map(String::into_bytes),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| {
            let mut token = good().into_bytes();
            let at = at.index(token.len());
            // The last letter has bits that do not count.
            let at = at.min(token.len() - 2);
            token[at] = if token[at] == byte { b'*' } else { byte };
            token
        }),
        r#"\{("(alg|kid|iss|exp)":("[a-zES256]{0,6}"|[0-9]{1,20}|null|\[\]),?){0,4}\}"#.prop_map(|json| format!(
            "{}.{}.AA",
            b64(json.as_bytes()),
            b64(json.as_bytes())
        )
        .into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_or_yield_claims(
        jwt in vec(tokenish(), 0..3),
        authorization in vec(tokenish(), 0..2),
        cookie in tokenish(),
        query in tokenish(),
        method in "(GET|OPTIONS)",
    ) {
        let mut call = call();
        call.method = if method == "GET" { "GET" } else { "OPTIONS" };
        call.headers.extend(jwt.into_iter().map(|value| ("x-jwt".to_owned(), value)));
        for value in authorization {
            call.headers.push(("authorization".to_owned(), [b"Bearer ".as_slice(), &value].concat()));
        }
        call.headers.push(("cookie".to_owned(), [b"s=".as_slice(), &cookie].concat()));
        call.target = format!("/p?t={}", String::from_utf8_lossy(&query));
        // A `.` beside a token is no other token.
        match call.ask(&compile(everywhere()), &NoKeys) {
            Authn::Accepted(accepted) => prop_assert!(accepted.claims.is_none()),
            Authn::Refused(refusal) => prop_assert!(refusal.status == 401),
        }
    }

    #[test]
    fn taking_a_parameter_out_leaves_the_others_byte_by_byte(
        before in vec("[a-zA-Z0-9%=+;?./]{0,8}", 0..4),
        after in vec("[a-zA-Z0-9%=+;?./]{0,8}", 0..4),
    ) {
        let token = good();
        let target = |parameters: Vec<&str>| format!("/p?{}", parameters.join("&"));
        let others: Vec<&str> = before.iter().chain(&after).map(String::as_str).collect();
        let ours = format!("access_token={token}");
        let all = before.iter().map(String::as_str).chain([ours.as_str()]).chain(after.iter().map(String::as_str)).collect();
        let accepted = accepted(call().target(&target(all)).to(vec![rule()]));
        let rest = others.join("&");
        let expected = if rest.is_empty() { "/p".to_owned() } else { format!("/p?{rest}") };
        prop_assert_eq!(accepted.edits.target, Some(expected));
    }

    #[test]
    fn no_text_panics_as_a_key_set(text in any::<String>(), keys in vec((r#"(kty|kid|alg|crv|x|y|n|e|k|use)"#, r#"(EC|RSA|oct|OKP|P-256|P-521|Ed25519|ES256|AQAB|[A-Za-z0-9_-]{0,44})"#), 0..8)) {
        let _ = KeySet::parse(&text);
        let jwk: serde_json::Map<_, _> = keys.into_iter().map(|(name, value)| (name, json!(value))).collect();
        if let Ok(set) = KeySet::parse(&json!({"keys": [jwk]}).to_string()) {
            prop_assert_eq!(set.len(), 1);
        }
    }

    #[test]
    fn any_claims_that_are_signed_come_out_as_they_went_in(name in "[a-z]{1,6}", value in "[^\u{0}]{0,12}", number in any::<f64>()) {
        prop_assume!(!["iss", "sub", "exp", "nbf", "iat", "jti", "aud", "scope"].contains(&name.as_str()));
        let claims = with(&json!({ name.clone(): value.clone(), "list": [value, number] }));
        let seen = accepted(bearer(&P256.claims(&claims)).to(vec![rule()])).claims.unwrap();
        prop_assert_eq!(&*seen, &claims);
    }
}
