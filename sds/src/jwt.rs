//! Validation of JWT-SVIDs (JWT-SVID standard, RFC 7515, 7517, 7518, 7519).
//!
//! Everything that the standard does not allow is refused before a key is touched: other algorithms, other headers, other
//! serialisations. The key comes from the JWK Set of the subject's own trust domain and from no other.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_identity::{IdError, SpiffeId, UnixTime};
use palisade_policies::json::Strict;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Any};
use serde_json::{Map, Value};

/// Longer tokens are refused before they are read.
const MAX_TOKEN: usize = 16 * 1024;
/// Clocks of two machines may differ by so many seconds.
const LEEWAY: u64 = 10;
/// `use` of the keys that sign tokens, in a bundle of SPIFFE's format. The Workload API's key sets may leave it out.
const USE: &str = "jwt-svid";

/// A token that is valid.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) id: SpiffeId,
    pub(crate) claims: Map<String, Value>,
}

/// Why a token is not valid. Never holds any of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    #[error("the token is not in JWS compact serialisation")]
    Shape,
    #[error("the token's {0} is not a JSON object with each name once")]
    Json(&'static str),
    #[error("the token has a header other than alg, kid and typ")]
    Header,
    #[error("the token's algorithm is not one that JWT-SVID allows")]
    Algorithm,
    #[error("the token names no key")]
    NoKeyId,
    #[error("the token's typ is neither JWT nor JOSE")]
    Type,
    #[error("the token has no `{0}` claim of the right kind")]
    Claim(&'static str),
    #[error("the token's subject is not a SPIFFE ID")]
    Subject(#[source] IdError),
    #[error("the token is meant for somebody else")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("trust domain `{0}` is not trusted here")]
    UnknownTrustDomain(String),
    #[error("the subject's trust domain has no such key for this algorithm")]
    UnknownKey,
    #[error("the token's signature does not verify")]
    Signature,
}

/// Validates a token for `audience` by the JWK Sets of the trust domains named.
pub(crate) fn validate(
    token: &str,
    audience: &str,
    jwks: &BTreeMap<String, String>,
    now: UnixTime,
) -> Result<Token, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Shape)?;
    let (header, payload) = message.split_once('.').ok_or(TokenError::Shape)?;
    if payload.contains('.') {
        return Err(TokenError::Shape);
    }
    let (algorithm, kid) = check_header(&object(header, "header")?)?;
    let claims = object(payload, "payload")?;
    let subject = claims.get("sub").and_then(Value::as_str).ok_or(TokenError::Claim("sub"))?;
    let id = SpiffeId::parse(subject).map_err(TokenError::Subject)?;
    check_claims(&claims, audience, now.as_secs())?;
    let name = id.trust_domain_name();
    let keys = jwks.get(name).ok_or_else(|| TokenError::UnknownTrustDomain(name.to_owned()))?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Shape)?;
    let key = find_key(keys, &kid, algorithm).ok_or(TokenError::UnknownKey)?;
    verify(&key, algorithm, message.as_bytes(), &signature)?;
    Ok(Token { id, claims })
}

/// Whom an unverified token names; for tokens of a server that is trusted to make them.
pub(crate) fn subject(token: &str) -> Option<SpiffeId> {
    let claims = object(token.split('.').nth(1)?, "payload").ok()?;
    SpiffeId::parse(claims.get("sub")?.as_str()?).ok()
}

/// What a caller asked for, sorted and without repetition; `None` if that is nothing, or nobody.
pub(crate) fn audience(mut asked: Vec<String>) -> Option<Vec<String>> {
    asked.sort();
    asked.dedup();
    (!asked.is_empty() && asked.iter().all(|one| !one.is_empty())).then_some(asked)
}

fn object(part: &str, what: &'static str) -> Result<Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Shape)?;
    match serde_json::from_slice(&bytes) {
        Ok(Strict(Value::Object(map))) => Ok(map),
        _ => Err(TokenError::Json(what)),
    }
}

fn check_header(header: &Map<String, Value>) -> Result<(Algorithm, String), TokenError> {
    if header.keys().any(|name| !matches!(name.as_str(), "alg" | "kid" | "typ")) {
        return Err(TokenError::Header);
    }
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let algorithm = text("alg").and_then(Algorithm::named).ok_or(TokenError::Algorithm)?;
    if header.contains_key("typ") && !matches!(text("typ"), Some("JWT" | "JOSE")) {
        return Err(TokenError::Type);
    }
    let kid = text("kid").filter(|kid| !kid.is_empty()).ok_or(TokenError::NoKeyId)?;
    Ok((algorithm, kid.to_owned()))
}

fn check_claims(claims: &Map<String, Value>, audience: &str, now: u64) -> Result<(), TokenError> {
    let meant = claims.get("aud").and_then(Value::as_array).ok_or(TokenError::Claim("aud"))?;
    if !meant.iter().any(|one| one.as_str() == Some(audience)) {
        return Err(TokenError::Audience);
    }
    let end = claims.get("exp").and_then(seconds).ok_or(TokenError::Claim("exp"))?;
    if now >= end.saturating_add(LEEWAY) {
        return Err(TokenError::Expired);
    }
    match claims.get("nbf").map(seconds) {
        Some(None) => Err(TokenError::Claim("nbf")),
        Some(Some(from)) if from > now.saturating_add(LEEWAY) => Err(TokenError::NotYetValid),
        _ => Ok(()),
    }
}

/// A NumericDate, rounded down; never negative.
fn seconds(value: &Value) -> Option<u64> {
    let whole = || std::time::Duration::try_from_secs_f64(value.as_f64()?).ok().map(|time| time.as_secs());
    value.as_u64().or_else(whole)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rsa(&'static signature::RsaParameters),
    Ec { curve: &'static str, verifier: &'static signature::EcdsaVerificationAlgorithm },
}

impl Algorithm {
    /// Those of the standard, and no others.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Self::Ec { curve: "P-256", verifier: &signature::ECDSA_P256_SHA256_FIXED },
            "ES384" => Self::Ec { curve: "P-384", verifier: &signature::ECDSA_P384_SHA384_FIXED },
            "ES512" => Self::Ec { curve: "P-521", verifier: &signature::ECDSA_P521_SHA512_FIXED },
            _ => return None,
        })
    }

    fn fits(self, key: &Map<String, Value>) -> bool {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        match self {
            Self::Rsa(_) => text("kty") == Some("RSA"),
            Self::Ec { curve, .. } => text("kty") == Some("EC") && text("crv") == Some(curve),
        }
    }
}

/// The key of that name; entries of other kinds and for other uses are passed over, whatever else they hold.
fn find_key(jwks: &str, kid: &str, algorithm: Algorithm) -> Option<Map<String, Value>> {
    let Ok(Strict(Value::Object(mut set))) = serde_json::from_str(jwks) else { return None };
    let Some(Value::Array(keys)) = set.remove("keys") else { return None };
    keys.into_iter().find_map(|key| match key {
        Value::Object(key)
            if key.get("kid").and_then(Value::as_str) == Some(kid)
                && key.get("use").is_none_or(|usage| usage == USE)
                && algorithm.fits(&key) =>
        {
            Some(key)
        }
        _ => None,
    })
}

fn verify(key: &Map<String, Value>, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), TokenError> {
    let number = |name: &str| {
        let text = key.get(name).and_then(Value::as_str).ok_or(TokenError::UnknownKey)?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::UnknownKey)
    };
    let verified = match algorithm {
        Algorithm::Rsa(parameters) => {
            let key = RsaPublicKeyComponents { n: number("n")?, e: number("e")? };
            key.verify(parameters, message, signature)
        }
        Algorithm::Ec { verifier, .. } => {
            let point = [vec![4], number("x")?, number("y")?].concat();
            UnparsedPublicKey::new(verifier, point).verify(message, signature)
        }
    };
    verified.map_err(|_| TokenError::Signature)
}

/// Claims as the Workload API carries them.
pub(crate) fn to_struct(claims: Map<String, Value>) -> Struct {
    Struct { fields: claims.into_iter().map(|(name, value)| (name, to_any(value))).collect() }
}

fn to_any(value: Value) -> Any {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(to_any).collect() }),
        Value::Object(map) => Kind::StructValue(to_struct(map)),
    };
    Any { kind: Some(kind) }
}

#[cfg(test)]
mod tests;
