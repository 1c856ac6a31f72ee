//! The record of what was issued, as an operator asks for it.

use super::issue::{SELF_ATTESTOR, TOKEN_ATTESTOR};
use super::{Authority, StoreError};
use crate::agents::issue::ATTESTOR as AGENT_ATTESTOR;
use crate::attest::certificate;
use crate::store::{IssuanceQuery, IssuanceRow};

impl Authority {
    /// The issuances asked for, newest first.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be read.
    pub async fn issuances(&self, query: &IssuanceQuery) -> Result<Vec<IssuanceRow>, StoreError> {
        self.store.issuances(query).await
    }
}

impl IssuanceRow {
    /// Why it was issued, in a word that stays the same: `enrolment` (the caller proved itself), `renewal` (by the current
    /// certificate), `entry` (an agent's workload has a registration entry), `token` (a JWT for one), `on-behalf` (a node agent
    /// asked for a workload of its node), `server` (its own).
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.attestor.as_str() {
            SELF_ATTESTOR => "server",
            certificate::NAME => "renewal",
            AGENT_ATTESTOR => "entry",
            TOKEN_ATTESTOR => "token",
            // As the service describes a caller that is not the holder.
            _ if self.caller.contains(" for ") => "on-behalf",
            _ => "enrolment",
        }
    }
}
