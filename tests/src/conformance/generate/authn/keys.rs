//! The keys of a run, one of each kind that tokens are signed with.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_policies::{JwksSource, JwtRule, RequestAuthentication, TokenHeader};
use serde_json::{Value, json};

use super::super::policy;
use crate::conformance::scene::{NAMESPACE, TOKEN, TRUSTED};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A kind of signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Es256,
    Rs256,
    Ps256,
    EdDsa,
}

/// All of them.
pub(super) const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Hs256, Algorithm::Es256, Algorithm::Rs256, Algorithm::Ps256, Algorithm::EdDsa];

impl Algorithm {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// The keys of a run.
pub(in crate::conformance) struct Keys {
    secret: hmac::Key,
    elliptic: EcdsaKeyPair,
    rsa: RsaKeyPair,
    edwards: Ed25519KeyPair,
}

impl Keys {
    /// New keys.
    ///
    /// # Errors
    /// When one cannot be made.
    pub(in crate::conformance) fn new() -> Result<Self> {
        let elliptic = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).context("no EC key")?;
        let edwards = Ed25519KeyPair::generate().context("no Ed25519 key")?;
        let rsa = RsaKeyPair::generate(rsa::KeySize::Rsa2048).context("no RSA key")?;
        Ok(Self { secret: hmac::Key::new(hmac::HMAC_SHA256, SECRET), elliptic, rsa, edwards })
    }

    /// The rule behind claims that a scene gives with the request: any issuer, one header.
    pub(in crate::conformance) fn trusting(&self) -> Arc<RequestAuthentication> {
        let rule = JwtRule {
            issuer: String::new(),
            audiences: Vec::new(),
            jwks: JwksSource::Inline(json!({ "keys": [self.jwk(Algorithm::Hs256)] }).to_string()),
            from_headers: vec![TokenHeader { name: TOKEN.to_owned(), prefix: String::new() }],
            from_params: Vec::new(),
            from_cookies: Vec::new(),
            output_payload_to_header: None,
            output_claim_to_headers: Vec::new(),
            forward_original_token: true,
            timeout: JwtRule::DEFAULT_TIMEOUT,
            space_delimited_claims: Vec::new(),
            origin: policy::origin(),
        };
        let meta = policy::meta(TRUSTED.to_owned(), NAMESPACE);
        Arc::new(RequestAuthentication { meta, selector: None, target_refs: Vec::new(), rules: vec![rule] })
    }

    /// A token with exactly these claims.
    pub(in crate::conformance) fn trusted(&self, claims: &Value) -> String {
        self.token(Algorithm::Hs256, &json!({ "alg": "HS256", "kid": "HS256" }).to_string(), &claims.to_string())
    }

    /// A signed token of any head and payload.
    pub(super) fn token(&self, algorithm: Algorithm, head: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |padding: &'static dyn aws_lc_rs::signature::RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            // A key of this size signs anything.
            self.rsa.sign(padding, &random, message, &mut signature).map(|()| signature).unwrap_or_default()
        };
        match algorithm {
            Algorithm::Hs256 => hmac::sign(&self.secret, message).as_ref().to_vec(),
            Algorithm::Es256 => {
                self.elliptic.sign(&random, message).map(|signature| signature.as_ref().to_vec()).unwrap_or_default()
            }
            Algorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
            Algorithm::Ps256 => rsa(&RSA_PSS_SHA256),
            Algorithm::EdDsa => self.edwards.sign(message).as_ref().to_vec(),
        }
    }

    /// The public half as a JSON Web Key, named after its algorithm.
    pub(super) fn jwk(&self, algorithm: Algorithm) -> Value {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let kid = algorithm.name();
        match algorithm {
            Algorithm::Hs256 => json!({ "kty": "oct", "kid": kid, "alg": kid, "k": encoded(SECRET) }),
            Algorithm::Es256 => {
                let point = self.elliptic.public_key().as_ref();
                let (x, y) = (point.get(1..33).unwrap_or_default(), point.get(33..).unwrap_or_default());
                json!({ "kty": "EC", "kid": kid, "alg": kid, "crv": "P-256", "x": encoded(x), "y": encoded(y) })
            }
            Algorithm::Rs256 | Algorithm::Ps256 => {
                let public = self.rsa.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                json!({ "kty": "RSA", "kid": kid, "alg": kid, "n": encoded(n), "e": encoded(e) })
            }
            Algorithm::EdDsa => {
                let x = encoded(self.edwards.public_key().as_ref());
                json!({ "kty": "OKP", "kid": kid, "alg": kid, "crv": "Ed25519", "x": x })
            }
        }
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}
