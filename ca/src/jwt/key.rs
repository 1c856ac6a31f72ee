//! One key: P-256, known by the hash of its public half.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::signer::{hex, sha256};

/// Why a key cannot be made, read or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtKeyError {
    /// The system's random numbers failed.
    #[error("no key can be made")]
    Generate,
    /// What was read is no P-256 key in PKCS#8.
    #[error("not a P-256 key in PKCS#8")]
    Read,
    /// The library refused to sign.
    #[error("signing failed")]
    Sign,
    /// The claims cannot be written as JSON.
    #[error("the claims cannot be written")]
    Claims,
}

/// A key that signs tokens with ES256. It has no `Debug` that shows it.
pub(crate) struct JwtKey {
    pair: EcdsaKeyPair,
    kid: String,
}

impl JwtKey {
    /// A new one.
    pub(crate) fn generate() -> Result<Self, JwtKeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| JwtKeyError::Generate)?;
        Self::named(pair).ok_or(JwtKeyError::Generate)
    }

    /// From PKCS#8 DER.
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, JwtKeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| JwtKeyError::Read)?;
        Self::named(pair).ok_or(JwtKeyError::Read)
    }

    fn named(pair: EcdsaKeyPair) -> Option<Self> {
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
        let kid = hex(&sha256(public.as_ref())).get(..32)?.to_owned();
        Some(Self { pair, kid })
    }

    /// PKCS#8 DER, for the file it is kept in.
    pub(crate) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, JwtKeyError> {
        let document = self.pair.to_pkcs8v1().map_err(|_| JwtKeyError::Generate)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// The `kid`: 32 hex digits of the SHA-256 over the SubjectPublicKeyInfo.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JWK (RFC 7517) with this `use`.
    pub(crate) fn jwk(&self, usage: &str) -> Value {
        // An uncompressed point: 4, x, y (SEC 1, 2.3.3).
        let point = self.pair.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = point.split_at_checked(point.len() / 2).unwrap_or_default();
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.kid, "use": usage, "x": x, "y": y})
    }

    /// The compact serialisation of a signed token with these claims (RFC 7515, 3.1).
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<Zeroizing<String>, JwtKeyError> {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"{}","typ":"JWT"}}"#, self.kid));
        let claims = serde_json::to_vec(claims).map_err(|_| JwtKeyError::Claims)?;
        let mut token = Zeroizing::new(format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims)));
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes()).map_err(|_| JwtKeyError::Sign)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

impl std::fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}
