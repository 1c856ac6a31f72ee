//! Revocation: durable first, then for this authority's own doors, then for everybody who follows.

use std::collections::BTreeSet;

use palisade_identity::SpiffeId;

use super::hands::Hands;
use super::{Authority, OpenError, realm_of, signed};
use crate::store::{Revocation, StoreError, Target};

/// A revoked certificate is told of for this much longer than it lives: peers' clocks may lag.
const CLOCKS_DIFFER: i64 = 300;
/// Words of the operator that are kept.
const LONGEST_REASON: usize = 512;

/// Why nothing is revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// No certificate of that kind is alive.
    #[error("{0}: no certificate that has not expired was issued: nothing is revoked")]
    Nothing(String),
    /// The server's own: it would lock everybody out.
    #[error("`{0}` is the server itself: rotate and taint its authority instead")]
    Reserved(SpiffeId),
    /// Not hex.
    #[error("`{0}` is not a serial number: write it in hexadecimal, as the issuance record has it")]
    Serial(String),
    /// It could not be stored, or not be put in force.
    #[error("the revocation cannot be stored")]
    Store(#[from] StoreError),
    /// It is stored and is in force after the next check.
    #[error("the revocation is stored but not in force yet")]
    Open(#[from] OpenError),
}

impl Authority {
    /// Revokes every certificate of `id` that has not expired. It is durable, and on its way to all who follow, when this returns.
    ///
    /// # Errors
    /// [`RevokeError`].
    pub async fn revoke_id(&self, id: &SpiffeId, reason: &str) -> Result<Vec<Revocation>, RevokeError> {
        if id == self.server_identity().svid.id() {
            return Err(RevokeError::Reserved(id.clone()));
        }
        self.revoke(Target::Id(id.as_str().to_owned()), id.as_str(), reason).await
    }

    /// Revokes the certificate with this serial number: hexadecimal, colons and case as one likes.
    ///
    /// # Errors
    /// [`RevokeError`].
    pub async fn revoke_serial(&self, serial: &str, reason: &str) -> Result<Vec<Revocation>, RevokeError> {
        let target = Target::serial(serial).ok_or_else(|| RevokeError::Serial(serial.to_owned()))?;
        let own = self.server_identity();
        if target == Target::Serial(own.svid.serial().to_owned()) {
            return Err(RevokeError::Reserved(own.svid.id().clone()));
        }
        self.revoke(target, serial, reason).await
    }

    async fn revoke(&self, target: Target, what: &str, reason: &str) -> Result<Vec<Revocation>, RevokeError> {
        let now = signed(self.now());
        let reason: String = reason.chars().take(LONGEST_REASON).collect();
        self.store.revoke(target.clone(), reason, now).await?;
        let revoked = self.store.revoked(&target, now - 1).await?;
        if revoked.is_empty() {
            return Err(RevokeError::Nothing(what.to_owned()));
        }
        for one in &revoked {
            tracing::warn!(id = one.spiffe_id, serial = one.serial, reason = one.reason, "certificate revoked");
        }
        let hands = self.hands.lock().await;
        self.deny(&hands).await?;
        self.refresh_server(&hands).await;
        Ok(revoked)
    }

    /// Revoked certificates that would otherwise still be accepted.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub async fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        self.store.revocations(signed(self.now())).await
    }

    /// Puts what is stored in force, and forgets what has expired.
    pub(super) async fn deny(&self, hands: &Hands) -> Result<(), RevokeError> {
        let revoked = self.store.revocations(signed(self.now()) - CLOCKS_DIFFER).await?;
        let denied: BTreeSet<String> = revoked.into_iter().map(|revoked| revoked.serial).collect();
        let realm = self.realm();
        if denied != *realm.bundles.denied() {
            self.install(realm_of(realm.journal.clone(), hands, &self.config, denied, self.now())?);
        }
        Ok(())
    }
}
