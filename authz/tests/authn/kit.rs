//! Keys, tokens, rules and requests of the tests. Keys are made once per process.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_authz::{Accepted, Authenticator, Authn, KeySet, KeySource, Refusal, TokenRequest};
use palisade_policies::{JwksSource, JwtRule, Meta, Origin, RequestAuthentication, TokenHeader};
use serde_json::{Value, json};

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const ISSUER: &str = "https://a.example";

/// Each kind of key once, and a second P-256 key.
pub(crate) static P256: LazyLock<Key> = LazyLock::new(|| Key::ec("p256", "ES256"));
pub(crate) static OTHER: LazyLock<Key> = LazyLock::new(|| Key::ec("other", "ES256"));
pub(crate) static P384: LazyLock<Key> = LazyLock::new(|| Key::ec("p384", "ES384"));
pub(crate) static P521: LazyLock<Key> = LazyLock::new(|| Key::ec("p521", "ES512"));
pub(crate) static ED25519: LazyLock<Key> = LazyLock::new(Key::ed25519);
pub(crate) static RSA: LazyLock<Key> = LazyLock::new(Key::rsa);
pub(crate) static SECRET: LazyLock<Key> = LazyLock::new(|| Key::secret("secret", &[7; 48]));

enum Pair {
    Ec(Box<EcdsaKeyPair>),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
    Secret(Vec<u8>),
}

pub(crate) struct Key {
    pub(crate) kid: &'static str,
    /// The algorithm it signs with unless told otherwise.
    pub(crate) alg: &'static str,
    pair: Pair,
}

impl Key {
    fn ec(kid: &'static str, alg: &'static str) -> Self {
        let algorithm = match alg {
            "ES256" => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            "ES384" => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        Self { kid, alg, pair: Pair::Ec(Box::new(EcdsaKeyPair::generate(algorithm).unwrap())) }
    }

    fn ed25519() -> Self {
        Self { kid: "ed", alg: "EdDSA", pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()) }
    }

    fn rsa() -> Self {
        let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        Self { kid: "rsa", alg: "RS256", pair: Pair::Rsa(Box::new(pair)) }
    }

    pub(crate) fn secret(kid: &'static str, secret: &[u8]) -> Self {
        Self { kid, alg: "HS256", pair: Pair::Secret(secret.to_vec()) }
    }

    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Ec(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let crv = [(32, "P-256"), (48, "P-384"), (66, "P-521")].into_iter().find(|(n, _)| *n == x.len());
                json!({"kty": "EC", "crv": crv.unwrap().1, "x": b64(x), "y": b64(y)})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())}),
            Pair::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": b64(&public.n), "e": b64(&public.e)})
            }
            Pair::Secret(secret) => json!({"kty": "oct", "k": b64(secret)}),
        };
        jwk["kid"] = json!(self.kid);
        jwk
    }

    /// The public half as bytes that an attacker knows: SPKI in DER for RSA, the point otherwise.
    pub(crate) fn public_bytes(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
                spki.as_ref().to_vec()
            }
            Pair::Secret(secret) => secret.clone(),
        }
    }

    /// The private half of an RSA key in PKCS#8.
    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        let Pair::Rsa(pair) = &self.pair else { panic!("no RSA key") };
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        der.as_ref().to_vec()
    }

    pub(crate) fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Secret(secret) => {
                let algorithm = match alg {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
            }
            Pair::Rsa(pair) => {
                let padding: &'static dyn signature::RsaEncoding = match alg {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// A token with this header and these claims.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        self.raw_token(&header.to_string(), &claims.to_string())
    }

    /// A token of these very texts; signed with the algorithm that the header names, as far as the key can.
    pub(crate) fn raw_token(&self, header: &str, claims: &str) -> String {
        let alg =
            serde_json::from_str::<Value>(header).ok().and_then(|header| Some(header["alg"].as_str()?.to_owned()));
        let message = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
        let signature = self.sign(alg.as_deref().unwrap_or(self.alg), message.as_bytes());
        format!("{message}.{}", b64(&signature))
    }

    /// A token with the usual header.
    pub(crate) fn claims(&self, claims: &Value) -> String {
        self.token(&json!({"alg": self.alg, "kid": self.kid}), claims)
    }
}

pub(crate) fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The claims of `good`, with changes; `null` takes one away.
pub(crate) fn with(changes: &Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "sub": "alice"});
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().shift_remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// A token that the usual rule accepts.
pub(crate) fn good() -> String {
    P256.claims(&with(&json!({})))
}

/// The same with another signature.
pub(crate) fn bad() -> String {
    let good = good();
    let (message, _) = good.rsplit_once('.').unwrap();
    format!("{message}.{}", b64(&[1; 64]))
}

pub(crate) fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// A rule for [`ISSUER`] and the key [`P256`].
pub(crate) fn rule() -> JwtRule {
    JwtRule {
        issuer: ISSUER.to_owned(),
        audiences: Vec::new(),
        jwks: JwksSource::Inline(set(&[P256.jwk()])),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        output_payload_to_header: None,
        output_claim_to_headers: Vec::new(),
        forward_original_token: false,
        timeout: Duration::from_secs(5),
        space_delimited_claims: Vec::new(),
        origin: Origin { file: "test.yaml".into(), line: 1 },
    }
}

pub(crate) fn from_header(name: &str, prefix: &str) -> TokenHeader {
    TokenHeader { name: name.to_owned(), prefix: prefix.to_owned() }
}

pub(crate) fn compile(rules: Vec<JwtRule>) -> Authenticator {
    let origin = Origin { file: "test.yaml".into(), line: 1 };
    let (labels, annotations) = Default::default();
    let meta =
        Meta { name: "tokens".to_owned(), namespace: "shop".to_owned(), labels, annotations, created: None, origin };
    Authenticator::compile(&[Arc::new(RequestAuthentication { meta, selector: None, target_refs: Vec::new(), rules })])
}

/// A source without any keys: inline ones need none.
pub(crate) struct NoKeys;

impl KeySource for NoKeys {
    fn keys(&self, _: &JwtRule) -> Option<Arc<KeySet>> {
        None
    }
}

/// One request; header values are text.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

pub(crate) fn call() -> Call {
    Call { method: "GET", target: "/p".to_owned(), headers: Vec::new() }
}

/// A request with the token in its usual place.
pub(crate) fn bearer(token: &str) -> Call {
    call().header("Authorization", &format!("Bearer {token}"))
}

impl Call {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    pub(crate) fn target(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn ask(&self, authenticator: &Authenticator, keys: &dyn KeySource) -> Authn {
        let request = TokenRequest {
            method: Some(self.method),
            target: Some(&self.target),
            scheme: Some("http"),
            host: Some("h.example"),
            headers: &self.headers,
        };
        authenticator.authenticate(&request, keys, NOW)
    }

    pub(crate) fn to(&self, rules: Vec<JwtRule>) -> Authn {
        self.ask(&compile(rules), &NoKeys)
    }

    /// What the application gets of a header.
    pub(crate) fn forwarded(&self, accepted: &Accepted, name: &str) -> Vec<String> {
        let mut headers = self.headers.clone();
        accepted.edits.apply(&mut headers);
        let named = headers.into_iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        named.map(|(_, value)| String::from_utf8(value).unwrap()).collect()
    }
}

#[track_caller]
pub(crate) fn accepted(authn: Authn) -> Accepted {
    match authn {
        Authn::Accepted(accepted) => accepted,
        Authn::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

#[track_caller]
pub(crate) fn refused(authn: Authn) -> Refusal {
    match authn {
        Authn::Refused(refusal) => refusal,
        Authn::Accepted(accepted) => panic!("accepted: {accepted:?}"),
    }
}

/// The subject of the verified token; `None` where a request passes without one.
#[track_caller]
pub(crate) fn subject(authn: Authn) -> Option<String> {
    accepted(authn).claims.map(|claims| claims["sub"].as_str().unwrap_or_default().to_owned())
}

/// Passes, and nobody is known.
#[track_caller]
pub(crate) fn anonymous(authn: Authn) {
    assert_eq!(subject(authn), None);
}
