//! Tokens verified by the issuer's public keys alone.
//!
//! Nobody is asked whether the pod still lives: a token counts until it ends, which for projected tokens is an hour at most by
//! default.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_policies::json::Strict;
use serde_json::{Map, Value};

use super::claims::{Expected, judge};
use super::jwk::{Algorithm, KeySet};
use super::keys::{KeySource, Keys};
use super::{Holder, Review, ReviewError, TokenReviewer};

/// What a token must be.
#[derive(Clone, Debug)]
pub struct OfflineConfig {
    /// `iss`, compared as it stands.
    pub issuer: String,
    /// A token must be for one of these; none means that no token is accepted.
    pub audiences: Vec<String>,
    /// Where the issuer's keys are.
    pub keys: KeySource,
}

/// Verifies service account tokens without asking anybody.
#[derive(Debug)]
pub struct OfflineTokens {
    issuer: String,
    audiences: Vec<String>,
    keys: Arc<Keys>,
}

impl OfflineTokens {
    /// Reads the keys and follows them until this is dropped. Must be called within a tokio runtime; keys that cannot be had
    /// are logged and tried again, and tokens are refused with UNAVAILABLE until then.
    pub async fn start(config: OfflineConfig) -> Self {
        let keys = Keys::start(config.keys).await;
        Self { issuer: config.issuer, audiences: config.audiences, keys }
    }

    async fn judge(&self, token: &str, now: u64) -> Result<Holder, ReviewError> {
        let parts = Parts::split(token).map_err(ReviewError::Refused)?;
        match self.verify(&parts)? {
            Some(true) => {}
            Some(false) => return Err(ReviewError::Refused("token-signature")),
            // The issuer may have begun to sign with a new key.
            None if self.keys.refresh().await => match self.verify(&parts)? {
                Some(true) => {}
                Some(false) => return Err(ReviewError::Refused("token-signature")),
                None => return Err(ReviewError::Refused("token-key-unknown")),
            },
            None => return Err(ReviewError::Refused("token-key-unknown")),
        }
        let expected = Expected { issuer: &self.issuer, audiences: &self.audiences, now };
        judge(&parts.claims, &expected).map_err(ReviewError::Refused)
    }

    fn verify(&self, parts: &Parts<'_>) -> Result<Option<bool>, ReviewError> {
        let keys: Arc<KeySet> = self.keys.current().ok_or(ReviewError::Unavailable("keys-unavailable"))?;
        Ok(keys.verify(&parts.kid, parts.algorithm, parts.signed.as_bytes(), &parts.signature))
    }
}

impl TokenReviewer for OfflineTokens {
    fn review<'a>(&'a self, token: &'a str, now: u64) -> Review<'a> {
        Box::pin(self.judge(token, now))
    }
}

/// A compact JWS (RFC 7515), taken apart.
struct Parts<'a> {
    algorithm: Algorithm,
    kid: String,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, &'static str> {
        let malformed = "token-malformed";
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        let header = object(header).ok_or(malformed)?;
        // An extension that must be understood is not.
        if header.contains_key("crit") {
            return Err(malformed);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::parse);
        let kid = header.get("kid").and_then(Value::as_str).filter(|kid| !kid.is_empty());
        Ok(Self {
            algorithm: algorithm.ok_or("token-algorithm")?,
            kid: kid.ok_or("token-without-key")?.to_owned(),
            claims: object(claims).ok_or(malformed)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed)?,
        })
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    match serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()? {
        Strict(Value::Object(map)) => Some(map),
        Strict(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Traps 44 and 45: two readers of a name that stands twice may read two things.
    #[test]
    fn trap_44_45_a_name_that_stands_twice_says_nothing() {
        let split = |header: &str, claims: &str| {
            let [header, claims] = [header, claims].map(|text| URL_SAFE_NO_PAD.encode(text));
            Parts::split(&format!("{header}.{claims}.AA")).map(|_| ())
        };
        let (header, claims) = (r#"{"alg":"ES256","kid":"k"}"#, r#"{"sub":"a","kubernetes.io":{"node":{"name":"n"}}}"#);
        assert_eq!(split(header, claims), Ok(()));
        for twice in [r#"{"alg":"none","alg":"ES256","kid":"k"}"#, r#"{"alg":"ES256","kid":"a","\u006bid":"k"}"#] {
            assert_eq!(split(twice, claims), Err("token-malformed"), "{twice}");
        }
        for twice in [r#"{"sub":"a","sub":"b"}"#, r#"{"kubernetes.io":{"node":{"name":"n","name":"m"}}}"#, "[]"] {
            assert_eq!(split(header, twice), Err("token-malformed"), "{twice}");
        }
        // RFC 7517, appendix A.1.
        let key = r#"{"kty":"EC","crv":"P-256","kid":"k","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;
        assert!(KeySet::parse(format!(r#"{{"keys":[{{"kty":"novel"}},{key}]}}"#).as_bytes()).is_ok());
        let off_the_curve = r#"{"kty":"EC","crv":"P-256","kid":"k","x":"AQ","y":"AQ"}"#;
        let sets =
            [format!(r#"{{"keys":[{key}],"keys":[{key}]}}"#), format!(r#"{{"keys":[{}]}}"#, key.replace("kid", "x"))];
        assert!(sets.iter().all(|set| KeySet::parse(set.as_bytes()).is_err()));
        let keys = |keys: &str| KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes()).unwrap().len();
        assert_eq!((keys(key), keys(off_the_curve), keys("")), (1, 0, 0));
    }
}
