//! What an operator is told about the identity.

use std::fmt;

use palisade_identity::SpiffeId;
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
