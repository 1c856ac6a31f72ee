//! One certificate: decided, signed, recorded, and only then answered.

use std::sync::Arc;

use palisade_identity::SpiffeId;
use rcgen::PublicKeyData as _;

use super::{Authority, Realm, signed};
use crate::attest::Attested;
use crate::csr::Csr;
use crate::jwt::{self, JwtError, JwtSvid};
use crate::leaf::{self, Leaf, LeafError, LeafSpec, Lifetimes};
use crate::signer::hex;
use crate::store::{Evidence, IssuanceRow, StoreError};

/// In rows and metrics of tokens.
pub(super) const TOKEN_ATTESTOR: &str = "agent-token";
/// In the row of the server's own certificate.
pub(super) const SELF_ATTESTOR: &str = "self";

/// Why a certificate is not issued after attestation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    #[error("`{0}` is the server's own: clients recognise it by that")]
    Reserved(String),
    #[error("no leaf can be signed")]
    Leaf(#[from] LeafError),
    #[error("the issuance cannot be recorded")]
    Store(#[from] StoreError),
}

/// Why a token is not issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("`{0}` is the server's own: clients recognise it by that")]
    Reserved(String),
    #[error("no token can be signed")]
    Jwt(#[from] JwtError),
    #[error("the issuance cannot be recorded")]
    Store(#[from] StoreError),
}

/// What one request asks for, once it is known who asks.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) attested: &'a Attested,
    pub(crate) csr: &'a Csr,
    /// Seconds; 0 or less means the default.
    pub(crate) ttl: i64,
    pub(crate) caller: String,
    /// Serial number of the certificate that the caller showed, whatever its evidence was.
    pub(crate) presented: Option<String>,
    /// DNS names that the registration entry grants.
    pub(crate) dns_names: &'a [String],
    /// The registration entry, empty without one.
    pub(crate) entry: String,
}

/// A token that is asked for, once it is known by whom.
#[derive(Debug)]
pub(crate) struct TokenOrder<'a> {
    pub(crate) id: &'a SpiffeId,
    pub(crate) audience: &'a [String],
    /// Seconds; 0 or less means the default.
    pub(crate) ttl: i64,
    pub(crate) caller: &'a str,
    /// Serial number of the certificate that the caller showed.
    pub(crate) presented: &'a str,
    /// The registration entry, empty without one.
    pub(crate) entry: &'a str,
}

/// A leaf that is recorded, and the state it hangs on.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) leaf: Leaf,
    pub(crate) realm: Arc<Realm>,
}

impl Authority {
    /// What of an identity is the server's own, and therefore nobody else's: its ID, or one of its DNS names.
    #[must_use]
    pub fn reserved(&self, id: &SpiffeId, dns_names: &[String]) -> Option<String> {
        super::server::reserved(self.config(), id, dns_names)
    }

    /// Signs and records. The answer may go out once this returns: the row is durable.
    pub(crate) async fn issue(&self, order: Order<'_>) -> Result<Issued, IssueError> {
        let (now, realm) = (self.now(), self.realm());
        if order.presented.as_deref().is_some_and(|serial| realm.denies(serial)) {
            return Err(StoreError::CallerRevoked.into());
        }
        if let Some(name) = self.reserved(&order.attested.id, order.dns_names) {
            return Err(IssueError::Reserved(name));
        }
        let config = self.config();
        let lifetimes = Lifetimes { default: config.leaf_ttl.as_secs(), maximum: config.max_ttl.as_secs() };
        let dates = (realm.signer.not_before, realm.signer.not_after);
        let lifetime = lifetimes.dates(order.ttl, now, dates).ok_or(LeafError::SignerDates)?;
        let id = &order.attested.id;
        let spec = LeafSpec { id, dns_names: order.dns_names, addresses: &[], lifetime };
        let leaf = leaf::issue(&spec, &order.csr.key().subject_public_key_info(), &realm.signer)?;
        let facts = RowFacts {
            caller: order.caller,
            attestor: order.attested.attestor,
            requested_ttl: order.ttl,
            key_sha256: hex(&order.csr.key_sha256()),
            entry: order.entry,
        };
        let row = row(id.as_str(), &leaf, (now, &realm.authority), facts);
        let redeem = order.attested.redeem.as_ref().map(|redeem| redeem.secret_sha256.clone());
        self.store.record(row, Evidence { redeem, presented: order.presented }).await?;
        self.metrics.issued(order.attested.attestor, lifetime.shortened);
        Ok(Issued { leaf, realm })
    }
}

impl Authority {
    /// Signs a token and records it: its `jti` is the row's serial, the key's `kid` its authority.
    pub(crate) async fn issue_token(&self, order: TokenOrder<'_>) -> Result<JwtSvid, TokenError> {
        let (now, realm) = (self.now(), self.realm());
        if realm.denies(order.presented) {
            return Err(StoreError::CallerRevoked.into());
        }
        if let Some(name) = self.reserved(order.id, &[]) {
            return Err(TokenError::Reserved(name));
        }
        let made = jwt::issue(&realm.ring, &self.config().jwt, order.id, order.audience, order.ttl, now)?;
        let row = IssuanceRow {
            serial: made.id.clone(),
            spiffe_id: order.id.as_str().to_owned(),
            caller: order.caller.to_owned(),
            attestor: TOKEN_ATTESTOR.to_owned(),
            not_before: signed(made.issued_at),
            not_after: signed(made.expires_at),
            requested_ttl: order.ttl,
            shortened: made.shortened,
            key_sha256: String::new(),
            issued_at: signed(now),
            authority: realm.ring.signing().kid().to_owned(),
            entry: order.entry.to_owned(),
        };
        let evidence = Evidence { redeem: None, presented: Some(order.presented.to_owned()) };
        self.store.record(row, evidence).await?;
        self.metrics.issued(TOKEN_ATTESTOR, made.shortened);
        Ok(made)
    }
}

/// What a row says beyond the leaf itself.
pub(super) struct RowFacts {
    pub(super) caller: String,
    pub(super) attestor: &'static str,
    pub(super) requested_ttl: i64,
    pub(super) key_sha256: String,
    pub(super) entry: String,
}

pub(super) fn row(id: &str, leaf: &Leaf, (now, authority): (u64, &str), facts: RowFacts) -> IssuanceRow {
    IssuanceRow {
        serial: leaf.serial.clone(),
        spiffe_id: id.to_owned(),
        caller: facts.caller,
        attestor: facts.attestor.to_owned(),
        not_before: signed(leaf.lifetime.not_before),
        not_after: signed(leaf.lifetime.not_after),
        requested_ttl: facts.requested_ttl,
        shortened: leaf.lifetime.shortened,
        key_sha256: facts.key_sha256,
        issued_at: signed(now),
        authority: authority.to_owned(),
        entry: facts.entry,
    }
}
