//! One public key of a set. The key, not the token, decides which algorithms are possible: its kind allows a family,
//! its curve one member, its `alg` exactly that. A token can only choose among them.

use aws_lc_rs::signature::{self, EcdsaVerificationAlgorithm, UnparsedPublicKey};
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use serde_json::{Map, Value};

use super::Algorithm;
use super::key_set::KeyError;
use crate::base64url;

/// RSA moduli, in bits. Envoy takes shorter ones; NIST has disallowed them since 2013.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A key that can verify signatures.
pub(super) struct Key {
    pub(super) kid: Option<String>,
    alg: Declared,
    material: Material,
}

/// What a key's own `alg` says.
enum Declared {
    /// Nothing.
    Any,
    Only(Algorithm),
    /// An algorithm of the right family that no token can have (`RSA-OAEP`).
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

enum Material {
    Ec(Curve, DecodingKey),
    Rsa(DecodingKey),
    Oct(DecodingKey),
    Ed25519(DecodingKey),
}

impl Key {
    /// Reads one member of `keys` (RFC 7517), with the defaults of Envoy.
    pub(super) fn parse(jwk: &Map<String, Value>) -> Result<Self, KeyError> {
        let alg = optional(jwk, "alg");
        let material = match required(jwk, "kty")? {
            "EC" => ec(jwk, alg)?,
            "RSA" => rsa(jwk, alg)?,
            "oct" => oct(jwk, alg)?,
            "OKP" => okp(jwk, alg)?,
            _ => return Err(KeyError::Unsupported("kty")),
        };
        Ok(Self { kid: optional(jwk, "kid").map(str::to_owned), alg: Declared::of(alg), material })
    }

    /// An RSA key from a certificate, without `alg`.
    pub(super) fn rsa(kid: &str, modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let kid = Some(kid.to_owned()).filter(|kid| !kid.is_empty());
        Ok(Self { kid, alg: Declared::Any, material: rsa_key(modulus, exponent)? })
    }

    /// Whether a token with this header may be tried with this key: a `kid` on both sides has to be the same, an
    /// `alg` of the key has to be the token's.
    pub(super) fn may_verify(&self, kid: Option<&str>, alg: Algorithm) -> bool {
        let same_kid = match (kid, &self.kid) {
            (Some(token), Some(key)) => token == key,
            _ => true,
        };
        same_kid
            && match self.alg {
                Declared::Any => true,
                Declared::Only(only) => only == alg,
                Declared::Never => false,
            }
    }

    pub(super) const fn is_ed25519(&self) -> bool {
        matches!(self.material, Material::Ed25519(_))
    }

    /// Whether `signature` over `message` is this key's, made with `alg`. An `alg` of another kind of key is not.
    pub(super) fn verifies(&self, alg: Algorithm, message: &[u8], signature: &Vec<u8>) -> bool {
        if !self.allows(alg) {
            return false;
        }
        match &self.material {
            Material::Ec(curve, key) => fixed_width(signature, curve.field_bytes())
                .is_some_and(|signature| verify_with(key, alg, message, &signature)),
            Material::Rsa(key) | Material::Oct(key) | Material::Ed25519(key) => {
                verify_with(key, alg, message, signature)
            }
        }
    }

    fn allows(&self, alg: Algorithm) -> bool {
        use Algorithm as A;
        match &self.material {
            Material::Ec(Curve::P256, _) => alg == A::Es256,
            Material::Ec(Curve::P384, _) => alg == A::Es384,
            Material::Ec(Curve::P521, _) => alg == A::Es512,
            Material::Rsa(_) => {
                matches!(alg, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
            }
            Material::Oct(_) => matches!(alg, A::Hs256 | A::Hs384 | A::Hs512),
            Material::Ed25519(_) => alg == A::EdDsa,
        }
    }
}

impl Declared {
    fn of(alg: Option<&str>) -> Self {
        match alg {
            None => Self::Any,
            Some(name) => Algorithm::parse(name).map_or(Self::Never, Self::Only),
        }
    }
}

impl Curve {
    const fn field_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    const fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::P384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::P521 => &signature::ECDSA_P521_SHA512_FIXED,
        }
    }
}

fn verify_with(key: &DecodingKey, alg: Algorithm, message: &[u8], signature: &Vec<u8>) -> bool {
    match alg.library() {
        Some(library) => (DEFAULT_PROVIDER.verifier_factory)(&library, key)
            .is_ok_and(|verifier| verifier.verify(message, signature).is_ok()),
        None => es512(key, message, signature),
    }
}

/// `r` and `s` (RFC 7518, 3.4) in the width of the curve. Envoy reads the two halves as numbers of any length, so
/// that signatures with zeros missing or added count, and the last of an odd number of bytes does not.
fn fixed_width(signature: &[u8], width: usize) -> Option<Vec<u8>> {
    let half = signature.len() / 2;
    let mut fixed = Vec::with_capacity(2 * width);
    for number in [signature.get(..half)?, signature.get(half..2 * half)?] {
        let number = trimmed(number);
        fixed.resize(fixed.len() + width.checked_sub(number.len())?, 0);
        fixed.extend_from_slice(number);
    }
    Some(fixed)
}

fn es512(key: &DecodingKey, message: &[u8], signature: &[u8]) -> bool {
    let DecodingKeyKind::SecretOrDer(point) = key.kind() else { return false };
    UnparsedPublicKey::new(&signature::ECDSA_P521_SHA512_FIXED, point).verify(message, signature).is_ok()
}

fn ec(jwk: &Map<String, Value>, alg: Option<&str>) -> Result<Material, KeyError> {
    let crv = match jwk.get("crv") {
        None => None,
        Some(Value::String(crv)) => Some(crv.as_str()).filter(|crv| !crv.is_empty()),
        Some(_) => return Err(KeyError::NotString("crv")),
    };
    let curve = match (alg, crv) {
        (None, None) | (Some("ES256"), None | Some("P-256")) | (None, Some("P-256")) => Curve::P256,
        (Some("ES384"), None | Some("P-384")) | (None, Some("P-384")) => Curve::P384,
        (Some("ES512"), None | Some("P-521")) | (None, Some("P-521")) => Curve::P521,
        (Some(_), _) => return Err(KeyError::Unsupported("alg")),
        (None, Some(_)) => return Err(KeyError::Unsupported("crv")),
    };
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = number(jwk, name)?;
        let padding = curve.field_bytes().checked_sub(coordinate.len()).ok_or(KeyError::Malformed(name))?;
        point.resize(point.len() + padding, 0);
        point.extend_from_slice(&coordinate);
    }
    signature::ParsedPublicKey::new(curve.verification(), &point).map_err(|_| KeyError::Malformed("x"))?;
    Ok(Material::Ec(curve, DecodingKey::from_ec_der(&point)))
}

fn rsa(jwk: &Map<String, Value>, alg: Option<&str>) -> Result<Material, KeyError> {
    if alg.is_some_and(|alg| !alg.starts_with("RS") && !alg.starts_with("PS")) {
        return Err(KeyError::Unsupported("alg"));
    }
    rsa_key(&number(jwk, "n")?, &number(jwk, "e")?)
}

fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Result<Material, KeyError> {
    let modulus = trimmed(modulus);
    if !matches!(trimmed(exponent), [3] | [1, 0, 1]) {
        return Err(KeyError::Malformed("e"));
    }
    let top = modulus.first().map_or(0, |byte| 8 - byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&(modulus.len().saturating_sub(1) * 8 + top)) {
        return Err(KeyError::RsaSize);
    }
    if modulus.last().is_none_or(|byte| byte % 2 == 0) {
        return Err(KeyError::Malformed("n"));
    }
    Ok(Material::Rsa(DecodingKey::from_rsa_raw_components(modulus, trimmed(exponent))))
}

fn oct(jwk: &Map<String, Value>, alg: Option<&str>) -> Result<Material, KeyError> {
    if alg.is_some_and(|alg| !matches!(alg, "HS256" | "HS384" | "HS512")) {
        return Err(KeyError::Unsupported("alg"));
    }
    let secret = bytes(jwk, "k")?;
    if secret.is_empty() { Err(KeyError::Malformed("k")) } else { Ok(Material::Oct(DecodingKey::from_secret(&secret))) }
}

fn okp(jwk: &Map<String, Value>, alg: Option<&str>) -> Result<Material, KeyError> {
    if alg.is_some_and(|alg| alg != "EdDSA") {
        return Err(KeyError::Unsupported("alg"));
    }
    if required(jwk, "crv")? != "Ed25519" {
        return Err(KeyError::Unsupported("crv"));
    }
    let point = bytes(jwk, "x")?;
    if point.len() == 32 {
        Ok(Material::Ed25519(DecodingKey::from_ed_der(&point)))
    } else {
        Err(KeyError::Malformed("x"))
    }
}

/// A member that counts only where it is a non-empty string.
fn optional<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn required<'a>(jwk: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, KeyError> {
    jwk.get(name).ok_or(KeyError::Missing(name))?.as_str().ok_or(KeyError::NotString(name))
}

fn bytes(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, KeyError> {
    base64url::decode(required(jwk, name)?.as_bytes()).ok_or(KeyError::Malformed(name))
}

fn number(jwk: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, KeyError> {
    bytes(jwk, name).map(|bytes| trimmed(&bytes).to_vec())
}

/// Without the leading zeros that some issuers write.
fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}
