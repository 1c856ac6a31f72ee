//! What an operator is told about the identity.

use std::fmt;

use palisade_identity::{Identity, SpiffeId, SvidError, VerifyError, error_chain};
use rustls_pki_types::UnixTime;

/// State of an agent at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The identity in hand.
    pub identity: IdentityState,
    /// Why the last attempt to get a newer one failed; unset after a success. Holds no secret.
    pub last_error: Option<String>,
}

/// The identity in hand, by the clock of the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityState {
    /// None yet.
    Missing,
    /// Good to be shown to peers.
    Usable {
        /// Whose.
        id: SpiffeId,
        /// Until when.
        not_after: UnixTime,
    },
    /// Peers refuse it.
    Expired {
        /// Whose.
        id: SpiffeId,
        /// Since when.
        not_after: UnixTime,
    },
    /// Not valid yet: this machine's clock is behind, or was set back.
    NotYetValid {
        /// Whose.
        id: SpiffeId,
        /// From when.
        not_before: UnixTime,
    },
    /// It was revoked: only a new join token gets another.
    Revoked {
        /// Whose.
        id: SpiffeId,
        /// Which certificate, lower-case hex.
        serial: String,
    },
    /// Peers refuse it for another reason, such as a root that is trusted no longer.
    Refused {
        /// Whose.
        id: SpiffeId,
        /// What they would say.
        reason: String,
    },
}

impl IdentityState {
    /// What a peer would say of it at `now`.
    pub(super) fn of(identity: &Identity, now: UnixTime) -> Self {
        let svid = &identity.svid;
        let id = svid.id().clone();
        match svid.usable(&identity.bundles, now) {
            Ok(()) => Self::Usable { id, not_after: svid.not_after() },
            Err(SvidError::Unusable { source: VerifyError::Expired { not_after, .. }, .. }) => {
                Self::Expired { id, not_after }
            }
            Err(SvidError::Unusable { source: VerifyError::NotYetValid { not_before, .. }, .. }) => {
                Self::NotYetValid { id, not_before }
            }
            Err(SvidError::Unusable { source: VerifyError::Revoked { serial, .. }, .. }) => {
                Self::Revoked { id, serial }
            }
            Err(error) => Self::Refused { id, reason: error_chain(&error) },
        }
    }

    /// All values of [`label`](Self::label).
    pub(crate) const LABELS: [&'static str; 6] =
        ["missing", "usable", "expired", "not_yet_valid", "revoked", "refused"];

    /// The state's name in metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Usable { .. } => "usable",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Revoked { .. } => "revoked",
            Self::Refused { .. } => "refused",
        }
    }
}

impl fmt::Display for IdentityState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no identity yet"),
            Self::Usable { id, not_after } => {
                write!(f, "identity `{id}` is valid until {} (Unix seconds)", not_after.as_secs())
            }
            Self::Expired { id, not_after } => {
                write!(f, "identity `{id}` expired at {} (Unix seconds)", not_after.as_secs())
            }
            Self::NotYetValid { id, not_before } => write!(
                f,
                "identity `{id}` is not valid before {} (Unix seconds): is the clock right?",
                not_before.as_secs()
            ),
            Self::Revoked { id, serial } => {
                write!(
                    f,
                    "identity `{id}` is revoked (certificate {serial}): a new join token gets another certificate"
                )
            }
            Self::Refused { id, reason } => write!(f, "identity `{id}` would be refused: {reason}"),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.last_error {
            Some(error) => write!(f, "{}; the last attempt to renew failed: {error}", self.identity),
            None => self.identity.fmt(f),
        }
    }
}
