//! Attacks on tokens. Each is refused, whatever else is right about the token.

use palisade_policies::{JwksSource, JwtRule};
use serde_json::{Value, json};

use crate::kit::*;

fn keys(keys: &[Value]) -> Vec<JwtRule> {
    vec![JwtRule { jwks: JwksSource::Inline(set(keys)), ..rule() }]
}

fn without_kid(mut jwk: Value) -> Value {
    jwk.as_object_mut().unwrap().shift_remove("kid");
    jwk
}

fn claims() -> Value {
    with(&json!({}))
}

/// All keys, none with an id: nothing but the key's kind protects.
fn open() -> Vec<JwtRule> {
    keys(&[&*RSA, &*P256, &*P384, &*P521, &*SECRET].map(|key| without_kid(key.jwk())))
}

#[track_caller]
fn stopped(token: &str, rules: Vec<JwtRule>) -> &'static str {
    let refusal = refused(bearer(token).to(rules));
    assert_eq!(refusal.status, 401);
    refusal.body
}

#[test]
fn attack_no_algorithm() {
    for alg in ["none", "None", "NONE", "nOnE", "", "null", "none\u{0}"] {
        let header = b64(json!({"alg": alg, "kid": P256.kid}).to_string().as_bytes());
        let payload = b64(claims().to_string().as_bytes());
        for token in [format!("{header}.{payload}."), format!("{header}.{payload}"), format!("{header}.{payload}.AA")] {
            stopped(&token, vec![rule()]);
        }
    }
    let header = b64(json!({"alg": null}).to_string().as_bytes());
    stopped(&format!("{header}.{}.AA", b64(b"{}")), vec![rule()]);
}

#[test]
fn attack_no_signature() {
    let (message, _) =
        { good() }.rsplit_once('.').map(|(message, rest)| (message.to_owned(), rest.to_owned())).unwrap();
    for signature in [String::new(), b64(&[0; 64]), b64(&[0; 1]), b64(&[0xff; 64]), "A".repeat(86)] {
        stopped(&format!("{message}.{signature}"), vec![rule()]);
    }
    // (0, 0) passed some ECDSA verifiers once (CVE-2022-21449).
    for (key, width) in [(&*P256, 64), (&*P384, 96), (&*P521, 132)] {
        let header = json!({"alg": key.alg, "kid": key.kid}).to_string();
        let message = format!("{}.{}", b64(header.as_bytes()), b64(claims().to_string().as_bytes()));
        stopped(&format!("{message}.{}", b64(&vec![0; width])), keys(&[key.jwk()]));
    }
}

#[test]
fn attack_public_key_as_shared_secret() {
    for key in [&*RSA, &*P256, &*P384, &*ED25519] {
        for alg in ["HS256", "HS384", "HS512"] {
            let jwk = key.jwk();
            let secrets =
                [key.public_bytes(), jwk.to_string().into_bytes(), jwk["n"].to_string().into_bytes(), Vec::new()];
            for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
                let forger = Key::secret("forger", secret);
                for header in [json!({"alg": alg, "kid": key.kid}), json!({ "alg": alg })] {
                    let token = forger.token(&header, &claims());
                    stopped(&token, keys(std::slice::from_ref(&jwk)));
                    stopped(&token, keys(&[without_kid(jwk.clone())]));
                }
            }
        }
    }
}

#[test]
fn attack_shared_secret_under_the_name_of_another_key() {
    let token = SECRET.token(&json!({"alg": "HS256", "kid": RSA.kid}), &claims());
    assert_eq!(stopped(&token, keys(&[RSA.jwk(), SECRET.jwk()])), "Jwt verification fails");
    let token = RSA.token(&json!({"alg": "RS256", "kid": SECRET.kid}), &claims());
    assert_eq!(stopped(&token, keys(&[RSA.jwk(), SECRET.jwk()])), "Jwt verification fails");
}

#[test]
fn attack_an_algorithm_that_is_not_the_keys() {
    let algorithms = [
        "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
        "EdDSA",
    ];
    for key in [&*RSA, &*P256, &*P384, &*P521, &*ED25519, &*SECRET] {
        for alg in algorithms {
            let own = match key.alg {
                "RS256" => alg.starts_with("RS") || alg.starts_with("PS"),
                "HS256" => alg.starts_with("HS"),
                only => alg == only,
            };
            let token = key.token(&json!({"alg": alg, "kid": key.kid}), &claims());
            let authn = bearer(&token).to(keys(&[key.jwk()]));
            if own {
                assert_eq!(subject(authn).as_deref(), Some("alice"), "{} {alg}", key.kid);
            } else {
                assert_eq!(refused(authn).status, 401, "{} {alg}", key.kid);
            }
        }
    }
}

#[test]
fn attack_an_algorithm_beside_the_one_that_the_key_names() {
    let mut jwk = RSA.jwk();
    jwk["alg"] = json!("PS256");
    let token = RSA.token(&json!({"alg": "RS256", "kid": RSA.kid}), &claims());
    assert_eq!(stopped(&token, keys(std::slice::from_ref(&jwk))), "Jwks doesn't have key to match kid or alg from Jwt");
    let token = RSA.token(&json!({"alg": "PS256", "kid": RSA.kid}), &claims());
    assert_eq!(subject(bearer(&token).to(keys(&[jwk]))).as_deref(), Some("alice"));
}

#[test]
fn attack_a_key_brought_along() {
    for extra in [
        json!({"jwk": OTHER.jwk()}),
        json!({"jku": "http://127.0.0.1/keys", "x5u": "http://127.0.0.1/cert"}),
        json!({"x5c": ["AAAA"], "x5t": "AAAA"}),
    ] {
        for kid in [json!(P256.kid), json!(OTHER.kid), json!("../../dev/null"), json!("' or 1=1")] {
            let mut header = json!({"alg": "ES256", "kid": kid});
            header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            stopped(&OTHER.token(&header, &claims()), vec![rule()]);
        }
        let mut header = json!({"alg": "ES256", "kid": P256.kid});
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        assert_eq!(subject(bearer(&P256.token(&header, &claims())).to(vec![rule()])).as_deref(), Some("alice"));
    }
}

#[test]
fn attack_critical_extensions() {
    for crit in [json!(["b64"]), json!([]), json!("x"), json!(["exp"])] {
        let token = P256.token(&json!({"alg": "ES256", "crit": crit, "b64": false}), &claims());
        assert_eq!(stopped(&token, vec![rule()]), "Jwt header [crit] field is not supported");
    }
}

#[test]
fn attack_repeated_names() {
    let payload = format!(r#"{{"iss":"evil","iss":"{ISSUER}","sub":"alice"}}"#);
    let token = P256.raw_token(r#"{"alg":"ES256"}"#, &payload);
    assert_eq!(stopped(&token, vec![rule()]), "Jwt payload is an invalid JSON");
    let payload = format!(r#"{{"iss":"{ISSUER}","sub":"alice","\u0073ub":"root"}}"#);
    let token = P256.raw_token(r#"{"alg":"ES256"}"#, &payload);
    assert_eq!(stopped(&token, vec![rule()]), "Jwt payload is an invalid JSON");
    let payload = format!(r#"{{"iss":"{ISSUER}","groups":{{"a":1,"a":2}}}}"#);
    let token = P256.raw_token(r#"{"alg":"ES256"}"#, &payload);
    assert_eq!(stopped(&token, vec![rule()]), "Jwt payload is an invalid JSON");
    for header in [r#"{"alg":"none","alg":"ES256"}"#, r#"{"alg":"ES256","kid":"x","kid":"p256"}"#] {
        assert_eq!(
            stopped(&P256.raw_token(header, &claims().to_string()), vec![rule()]),
            "Jwt header is an invalid JSON"
        );
    }
}

#[test]
fn attack_json_that_other_readers_read_otherwise() {
    for payload in [
        format!("{{'iss':'{ISSUER}'}}"),
        format!("{{iss:\"{ISSUER}\"}}"),
        format!("{{\"iss\":\"{ISSUER}\",}}"),
        format!("{{\"iss\":\"{ISSUER}\"}} {{}}"),
        format!("{{\"iss\":\"{ISSUER}\",\"a\":\"\n\"}}"),
        format!("{{\"iss\":\"{ISSUER}\" /* x */}}"),
        format!("\u{feff}{{\"iss\":\"{ISSUER}\"}}"),
    ] {
        let token = P256.raw_token(r#"{"alg":"ES256"}"#, &payload);
        assert_eq!(stopped(&token, vec![rule()]), "Jwt payload is an invalid JSON", "{payload}");
    }
}

#[test]
fn attack_a_token_signed_by_the_wrong_issuers_key() {
    let other = JwksSource::Inline(set(&[OTHER.jwk()]));
    let rules = vec![rule(), JwtRule { issuer: "b".to_owned(), jwks: other, ..rule() }];
    stopped(&OTHER.claims(&claims()), rules.clone());
    stopped(&P256.claims(&json!({"iss": "b", "sub": "alice"})), rules);
}

#[test]
fn attack_claims_exchanged_under_a_good_signature() {
    let good = good();
    let parts: Vec<_> = good.split('.').collect();
    let forged = b64(with(&json!({"sub": "root"})).to_string().as_bytes());
    stopped(&format!("{}.{forged}.{}", parts[0], parts[2]), vec![rule()]);
    let header = b64(json!({"alg": "ES256", "kid": P256.kid, "x": 1}).to_string().as_bytes());
    stopped(&format!("{header}.{}.{}", parts[1], parts[2]), vec![rule()]);
}

#[test]
fn attack_oversized_tokens_end_soon() {
    let padding = "x".repeat(70_000);
    stopped(&P256.claims(&with(&json!({ "pad": padding }))), vec![rule()]);
    stopped(&".".repeat(1_000_000), vec![rule()]);
    stopped(&"A".repeat(5_000_000), vec![rule()]);
    let deep = format!(r#"{{"iss":"{ISSUER}","a":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    stopped(&P256.raw_token(r#"{"alg":"ES256"}"#, &deep), vec![rule()]);
}

#[test]
fn attack_headers_in_claims() {
    let output = palisade_policies::ClaimToHeader { header: "x-sub".to_owned(), claim: "sub".to_owned() };
    let rules = vec![JwtRule { output_claim_to_headers: vec![output], ..rule() }];
    for sub in ["a\r\nx-admin: 1", "a\nb", "a\u{0}b", "a\u{7f}"] {
        let call = bearer(&P256.claims(&with(&json!({ "sub": sub }))));
        let accepted = accepted(call.to(rules.clone()));
        assert!(call.forwarded(&accepted, "x-sub").is_empty(), "{sub:?}");
    }
}

#[test]
fn attack_token_text_never_reaches_debug() {
    let token = bad();
    let signature = token.rsplit_once('.').unwrap().1;
    let target = format!("/p?access_token={token}");
    for authn in [bearer(&token).to(vec![rule()]), call().target(&target).to(vec![rule()])] {
        let text = format!("{authn:?}");
        assert!(text.contains("Jwt verification fails") && !text.contains(signature), "{text}");
    }
}

#[test]
fn attack_every_open_key_kind_resists_every_forger() {
    let forgers = [&*OTHER, &*ED25519];
    for forger in forgers {
        for alg in ["ES256", "ES384", "ES512", "RS256", "PS512", "HS256", "EdDSA"] {
            stopped(&forger.token(&json!({ "alg": alg }), &claims()), open());
        }
    }
}
