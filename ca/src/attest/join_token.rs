//! Join tokens: the first certificate of an agent that has nothing yet.
//!
//! A token is `pjt1.<secret>.<root>`: 256 random bits in base64url without padding, and the SHA-256 of
//! the root certificate in lower-case hex, by which the agent recognises the server at first contact.
//! Only the hash of the secret is stored, and it is the key of the row: a guess is compared by a
//! look-up of its hash, whose time says nothing about the secret.
//!
//! A token works once. The issuance and the mark that it is used are one transaction, so a request
//! that fails leaves the token usable. An agent whose answer was lost asks again with the same key,
//! and the same key may redeem the token again until it expires; any other key may not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_identity::{SpiffeId, UnixTime};
use std::fmt;
use std::time::Duration;
use zeroize::Zeroizing;

use super::{Attestation, Attested, Attestor, Evidence, Redeem, Refusal};
use crate::signer::{SignerError, hex, random, sha256};
use crate::store::{Store, StoreError, TokenRow};

/// Lifetime of a token for which none is named.
pub const DEFAULT_TTL: Duration = Duration::from_secs(600);
/// A token is a password in transit: it should not lie about for longer.
pub const MAX_TTL: Duration = Duration::from_secs(7 * 86_400);

const PREFIX: &str = "pjt1";
const NAME: &str = "join-token";
/// What a token proves to registration entries, before the ID: its bearer is who the operator made it for.
const SELECTOR: &str = "join_token:spiffe-id:";
const SECRET_BYTES: usize = 32;

/// A new token. Its text is shown once and kept nowhere.
#[derive(Clone)]
pub struct JoinToken {
    /// The whole token, `pjt1...`. A secret.
    pub token: Zeroizing<String>,
    /// The end of its life.
    pub expires: UnixTime,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Why a token is not made.
#[derive(Debug, thiserror::Error)]
pub enum JoinTokenError {
    /// An ID of another trust domain.
    #[error("`{id}` is not of trust domain `{domain}`: write spiffe://{domain}/ns/NAMESPACE/sa/ACCOUNT")]
    Foreign {
        /// The ID asked for.
        id: SpiffeId,
        /// The trust domain served.
        domain: String,
    },
    /// The ID of the trust domain itself, or the server's own.
    #[error("`{0}` is reserved: name a workload, such as spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT")]
    Reserved(SpiffeId),
    /// Longer than [`MAX_TTL`].
    #[error("a join token lives at most 7 days, not {} s: ask for less", .0.as_secs())]
    TooLong(Duration),
    /// No randomness.
    #[error("cannot make a secret")]
    Random(#[from] SignerError),
    /// It could not be stored.
    #[error("the token cannot be stored")]
    Store(#[from] StoreError),
}

/// A new token for `id` and the row to store: the secret itself is only in the token.
pub(crate) fn make(
    id: &SpiffeId,
    root: &[u8; 32],
    now: u64,
    ttl: Duration,
) -> Result<(JoinToken, TokenRow), SignerError> {
    let secret = Zeroizing::new(random::<SECRET_BYTES>()?);
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(secret.as_slice()));
    let expires = now.saturating_add(ttl.as_secs());
    let row = TokenRow {
        secret_sha256: hex(&sha256(secret.as_slice())),
        spiffe_id: id.as_str().to_owned(),
        created_at: i64::try_from(now).unwrap_or(i64::MAX),
        expires_at: i64::try_from(expires).unwrap_or(i64::MAX),
        used_key_sha256: None,
    };
    let token = Zeroizing::new(format!("{PREFIX}.{}.{}", *text, hex(root)));
    let expires = UnixTime::since_unix_epoch(Duration::from_secs(expires));
    Ok((JoinToken { token, expires }, row))
}

/// Attests by a join token in the `authorization` header.
#[derive(Debug)]
pub struct JoinTokens {
    store: Store,
}

impl JoinTokens {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    async fn judge(&self, evidence: Evidence<'_>) -> Result<Option<Attested>, Refusal> {
        let Some(bearer) = evidence.bearer.filter(|bearer| bearer.starts_with("pjt1.")) else { return Ok(None) };
        let refuse = |code| Refusal::Evidence { attestor: NAME, code };
        let secret_sha256 = secret_hash(bearer).ok_or_else(|| refuse("token-malformed"))?;
        let row = self.store.token(&secret_sha256).await?.ok_or_else(|| refuse("token-unknown"))?;
        if u64::try_from(row.expires_at).unwrap_or(0) <= evidence.now {
            return Err(refuse("token-expired"));
        }
        let id = SpiffeId::parse(&row.spiffe_id).map_err(|_| refuse("token-row-damaged"))?;
        let redeem = Redeem { secret_sha256, redeemed_by: row.used_key_sha256 };
        let selectors = vec![format!("{SELECTOR}{id}")];
        Ok(Some(Attested { redeem: Some(redeem), selectors, ..Attested::new(id, NAME) }))
    }
}

impl Attestor for JoinTokens {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attest<'a>(&'a self, evidence: Evidence<'a>) -> Attestation<'a> {
        Box::pin(self.judge(evidence))
    }
}

/// The hash of the secret in a well-formed token.
fn secret_hash(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (prefix, secret, root) = (parts.next()?, parts.next()?, parts.next()?);
    let root_is_hash = root.len() == 64 && root.bytes().all(|byte| byte.is_ascii_hexdigit());
    if prefix != PREFIX || !root_is_hash || parts.next().is_some() {
        return None;
    }
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.decode(secret).ok()?);
    (secret.len() == SECRET_BYTES).then(|| hex(&sha256(&secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_its_row_and_hides_in_debug() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        let (token, row) = make(&id, &[0xab; 32], 1_000, DEFAULT_TTL).unwrap();
        assert_eq!(secret_hash(&token.token).unwrap(), row.secret_sha256);
        assert!(token.token.starts_with("pjt1.") && token.token.ends_with(&"ab".repeat(32)));
        assert_eq!((row.expires_at, token.expires.as_secs()), (1_600, 1_600));
        let shown = format!("{token:?} {row:?}");
        assert!(!shown.contains(token.token.split('.').nth(1).unwrap()), "{shown}");
    }

    #[test]
    fn malformed_tokens_have_no_hash() {
        let id = SpiffeId::parse("spiffe://cluster.local/a").unwrap();
        let good = make(&id, &[1; 32], 0, DEFAULT_TTL).unwrap().0.token;
        for bad in ["", "pjt1", "pjt1..", "pjt1.AAAA.00", &good.replace("pjt1", "pjt2"), &format!("{}.x", *good)] {
            assert!(secret_hash(bad).is_none(), "{bad}");
        }
        assert!(secret_hash(&good.replacen('.', ".AAAA", 1)).is_none(), "a longer secret");
    }
}
