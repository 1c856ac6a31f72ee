//! A set of public keys (RFC 7517), or Google's older form: an object of certificates by key id.

use std::fmt;

use der::asn1::{ObjectIdentifier, UintRef};
use der::pem::PemLabel;
use der::{Decode, Reader, SliceReader};
use serde_json::{Map, Value};
use x509_cert::Certificate;

use super::Algorithm;
use super::key::Key;
use crate::strict_json;

/// Longer texts are refused before they are read.
const MAX_BYTES: usize = 1 << 20;

/// A token without `kid` is tried with every key, so their number bounds the work for one bad token.
const MAX_KEYS: usize = 256;

/// `rsaEncryption` (RFC 8017).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

const ED25519_SIGNATURE_BYTES: usize = 64;

/// The keys of one issuer, ready to verify.
///
/// `Debug` prints key ids only: a set may hold shared secrets.
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why a text is no usable key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// Longer than one MiB.
    #[error("the key set is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// No JSON object, or a name occurs twice in one.
    #[error("the key set is no JSON object: {0}")]
    Json(String),
    /// Neither `keys` nor certificates.
    #[error("the key set has no `keys`")]
    NoKeys,
    /// `keys` is something else.
    #[error("`keys` is not a list")]
    NotAList,
    /// More than 256 keys.
    #[error("the key set has more than {MAX_KEYS} keys")]
    TooManyKeys,
    /// No member is a key that can verify a token.
    #[error("the key set has no usable key")]
    NoneUsable(#[source] Option<KeyError>),
}

/// Why a member of a set is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A member is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A member is no string.
    #[error("`{0}` is not a string")]
    NotString(&'static str),
    /// A member's value is not supported, alone or beside the others.
    #[error("this `{0}` is not supported")]
    Unsupported(&'static str),
    /// A member's value is no valid key material.
    #[error("`{0}` is malformed")]
    Malformed(&'static str),
    /// An RSA modulus outside of 2048 to 8192 bits.
    #[error("the RSA key has less than 2048 or more than 8192 bits")]
    RsaSize,
    /// A certificate that cannot be read, or whose key is not RSA.
    #[error("the certificate holds no RSA key")]
    Certificate,
}

/// Why no key of a set verifies a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// No key has the token's `kid` and `alg`.
    NoKey,
    /// Keys were tried, none fits.
    Signature,
    /// Envoy stops at an Ed25519 key when the signature cannot be one of it.
    Ed25519Length,
}

impl KeySet {
    /// Reads a key set. Members that are no usable keys are skipped, as Envoy does, as long as one is left.
    ///
    /// # Errors
    ///
    /// What [`KeySetError`] lists.
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        if text.len() > MAX_BYTES {
            return Err(KeySetError::TooLong);
        }
        let value = strict_json::parse(text.as_bytes()).map_err(|error| KeySetError::Json(error.to_string()))?;
        let Value::Object(object) = value else {
            return Err(KeySetError::Json("another JSON value".to_owned()));
        };
        match object.get("keys") {
            Some(Value::Array(keys)) => from_keys(keys),
            Some(_) => Err(KeySetError::NotAList),
            None => from_certificates(&object),
        }
    }

    /// How many keys it has; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a key set is never empty")]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a token that names this key has one to be tried with.
    pub(crate) fn knows(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref().is_none_or(|own| own == kid))
    }

    /// Tries the keys in order, as Envoy's `verifyJwtWithoutTimeChecking`.
    pub(crate) fn verify(
        &self,
        kid: Option<&str>,
        alg: Algorithm,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> Result<(), Mismatch> {
        let mut mismatch = Mismatch::NoKey;
        for key in self.keys.iter().filter(|key| key.may_verify(kid, alg)) {
            mismatch = Mismatch::Signature;
            if key.is_ed25519() && signature.len() != ED25519_SIGNATURE_BYTES {
                return Err(Mismatch::Ed25519Length);
            }
            if key.verifies(alg, message, signature) {
                return Ok(());
            }
        }
        Err(mismatch)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.iter().map(|key| &key.kid)).finish()
    }
}

fn from_keys(members: &[Value]) -> Result<KeySet, KeySetError> {
    if members.len() > MAX_KEYS {
        return Err(KeySetError::TooManyKeys);
    }
    let mut keys = Vec::new();
    let mut last = None;
    for member in members.iter().filter_map(Value::as_object) {
        match Key::parse(member) {
            Ok(key) => keys.push(key),
            Err(error) => last = Some(error),
        }
    }
    if keys.is_empty() { Err(KeySetError::NoneUsable(last)) } else { Ok(KeySet { keys }) }
}

/// `{"kid": "-----BEGIN CERTIFICATE-----\n.."}`; here one bad member spoils the set.
fn from_certificates(object: &Map<String, Value>) -> Result<KeySet, KeySetError> {
    if object.len() > MAX_KEYS {
        return Err(KeySetError::TooManyKeys);
    }
    let mut keys = Vec::new();
    for (kid, member) in object {
        let pem = member.as_str().filter(|pem| !kid.is_empty() && is_certificate(pem)).ok_or(KeySetError::NoKeys)?;
        keys.push(from_certificate(kid, pem).map_err(|error| KeySetError::NoneUsable(Some(error)))?);
    }
    if keys.is_empty() { Err(KeySetError::NoKeys) } else { Ok(KeySet { keys }) }
}

fn is_certificate(pem: &str) -> bool {
    pem.starts_with("-----BEGIN CERTIFICATE-----\n") && pem.ends_with("\n-----END CERTIFICATE-----\n")
}

fn from_certificate(kid: &str, pem: &str) -> Result<Key, KeyError> {
    let (label, der) = der::pem::decode_vec(pem.as_bytes()).map_err(|_| KeyError::Certificate)?;
    if label != Certificate::PEM_LABEL {
        return Err(KeyError::Certificate);
    }
    let certificate = Certificate::from_der(&der).map_err(|_| KeyError::Certificate)?;
    let spki = certificate.tbs_certificate().subject_public_key_info();
    let key = spki.subject_public_key.as_bytes().filter(|_| spki.algorithm.oid == RSA).ok_or(KeyError::Certificate)?;
    let (modulus, exponent) = rsa_numbers(key).map_err(|_| KeyError::Certificate)?;
    Key::rsa(kid, modulus, exponent)
}

/// `RSAPublicKey` (RFC 8017, A.1.1).
fn rsa_numbers(key: &[u8]) -> der::Result<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(key)?;
    let numbers = reader.sequence(|reader| {
        let modulus = UintRef::decode(reader)?;
        Ok::<_, der::Error>((modulus.as_bytes(), UintRef::decode(reader)?.as_bytes()))
    })?;
    reader.finish()?;
    Ok(numbers)
}
