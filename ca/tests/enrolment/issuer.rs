//! A cluster's token issuer: it signs projected tokens and publishes its keys.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::asn1::UintRef;
use der::{Decode, Reader, SliceReader};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

pub(crate) struct Issuer {
    kid: String,
    alg: &'static str,
    key: Key,
}

enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
}

impl Issuer {
    pub(crate) fn rsa(kid: &str) -> Self {
        Self { kid: kid.into(), alg: "RS256", key: Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
    }

    pub(crate) fn ec(kid: &str, alg: &'static str) -> Self {
        let (algorithm, curve): (&'static EcdsaSigningAlgorithm, _) = match alg {
            "ES384" => (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            "ES512" => (&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
            _ => (&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
        };
        Self { kid: kid.into(), alg, key: Key::Ec(EcdsaKeyPair::generate(algorithm).unwrap(), curve) }
    }

    pub(crate) fn jwk(&self) -> Value {
        match &self.key {
            Key::Rsa(key) => {
                let (n, e) = rsa_numbers(key.public_key().as_ref());
                json!({"kty": "RSA", "use": "sig", "alg": self.alg, "kid": self.kid, "n": n, "e": e})
            }
            Key::Ec(key, curve) => {
                let (_, point) = key.public_key().as_ref().split_at(1);
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "use": "sig", "kid": self.kid, "crv": curve, "x": encode(x), "y": encode(y)})
            }
        }
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Key::Ec(key, _) => key.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", encode(&signature))
    }

    pub(crate) fn header(&self) -> Value {
        json!({"alg": self.alg, "kid": self.kid})
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }
}

pub(crate) fn jwks(issuers: &[&Issuer]) -> String {
    json!({"keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>()}).to_string()
}

/// What the kubelet's tokens say.
pub(crate) fn claims(namespace: &str, account: &str, now: u64) -> Value {
    json!({
        "iss": ISSUER, "aud": ["istio-ca"], "iat": now, "nbf": now, "exp": now + 3_600, "jti": "5f0",
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "kubernetes.io": {
            "namespace": namespace, "serviceaccount": {"name": account, "uid": "sa-uid"},
            "pod": {"name": format!("{account}-0"), "uid": "pod-uid"}, "node": {"name": "worker-1", "uid": "node-uid"},
        },
    })
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// RSAPublicKey (RFC 8017, A.1.1).
fn rsa_numbers(der: &[u8]) -> (String, String) {
    let mut reader = SliceReader::new(der).unwrap();
    let numbers = reader.sequence(|inner| Ok::<_, der::Error>((UintRef::decode(inner)?, UintRef::decode(inner)?)));
    let (n, e) = numbers.unwrap();
    (encode(n.as_bytes()), encode(e.as_bytes()))
}
