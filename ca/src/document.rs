//! The trust domain's public keys as documents: SPIFFE's bundle, a plain JWK set, and OpenID Connect discovery.
//!
//! SPIFFE Trust Domain and Bundle, sections 4 and 5; RFC 7517; OpenID Connect Discovery 1.0, sections 3 and 4.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use der::asn1::UintRef;
use der::{Decode as _, Reader as _};
use palisade_identity::TrustBundle;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_cert::Certificate;
use x509_cert::spki::ObjectIdentifier;

use crate::directory::{Directory, DirectoryError};
use crate::signer::{hex, sha256};

const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// Named curves (RFC 5480, 2.1.1.1) and their JOSE names.
const CURVES: [(ObjectIdentifier, &str); 3] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"), "P-256"),
    (ObjectIdentifier::new_unwrap("1.3.132.0.34"), "P-384"),
    (ObjectIdentifier::new_unwrap("1.3.132.0.35"), "P-521"),
];

const SEQUENCE_FILE: &str = "bundle-sequence";

/// The documents of one content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// SPIFFE's bundle: X.509 roots and JWT keys with their `use`, `spiffe_sequence`, `spiffe_refresh_hint`.
    pub bundle: Arc<str>,
    /// The JWT keys alone, `use` `jwt-svid`: what the Workload API hands out.
    pub jwt_bundle: Arc<str>,
    /// The JWT keys alone, `use` `sig`: what OpenID Connect verifiers fetch.
    pub keys: Arc<str>,
    /// The discovery document; `None` without an issuer.
    pub discovery: Option<Arc<str>>,
    /// Grows with each change of the bundle.
    pub sequence: u64,
    /// After so many seconds whoever cannot follow looks again.
    pub refresh_hint: u32,
}

/// What goes into them.
pub(crate) struct Content<'a> {
    pub(crate) x509: &'a TrustBundle,
    /// Public JWKs for a given `use`.
    pub(crate) jwt: &'a dyn Fn(&str) -> Vec<Value>,
    pub(crate) issuer: Option<&'a str>,
    pub(crate) refresh_hint: Duration,
}

impl Documents {
    /// Writes them. The sequence is that of the last start if the content is the same, else a greater one: at least the time, so
    /// that it grows even where the file was lost.
    pub(crate) fn write(content: &Content<'_>, directory: &Directory, now: u64) -> Result<Self, DirectoryError> {
        let roots = content.x509.authorities().iter().map(x509_jwk);
        let keys: Vec<Value> = roots.chain((content.jwt)("jwt-svid")).collect();
        let digest = hex(&sha256(json!(keys).to_string().as_bytes()));
        let sequence = sequence(directory, &digest, now)?;
        let refresh_hint = u32::try_from(content.refresh_hint.as_secs()).unwrap_or(u32::MAX);
        let bundle = json!({
            "keys": keys,
            "spiffe_sequence": sequence,
            "spiffe_refresh_hint": refresh_hint,
        });
        let set = |usage| json!({"keys": (content.jwt)(usage)}).to_string().into();
        let discovery = content.issuer.map(|issuer| discovery(issuer).to_string().into());
        Ok(Self {
            bundle: bundle.to_string().into(),
            jwt_bundle: set("jwt-svid"),
            keys: set("sig"),
            discovery,
            sequence,
            refresh_hint,
        })
    }
}

/// One line: the sequence, and the hash of the keys that it was given to.
fn sequence(directory: &Directory, digest: &str, now: u64) -> Result<u64, DirectoryError> {
    let kept = directory.read_secret(SEQUENCE_FILE)?;
    let kept = kept.as_deref().and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
    let last = kept.trim().split_once(' ').and_then(|(number, hash)| Some((number.parse::<u64>().ok()?, hash)));
    match last {
        Some((number, hash)) if hash == digest => Ok(number),
        last => {
            let next = last.map_or(0, |(number, _)| number.saturating_add(1)).max(now);
            directory.replace(SEQUENCE_FILE, format!("{next} {digest}\n").as_bytes())?;
            Ok(next)
        }
    }
}

/// A root with its certificate in `x5c` and, as SPIFFE demands, no `kid`.
fn x509_jwk(certificate: &CertificateDer<'static>) -> Value {
    let mut jwk = public_jwk(certificate).unwrap_or_else(|| json!({"kty": "X509"}));
    if let Some(members) = jwk.as_object_mut() {
        members.insert("use".to_owned(), "x509-svid".into());
        members.insert("x5c".to_owned(), json!([STANDARD.encode(certificate)]));
    }
    jwk
}

/// The parameters of the key (RFC 7518, 6.2 and 6.3).
fn public_jwk(certificate: &CertificateDer<'_>) -> Option<Value> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let info = parsed.tbs_certificate().subject_public_key_info();
    let key = info.subject_public_key.as_bytes()?;
    match info.algorithm.oid {
        EC => {
            let point = key.strip_prefix(&[4])?;
            let (x, y) = point.split_at_checked(point.len() / 2)?;
            let curve = info.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
            let (_, name) = CURVES.into_iter().find(|(oid, _)| *oid == curve)?;
            Some(json!({"kty": "EC", "crv": name, "x": url(x), "y": url(y)}))
        }
        RSA => {
            let (n, e) = rsa(key)?;
            Some(json!({"kty": "RSA", "n": n, "e": e}))
        }
        ED25519 => Some(json!({"kty": "OKP", "crv": "Ed25519", "x": url(key)})),
        _ => None,
    }
}

fn rsa(key: &[u8]) -> Option<(String, String)> {
    let mut reader = der::SliceReader::new(key).ok()?;
    let numbers = reader.sequence(|inner| {
        let (n, e): (UintRef<'_>, UintRef<'_>) = (inner.decode()?, inner.decode()?);
        Ok::<_, der::Error>((url(n.as_bytes()), url(e.as_bytes())))
    });
    numbers.ok()
}

fn url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn discovery(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/keys"),
        "authorization_endpoint": "",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

#[cfg(test)]
mod tests;
