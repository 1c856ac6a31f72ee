//! What an operator sees: each authority, who has not acknowledged it, and what comes next.

use super::Authority;
use crate::journal::{Origin, State};
use crate::rotation::Next;
use crate::signer::Found;
use crate::store::StoreError;

/// The authorities of one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// The trust domain served.
    pub trust_domain: String,
    /// Number of the bundle's content: it grows with each change.
    pub sequence: u64,
    /// Hex of the bundle's digest: what followers acknowledge.
    pub bundle_digest: String,
    /// Oldest first.
    pub authorities: Vec<AuthorityStatus>,
    /// Who follows.
    pub followers: Vec<FollowerStatus>,
    /// Why the files in `--cacerts` are refused, if they are.
    pub cacerts_refused: Option<String>,
}

/// One authority. All times are unix seconds.
#[derive(Clone, Debug)]
pub struct AuthorityStatus {
    /// Subject key identifier, lower-case hex.
    pub id: String,
    /// What it is for.
    pub state: State,
    /// Where it comes from.
    pub origin: Origin,
    /// Its leaves are being replaced.
    pub tainted: bool,
    /// Dates of its root.
    pub not_before: u64,
    /// Dates of its root.
    pub not_after: u64,
    /// When its root was published.
    pub prepared_at: u64,
    /// When it began to sign.
    pub activated_at: Option<u64>,
    /// When it ceased to.
    pub replaced_at: Option<u64>,
    /// The operator's deadline.
    pub activate_by: Option<u64>,
    /// The end of its last leaf, if it has signed any and is old.
    pub leaves_until: Option<u64>,
    /// Agents that have not acknowledged its root; of a prepared one.
    pub unacknowledged: Vec<String>,
    /// What happens next.
    pub next: Next,
}

/// An agent that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Its ID.
    pub id: String,
    /// Its address.
    pub address: String,
    /// Hex of the digest it has acknowledged; empty before the first.
    pub bundle_digest: String,
    /// Why it could not use the last state, if so.
    pub rejected: String,
}

impl Authority {
    /// The authorities, who follows, and what comes next.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be read.
    pub async fn status(&self) -> Result<Status, StoreError> {
        let cacerts_refused = self.hands.lock().await.plugin.1.clone();
        let realm = self.realm();
        let facts = self.facts(&realm).await?;
        let authority = |record: &crate::journal::Record| {
            let root = record.roots().first().and_then(Found::read);
            let prepared = record.state == State::Prepared;
            AuthorityStatus {
                id: record.id.clone(),
                state: record.state,
                origin: record.origin,
                tainted: record.tainted,
                not_before: root.as_ref().map_or(0, |root| root.not_before),
                not_after: root.as_ref().map_or(0, |root| root.not_after),
                prepared_at: record.prepared_at,
                activated_at: record.activated_at,
                replaced_at: record.replaced_at,
                activate_by: record.activate_by,
                leaves_until: facts.leaves_until.get(&record.id).copied().filter(|until| *until > 0),
                unacknowledged: if prepared { self.followers.waiting(&realm.digest) } else { Vec::new() },
                next: facts.next(record),
            }
        };
        Ok(Status {
            trust_domain: realm.journal.trust_domain.clone(),
            sequence: realm.documents.sequence,
            bundle_digest: realm.digest.clone(),
            authorities: realm.journal.authorities.iter().map(authority).collect(),
            followers: self.followers.all(),
            cacerts_refused,
        })
    }
}
