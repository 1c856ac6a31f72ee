//! Tokens from strangers: the input stands in each place as it is, and also as the header and payload of a token
//! that is really signed, which reaches the code behind the signature.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use palisade_authz::{Authenticator, Authn, KeySet, KeySource, TokenRequest};
use palisade_policies::{ClaimToHeader, JwksSource, JwtRule, Meta, Origin, RequestAuthentication, TokenHeader};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"nobody who fuzzes finds a signature by chance";

struct NoKeys;

impl KeySource for NoKeys {
    fn keys(&self, _: &JwtRule) -> Option<Arc<KeySet>> {
        None
    }
}

fn origin() -> Origin {
    Origin { file: "fuzz.yaml".into(), line: 1 }
}

/// All places and all outputs.
fn rule() -> JwtRule {
    let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET)});
    let claim = |header: &str, claim: &str| ClaimToHeader { header: header.into(), claim: claim.into() };
    JwtRule {
        issuer: "i".into(),
        audiences: Vec::new(),
        jwks: JwksSource::Inline(json!({"keys": [jwk]}).to_string()),
        from_headers: vec![
            TokenHeader { name: "x-jwt".into(), prefix: String::new() },
            TokenHeader { name: "authorization".into(), prefix: "Bearer ".into() },
        ],
        from_params: vec!["t".into()],
        from_cookies: vec!["s".into()],
        output_payload_to_header: Some("x-payload".into()),
        output_claim_to_headers: vec![claim("x-a", "a"), claim("x-b", "a.b")],
        forward_original_token: false,
        timeout: Duration::from_secs(5),
        space_delimited_claims: vec!["a".into()],
        origin: origin(),
    }
}

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let (labels, annotations) = Default::default();
    let (name, namespace) = ("a".to_owned(), "b".to_owned());
    let meta = Meta { name, namespace, labels, annotations, created: None, origin: origin() };
    let any = JwtRule { issuer: String::new(), from_cookies: vec!["s".into()], ..rule() };
    let rules = vec![rule(), any];
    Authenticator::compile(&[Arc::new(RequestAuthentication { meta, selector: None, target_refs: Vec::new(), rules })])
});

/// The claims, if the request is accepted with any.
fn ask(target: &str, headers: &[(&str, Vec<u8>)]) -> Option<Arc<Value>> {
    let request =
        TokenRequest { method: Some("GET"), target: Some(target), headers: &headers, ..TokenRequest::default() };
    match AUTHENTICATOR.authenticate(&request, &NoKeys, NOW) {
        Authn::Refused(refusal) => {
            assert!(refusal.status == 401 && !refusal.body.is_empty());
            None
        }
        Authn::Accepted(accepted) => {
            let mut left = vec![("x-payload".to_owned(), b"spoofed".to_vec())];
            accepted.edits.apply(&mut left);
            for (_, value) in left {
                assert!(value != b"spoofed" && !value.iter().any(|byte| b"\r\n\0".contains(byte)));
            }
            accepted.claims
        }
    }
}

fn unsigned(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for (target, headers) in [
        ("/".to_owned(), vec![("x-jwt", input.to_vec())]),
        ("/".to_owned(), vec![("authorization", [b"Bearer ", input].concat())]),
        ("/".to_owned(), vec![("cookie", input.to_vec()), ("cookie", [b"s=", input].concat())]),
        (format!("/?t={text}"), Vec::new()),
        (format!("/?{text}"), Vec::new()),
    ] {
        assert!(ask(&target, &headers).is_none(), "accepted without a signature");
    }
}

/// Accepted only if another JSON reader finds the same in it.
fn signed(header: &[u8], payload: &[u8]) {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
    let Some(claims) = ask("/", &[("x-jwt", token.into_bytes())]) else { return };
    let header: Value = serde_json::from_slice(header).expect("an accepted header is JSON");
    assert!(header["alg"] == "HS256" && header.get("crit").is_none());
    let payload: Value = serde_json::from_slice(payload).expect("an accepted payload is JSON");
    for name in ["iss", "sub", "jti", "exp", "nbf", "iat", "aud"] {
        assert_eq!(claims.get(name), payload.get(name));
    }
    let expires = payload.get("exp").and_then(Value::as_f64).unwrap_or_default();
    assert!(expires < 1.0 || expires + 61.0 >= NOW as f64);
}

fuzz_target!(|input: &[u8]| {
    unsigned(input);
    signed(br#"{"alg":"HS256"}"#, input);
    if let Some(at) = input.iter().position(|byte| *byte == b'\n') {
        signed(&input[..at], &input[at + 1..]);
    }
});
