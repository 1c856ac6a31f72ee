//! Key sets as Envoy reads them: observed on 1.40 as `local_jwks`, valid where Envoy took the configuration.

use palisade_authz::{KeyError, KeySet, KeySetError};
use palisade_policies::{JwksSource, JwtRule};
use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use crate::kit::*;

fn changed(mut jwk: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value == "-" {
            jwk.as_object_mut().unwrap().shift_remove(name);
        } else {
            jwk[name] = value.clone();
        }
    }
    jwk
}

fn parse(jwk: &Value) -> Result<usize, KeySetError> {
    KeySet::parse(&set(std::slice::from_ref(jwk))).map(|set| set.len())
}

fn fault(jwk: &Value) -> KeyError {
    match parse(jwk) {
        Err(KeySetError::NoneUsable(Some(fault))) => fault,
        other => panic!("{jwk}: {other:?}"),
    }
}

#[track_caller]
fn verifies(key: &Key, jwk: Value) {
    let rule = JwtRule { jwks: JwksSource::Inline(set(&[jwk])), ..rule() };
    assert_eq!(subject(bearer(&key.claims(&with(&json!({})))).to(vec![rule])).as_deref(), Some("alice"));
}

#[test]
fn every_kind_of_key_verifies_its_tokens() {
    for key in [&*P256, &*P384, &*P521, &*ED25519, &*RSA, &*SECRET] {
        verifies(key, key.jwk());
        verifies(key, changed(key.jwk(), &json!({ "alg": key.alg })));
    }
}

#[test]
fn a_curve_may_be_told_by_alg_and_is_p256_where_nothing_tells() {
    verifies(&P256, changed(P256.jwk(), &json!({"crv": "-"})));
    verifies(&P256, changed(P256.jwk(), &json!({"crv": "", "alg": ""})));
    verifies(&P384, changed(P384.jwk(), &json!({"crv": "-", "alg": "ES384"})));
    verifies(&P521, changed(P521.jwk(), &json!({"crv": "-", "alg": "ES512"})));
    assert_eq!(fault(&changed(P384.jwk(), &json!({"crv": "-"}))), KeyError::Malformed("x"));
}

#[test]
fn what_does_not_fit_together_is_no_key() {
    for (jwk, changes, expected) in [
        (P256.jwk(), json!({"crv": "P-384"}), KeyError::Malformed("x")),
        (P256.jwk(), json!({"alg": "ES384"}), KeyError::Unsupported("alg")),
        (P256.jwk(), json!({"alg": "RS256"}), KeyError::Unsupported("alg")),
        (P256.jwk(), json!({"crv": "secp256k1"}), KeyError::Unsupported("crv")),
        (P256.jwk(), json!({"crv": 1}), KeyError::NotString("crv")),
        (P256.jwk(), json!({"y": "-"}), KeyError::Missing("y")),
        (P256.jwk(), json!({"y": 1}), KeyError::NotString("y")),
        (P256.jwk(), json!({"x": P256.jwk()["y"]}), KeyError::Malformed("x")),
        (RSA.jwk(), json!({"alg": "HS256"}), KeyError::Unsupported("alg")),
        (RSA.jwk(), json!({"e": "-"}), KeyError::Missing("e")),
        (RSA.jwk(), json!({"e": "BQ"}), KeyError::Malformed("e")),
        (RSA.jwk(), json!({"n": "AQAB"}), KeyError::RsaSize),
        (RSA.jwk(), json!({"n": b64(&[0xfe; 256])}), KeyError::Malformed("n")),
        (RSA.jwk(), json!({"n": b64(&[0xff; 1025])}), KeyError::RsaSize),
        (RSA.jwk(), json!({"kty": "rsa"}), KeyError::Unsupported("kty")),
        (RSA.jwk(), json!({"kty": 1}), KeyError::NotString("kty")),
        (RSA.jwk(), json!({"kty": "-"}), KeyError::Missing("kty")),
        (SECRET.jwk(), json!({"k": ""}), KeyError::Malformed("k")),
        (SECRET.jwk(), json!({"k": "!"}), KeyError::Malformed("k")),
        (SECRET.jwk(), json!({"alg": "RS256"}), KeyError::Unsupported("alg")),
        (ED25519.jwk(), json!({"crv": "X25519"}), KeyError::Unsupported("crv")),
        (ED25519.jwk(), json!({"crv": "-"}), KeyError::Missing("crv")),
        (ED25519.jwk(), json!({"x": "AA"}), KeyError::Malformed("x")),
        (ED25519.jwk(), json!({"alg": "Ed25519"}), KeyError::Unsupported("alg")),
    ] {
        assert_eq!(fault(&changed(jwk, &changes)), expected, "{changes}");
    }
}

#[test]
fn spelling_that_envoy_takes_is_taken() {
    let n = format!("AAAA{}", RSA.jwk()["n"].as_str().unwrap());
    verifies(&RSA, changed(RSA.jwk(), &json!({"n": n, "e": "AAABAAE"})));
    verifies(&RSA, changed(RSA.jwk(), &json!({"kid": 5, "alg": 7, "use": "enc", "key_ops": ["encrypt"]})));
    verifies(&P256, changed(P256.jwk(), &json!({"x": format!("{}=", P256.jwk()["x"].as_str().unwrap())})));
    assert_eq!(parse(&changed(RSA.jwk(), &json!({"alg": "RSA-OAEP"}))), Ok(1));
}

#[test]
fn members_that_are_no_keys_are_skipped_while_one_is_left() {
    let keys =
        json!({"keys": [1, "x", null, [], {}, {"kty": "x"}, P256.jwk(), {"kty": "RSA"}], "other": 1}).to_string();
    assert_eq!(KeySet::parse(&keys).unwrap().len(), 1);
}

#[test]
fn texts_that_are_no_key_set_say_so() {
    for text in ["", "x", "[]", "null", "1", "{\"keys\":[],\"keys\":[]}", "\u{feff}{}"] {
        assert!(matches!(KeySet::parse(text), Err(KeySetError::Json(_))), "{text}");
    }
    for text in ["{}", "{\"a\":1}", "{\"a\":\"-----BEGIN CERTIFICATE-----\\n\"}"] {
        assert_eq!(KeySet::parse(text).unwrap_err(), KeySetError::NoKeys, "{text}");
    }
    for text in ["{\"keys\":{}}", "{\"keys\":null}"] {
        assert_eq!(KeySet::parse(text).unwrap_err(), KeySetError::NotAList);
    }
    assert_eq!(KeySet::parse("{\"keys\":[]}").unwrap_err(), KeySetError::NoneUsable(None));
    assert_eq!(KeySet::parse(&" ".repeat(1 << 21)).unwrap_err(), KeySetError::TooLong);
    let many = set(&vec![P256.jwk(); 257]);
    assert_eq!(KeySet::parse(&many).unwrap_err(), KeySetError::TooManyKeys);
    assert_eq!(KeySet::parse(&set(&vec![P256.jwk(); 256])).unwrap().len(), 256);
}

/// A certificate as some issuers publish it; dates and names do not matter.
fn certificate(pair: &rcgen::KeyPair) -> String {
    CertificateParams::default().self_signed(pair).unwrap().pem().replace("\r\n", "\n")
}

fn rsa_pair() -> rcgen::KeyPair {
    rcgen::KeyPair::try_from(RSA.pkcs8()).unwrap()
}

#[test]
fn certificates_by_key_id_are_a_key_set_too() {
    let pem = certificate(&rsa_pair());
    let parsed = KeySet::parse(&json!({"one": pem, "two": pem}).to_string()).unwrap();
    assert_eq!((parsed.len(), format!("{parsed:?}")), (2, r#"{Some("one"), Some("two")}"#.to_owned()));
    for text in [json!({"": pem}), json!({"one": pem, "two": 1}), json!({"one": pem.trim()})] {
        assert_eq!(KeySet::parse(&text.to_string()).unwrap_err(), KeySetError::NoKeys);
    }
    let ec = certificate(&rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for text in [json!({"one": ec}), json!({"one": pem, "two": ec}), json!({ "one": junk })] {
        let refused = KeySet::parse(&text.to_string()).unwrap_err();
        assert_eq!(refused, KeySetError::NoneUsable(Some(KeyError::Certificate)));
    }
}

/// RSASSA-PSS keys have an identifier of their own, which Envoy's library does not read.
#[test]
fn a_certificate_with_another_kind_of_rsa_key_is_refused() {
    let rsa_encryption = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    let mut certificate = CertificateParams::default().self_signed(&rsa_pair()).unwrap().der().to_vec();
    let at = certificate.windows(rsa_encryption.len()).position(|window| window == rsa_encryption).unwrap();
    certificate[at + rsa_encryption.len() - 1] = 10;
    let pem = der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &certificate).unwrap();
    let refused = KeySet::parse(&json!({ "one": pem }).to_string()).unwrap_err();
    assert_eq!(refused, KeySetError::NoneUsable(Some(KeyError::Certificate)));
}

#[test]
fn a_token_signed_by_a_certificates_key_is_verified() {
    let pem = certificate(&rsa_pair());
    let rule = JwtRule { jwks: JwksSource::Inline(json!({ "rsa": pem }).to_string()), ..rule() };
    assert_eq!(subject(bearer(&RSA.claims(&with(&json!({})))).to(vec![rule])).as_deref(), Some("alice"));
}

#[test]
fn ecdsa_signatures_may_miss_or_add_zeros_as_in_envoy() {
    let token = good();
    let (message, _) = token.rsplit_once('.').unwrap();
    let signature = P256.sign("ES256", message.as_bytes());
    let (r, s) = signature.split_at(32);
    let wide = [&[0, 0], r, &[0, 0], s].concat();
    let odd = [signature.as_slice(), &[9]].concat();
    let ask = |signature: &[u8]| bearer(&format!("{message}.{}", b64(signature))).to(vec![rule()]);
    for signature in [&wide, &odd] {
        assert_eq!(subject(ask(signature)).as_deref(), Some("alice"));
    }
    for signature in [[&[1], r, &[0], s].concat(), signature[1..].to_vec(), [&[0], signature.as_slice()].concat()] {
        assert_eq!(refused(ask(&signature)).status, 401);
    }
}

#[test]
fn an_ed25519_key_without_id_stops_other_signatures_as_in_envoy() {
    let keys = set(&[changed(ED25519.jwk(), &json!({"kid": "-"})), RSA.jwk()]);
    let rule = JwtRule { jwks: JwksSource::Inline(keys), ..rule() };
    let body = refused(bearer(&RSA.claims(&with(&json!({})))).to(vec![rule])).body;
    assert_eq!(body, "Jwt ED25519 signature is wrong length");
}

#[test]
fn secrets_are_not_printed() {
    let text = format!("{:?}", KeySet::parse(&set(&[SECRET.jwk()])).unwrap());
    assert_eq!(text, r#"{Some("secret")}"#);
}
