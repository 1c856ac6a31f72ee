use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::fixtures::{START, at};

const NOW: u64 = START;

struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap())
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "kid": "k", "use": "jwt-svid", "x": x, "y": y})
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        self.text(&header.to_string(), &claims.to_string())
    }

    fn text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k", "typ": "JWT"})
}

fn claims() -> Value {
    json!({"sub": "spiffe://a.test/web", "aud": ["db", "cache"], "exp": NOW + 60, "iat": NOW, "deep": {"a": [1, null]}})
}

fn with(mut value: Value, name: &str, to: Value) -> Value {
    value[name] = to;
    value
}

fn without(mut value: Value, name: &str) -> Value {
    value.as_object_mut().unwrap().remove(name);
    value
}

fn jwks(name: &str, keys: Value) -> BTreeMap<String, String> {
    [(name.to_owned(), json!({ "keys": keys }).to_string())].into()
}

/// Two readers of a name that stands twice may read two things.
#[test]
fn a_name_that_stands_twice_makes_a_token_or_a_key_set_invalid() {
    let signer = Signer::new();
    let keys = jwks("a.test", json!([signer.jwk()]));
    let (header, claims) = (header().to_string(), claims().to_string());
    let judge = |header: &str, claims: &str, keys: &BTreeMap<String, String>| {
        validate(&signer.text(header, claims), "db", keys, at(NOW)).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(judge(&header, &claims, &keys), Ok(()));
    let twice = |text: &str, first: &str| text.replacen('{', &format!("{{{first},"), 1);
    let error = judge(&twice(&header, r#""alg":"none""#), &claims, &keys).unwrap_err();
    assert!(error.contains("header") && error.contains("each name once"), "{error}");
    let error = judge(&header, &twice(&claims, r#""\u0073ub":"spiffe://a.test/other""#), &keys).unwrap_err();
    assert!(error.contains("payload"), "{error}");
    let doubled = keys.iter().map(|(name, text)| (name.clone(), twice(text, r#""keys":[]"#))).collect();
    assert!(judge(&header, &claims, &doubled).unwrap_err().contains("no such key"));
}

/// The standard's rules, one broken at a time.
#[test]
fn trap_44_what_the_standard_does_not_allow_is_refused() {
    let signer = Signer::new();
    let keys = jwks("a.test", json!([signer.jwk()]));
    let judge = |header: &Value, claims: &Value| {
        validate(&signer.token(header, claims), "db", &keys, at(NOW)).map(|token| token.id.to_string())
    };
    assert_eq!(judge(&header(), &claims()).unwrap(), "spiffe://a.test/web");
    assert_eq!(judge(&without(header(), "typ"), &claims()).unwrap(), "spiffe://a.test/web");
    for (header, text) in [
        (with(header(), "alg", json!("none")), "algorithm"),
        (with(header(), "alg", json!("HS256")), "algorithm"),
        (with(header(), "alg", json!("EdDSA")), "algorithm"),
        (with(header(), "alg", json!("RS256")), "no such key"),
        (with(header(), "alg", json!("ES384")), "no such key"),
        (without(header(), "kid"), "names no key"),
        (with(header(), "kid", json!("other")), "no such key"),
        (with(header(), "typ", json!("wit+jwt")), "typ"),
        (with(header(), "jku", json!("https://x")), "header other than"),
        (with(header(), "crit", json!([])), "header other than"),
    ] {
        let error = judge(&header, &claims()).unwrap_err().to_string();
        assert!(error.contains(text), "{header}: {error}");
    }
    for (claims, text) in [
        (without(claims(), "sub"), "`sub`"),
        (with(claims(), "sub", json!("alice")), "not a SPIFFE ID"),
        (with(claims(), "sub", json!("spiffe://b.test/web")), "`b.test` is not trusted"),
        (without(claims(), "aud"), "`aud`"),
        (with(claims(), "aud", json!("db")), "`aud`"),
        (with(claims(), "aud", json!(["other"])), "somebody else"),
        (without(claims(), "exp"), "`exp`"),
        (with(claims(), "exp", json!("soon")), "`exp`"),
        (with(claims(), "exp", json!(NOW - 10)), "expired"),
        (with(claims(), "nbf", json!(NOW + 11)), "not valid yet"),
    ] {
        let error = judge(&header(), &claims).unwrap_err().to_string();
        assert!(error.contains(text), "{claims}: {error}");
    }
    assert!(judge(&header(), &with(claims(), "exp", json!(NOW - 9))).is_ok(), "clocks differ a little");
}

/// Trap 44: keys of other domains and for other uses verify nothing.
#[test]
fn trap_44_only_a_key_of_the_subjects_domain_and_for_tokens_verifies() {
    let (signer, other) = (Signer::new(), Signer::new());
    let token = signer.token(&header(), &claims());
    let judge = |keys: &BTreeMap<String, String>| validate(&token, "db", keys, at(NOW)).map(|_| ());
    assert!(judge(&jwks("a.test", json!([{"kty": "novel"}, signer.jwk()]))).is_ok(), "unknown kinds are passed over");
    assert!(judge(&jwks("a.test", json!([without(signer.jwk(), "use")]))).is_ok());
    assert!(matches!(judge(&jwks("a.test", json!([other.jwk()]))), Err(TokenError::Signature)));
    let x509 = with(signer.jwk(), "use", json!("x509-svid"));
    assert!(matches!(judge(&jwks("a.test", json!([x509]))), Err(TokenError::UnknownKey)));
    assert!(matches!(judge(&jwks("b.test", json!([signer.jwk()]))), Err(TokenError::UnknownTrustDomain(_))));
    assert!(matches!(judge(&jwks("a.test", json!([]))), Err(TokenError::UnknownKey)), "no keys, no trust");
}

/// Trap 45: what one entry of a key set is for must not cost the others, nor a number that is large.
#[test]
fn trap_45_entries_that_nobody_knows_cost_the_others_nothing() {
    let signer = Signer::new();
    let token = signer.token(&header(), &claims());
    let novel = with(signer.jwk(), "use", json!("wit-svid"));
    let odd = [novel, json!({"use": 7}), json!({}), json!(null), json!("key")];
    let set = |keys: Vec<Value>| {
        let text = json!({"keys": keys, "spiffe_sequence": u64::MAX, "spiffe_refresh_hint": 1.5, "more": []});
        [("a.test".to_owned(), text.to_string())].into()
    };
    let judge = |keys: &BTreeMap<String, String>| validate(&token, "db", keys, at(NOW)).map(|_| ());
    let all: Vec<Value> = odd.iter().cloned().chain([signer.jwk()]).collect();
    assert!(judge(&set(all)).is_ok());
    assert!(matches!(judge(&set(odd.to_vec())), Err(TokenError::UnknownKey)), "and verify nothing");
}

#[test]
fn other_shapes_are_no_tokens() {
    let signer = Signer::new();
    let keys = jwks("a.test", json!([signer.jwk()]));
    let good = signer.token(&header(), &claims());
    let json = json!({"payload": "", "signatures": []}).to_string();
    for bad in ["", "..", "a.b.c", &json, &format!("{good}.x"), &format!("{good}="), &"a".repeat(20_000)] {
        assert!(validate(bad, "db", &keys, at(NOW)).is_err(), "{bad}");
    }
    let (start, signature) = good.rsplit_once('.').unwrap();
    let flipped: String = signature.chars().rev().collect();
    assert!(validate(&format!("{start}.{flipped}"), "db", &keys, at(NOW)).is_err());
}

#[test]
fn claims_keep_their_shape() {
    let Value::Object(map) = claims() else { panic!("an object") };
    let fields = to_struct(map).fields;
    assert_eq!(fields["sub"].kind, Some(Kind::StringValue("spiffe://a.test/web".to_owned())));
    let Some(Kind::StructValue(deep)) = &fields["deep"].kind else { panic!("nested") };
    let Some(Kind::ListValue(list)) = &deep.fields["a"].kind else { panic!("a list") };
    assert_eq!(list.values[0].kind, Some(Kind::NumberValue(1.0)));
}

#[test]
fn an_audience_is_somebody() {
    let of = |list: &[&str]| audience(list.iter().map(|&one| one.to_owned()).collect());
    assert_eq!(of(&["b", "a", "b"]), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((of(&[]), of(&[""]), of(&["a", ""])), (None, None, None));
}
