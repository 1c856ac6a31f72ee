//! The issuer's public keys (RFC 7517), and the four algorithms with which clusters sign.

use aws_lc_rs::signature::{self, EcdsaVerificationAlgorithm, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_policies::json::Strict;
use serde_json::{Map, Value};

/// More keys than a cluster has while it changes its own.
const MAX_KEYS: usize = 256;

/// Why a key set is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("it is no JSON object with a list `keys` and each name once")]
    Shape,
    #[error("it has {0} keys, at most {MAX_KEYS} are read")]
    TooMany(usize),
}

/// The algorithms of tokens; the name alone never chooses one that the key does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    Es384,
    Es512,
}

impl Algorithm {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            _ => return None,
        })
    }
}

/// Prepared when the set is read, so that what is no key is left out there.
#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: ParsedPublicKey,
}

/// Keys that can verify tokens.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a JWK set. Keys of other kinds or for other uses are left out, as RFC 7517, section 5 wants; if that leaves none,
    /// the issuer vouches for no token any more.
    pub(super) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let Strict(value) = serde_json::from_slice(text).map_err(|_| KeySetError::Shape)?;
        let keys = value.get("keys").and_then(Value::as_array).ok_or(KeySetError::Shape)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(keys.len()));
        }
        Ok(Self(keys.iter().filter_map(Value::as_object).filter_map(key).collect()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one of the keys named `kid` made this signature; `None` if there is no such key.
    pub(super) fn verify(&self, kid: &str, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Option<bool> {
        let mut named = self.0.iter().filter(|key| key.kid.as_deref().is_none_or(|own| own == kid)).peekable();
        named.peek()?;
        Some(named.any(|key| key.verify(algorithm, message, signature)))
    }
}

impl Key {
    fn verify(&self, wanted: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        wanted == self.algorithm && self.key.verify_sig(message, signature).is_ok()
    }
}

fn key(jwk: &Map<String, Value>) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let (algorithm, name, key) = match (text("kty")?, text("crv")) {
        ("RSA", _) => (Algorithm::Rs256, "RS256", rsa(jwk)?),
        ("EC", Some("P-256")) => {
            (Algorithm::Es256, "ES256", ec(&signature::ECDSA_P256_SHA256_FIXED, &point(jwk, 32)?)?)
        }
        ("EC", Some("P-384")) => {
            (Algorithm::Es384, "ES384", ec(&signature::ECDSA_P384_SHA384_FIXED, &point(jwk, 48)?)?)
        }
        ("EC", Some("P-521")) => {
            (Algorithm::Es512, "ES512", ec(&signature::ECDSA_P521_SHA512_FIXED, &point(jwk, 66)?)?)
        }
        _ => return None,
    };
    let fits = text("alg").is_none_or(|own| own == name);
    fits.then(|| Key { kid: text("kid").filter(|kid| !kid.is_empty()).map(str::to_owned), algorithm, key })
}

fn rsa(jwk: &Map<String, Value>) -> Option<ParsedPublicKey> {
    let (n, e) = (number(jwk, "n")?, number(jwk, "e")?);
    let key = (2_048..=8_192).contains(&(n.len() * 8)).then_some(RsaPublicKeyComponents { n, e })?;
    key.to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256).ok()
}

fn ec(verification: &'static EcdsaVerificationAlgorithm, point: &[u8]) -> Option<ParsedPublicKey> {
    ParsedPublicKey::new(verification, point).ok()
}

/// Base64url of a big-endian number, without leading zeros.
fn number(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(jwk.get(name)?.as_str()?).ok()?;
    let start = bytes.iter().position(|byte| *byte != 0)?;
    bytes.get(start..).map(<[u8]>::to_vec)
}

fn point(jwk: &Map<String, Value>, width: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = number(jwk, name)?;
        point.resize(point.len() + width.checked_sub(coordinate.len())?, 0);
        point.extend(coordinate);
    }
    Some(point)
}
