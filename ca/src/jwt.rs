//! JWT-SVIDs: keys that turn by the clock, and the tokens they sign (SPIFFE JWT-SVID, RFC 7515).
//!
//! Verifiers keep a JWK set for a while, so a key has three ages: it is *published* for five refresh hints before its first
//! signature, it *signs* until the next one takes over, and it stays in the set until the last token it may have signed has
//! expired. There is always one key that signs.

use std::collections::BTreeSet;
use std::time::Duration;

use palisade_identity::SpiffeId;
use serde::Serialize;

mod key;
mod ring;

pub use key::JwtKeyError;
pub(crate) use ring::Ring;
pub use ring::RingError;

use crate::signer::{hex, prefix, random};

/// Most audiences in one token.
const MAX_AUDIENCES: usize = 32;
/// Longest audience, bytes.
const MAX_AUDIENCE: usize = 1_024;

/// What an operator decides about tokens.
#[derive(Clone, Debug)]
pub struct JwtConfig {
    /// Lifetime of a token where the entry names none; five minutes by default.
    pub ttl: Duration,
    /// An entry that names more gets this much; one hour by default.
    pub max_ttl: Duration,
    /// How long a key signs; one day by default.
    pub rotate_every: Duration,
    /// How often verifiers are asked to fetch keys; five minutes by default. A new key is shown for five of these before it signs.
    pub refresh_hint: Duration,
    /// The `iss` of every token and of the discovery document: an `https` URL without query, fragment or closing slash. Without
    /// it tokens carry none, as the standard allows.
    pub issuer: Option<String>,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            max_ttl: Duration::from_secs(3_600),
            rotate_every: Duration::from_secs(24 * 3_600),
            refresh_hint: Duration::from_secs(300),
            issuer: None,
        }
    }
}

/// Why settings of tokens are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtConfigError {
    /// A span below one second.
    #[error("{0} must be at least one second")]
    TooShort(&'static str),
    /// The default exceeds the maximum.
    #[error("the default token lifetime {ttl:?} exceeds the maximum {max_ttl:?}")]
    DefaultOverMaximum {
        /// The default asked for.
        ttl: Duration,
        /// The maximum asked for.
        max_ttl: Duration,
    },
    /// A key would be replaced before verifiers could know the next one.
    #[error(
        "keys rotate every {rotate_every:?}, but verifiers need {lead:?} (five refresh hints) to learn of the next one"
    )]
    RotatesTooFast {
        /// How long a key signs.
        rotate_every: Duration,
        /// How long a key is shown before it signs.
        lead: Duration,
    },
    /// The issuer is none that OIDC knows.
    #[error("issuer `{0}` is not an https URL without query, fragment and closing slash")]
    Issuer(String),
}

impl JwtConfig {
    /// How long a key is shown before it signs.
    pub(crate) fn lead(&self) -> Duration {
        self.refresh_hint.saturating_mul(5)
    }

    /// Says what cannot work, before anything is touched.
    ///
    /// # Errors
    /// [`JwtConfigError`].
    pub fn check(&self) -> Result<(), JwtConfigError> {
        let spans = [
            ("the default token lifetime", self.ttl),
            ("the maximum token lifetime", self.max_ttl),
            ("the time a key signs", self.rotate_every),
            ("the refresh hint", self.refresh_hint),
        ];
        if let Some((what, _)) = spans.into_iter().find(|(_, span)| span.as_secs() == 0) {
            return Err(JwtConfigError::TooShort(what));
        }
        if self.ttl > self.max_ttl {
            return Err(JwtConfigError::DefaultOverMaximum { ttl: self.ttl, max_ttl: self.max_ttl });
        }
        if self.rotate_every <= self.lead() {
            return Err(JwtConfigError::RotatesTooFast { rotate_every: self.rotate_every, lead: self.lead() });
        }
        match &self.issuer {
            Some(issuer) if !is_issuer(issuer) => Err(JwtConfigError::Issuer(issuer.clone())),
            _ => Ok(()),
        }
    }
}

/// OpenID Connect Discovery 1.0, section 2: https, and neither query nor fragment. A closing slash would make two spellings of one.
fn is_issuer(text: &str) -> bool {
    let parsed: Option<http::Uri> = text.parse().ok();
    let https =
        parsed.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some_and(|h| !h.is_empty()));
    https && !text.ends_with('/') && !text.contains(['?', '#', '@'])
}

/// Why a token is not issued.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// No audience, an empty one, one that is too long, or too many. The caller's fault.
    #[error("a token needs 1 to {MAX_AUDIENCES} audiences of 1 to {MAX_AUDIENCE} bytes")]
    Audience,
    /// The key or randomness failed.
    #[error("the token cannot be signed")]
    Sign(#[from] JwtKeyError),
    /// No randomness for the token's own name.
    #[error("the token cannot be named")]
    Random(#[from] crate::SignerError),
}

/// A signed token and what it says of itself.
#[derive(Clone)]
pub struct JwtSvid {
    /// The compact serialisation. A secret.
    pub token: zeroize::Zeroizing<String>,
    /// Unix seconds.
    pub issued_at: u64,
    /// Unix seconds.
    pub expires_at: u64,
    /// The token's own name (`jti`), by which the record finds it.
    pub id: String,
    /// Less than the entry asked for.
    pub shortened: bool,
}

impl std::fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtSvid").field("id", &self.id).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    // Always a list: some verifiers take nothing else.
    aud: &'a BTreeSet<&'a str>,
    exp: u64,
    iat: u64,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// Signs a token for `id` and these audiences with the key of the moment; `ttl` of 0 or less means the default.
///
/// # Errors
/// [`JwtError`].
pub(crate) fn issue(
    ring: &Ring,
    config: &JwtConfig,
    id: &SpiffeId,
    audience: &[String],
    ttl: i64,
    now: u64,
) -> Result<JwtSvid, JwtError> {
    let fits = |text: &String| (1..=MAX_AUDIENCE).contains(&text.len());
    if audience.is_empty() || audience.len() > MAX_AUDIENCES || !audience.iter().all(fits) {
        return Err(JwtError::Audience);
    }
    let wanted = u64::try_from(ttl).ok().filter(|ttl| *ttl > 0).unwrap_or(config.ttl.as_secs());
    let lifetime = wanted.min(config.max_ttl.as_secs());
    let aud: BTreeSet<&str> = audience.iter().map(String::as_str).collect();
    let (jti, exp) = (hex(&[&prefix(now)[..], &random::<16>()?].concat()), now.saturating_add(lifetime));
    let claims = Claims { sub: id.as_str(), aud: &aud, exp, iat: now, jti: &jti, iss: config.issuer.as_deref() };
    let token = ring.signing().sign(&claims)?;
    Ok(JwtSvid { token, issued_at: now, expires_at: exp, id: jti, shortened: lifetime < wanted })
}

#[cfg(test)]
mod tests;
