//! Tokens for an agent's workloads, or for the agent itself. The identity comes from the entry or the certificate, never from
//! the request.

use palisade_identity::{SpiffeId, VerifiedPeer, error_chain};
use palisade_wire::agents::{IssueJwtRequest, IssueJwtResponse};
use tonic::Status;

use super::AgentsService;
use crate::authority::{TokenError, TokenOrder};
use crate::jwt::JwtError;
use crate::store::StoreError;

impl AgentsService {
    /// Signs and records one token. Without an entry it is for the caller's own ID.
    pub(super) async fn token(
        &self,
        peer: &VerifiedPeer,
        request: &IssueJwtRequest,
    ) -> Result<IssueJwtResponse, Status> {
        let (id, entry, ttl) = self.subject(peer, &request.entry_id)?;
        let order = TokenOrder {
            id: &id,
            audience: &request.audience,
            ttl,
            caller: peer.id().as_str(),
            presented: peer.serial(),
            entry: &entry,
        };
        let made = self.authority.issue_token(order).await.map_err(|error| self.refuse_token(peer, &error))?;
        tracing::info!(%id, token = made.id, agent = %peer.id(), entry, expires = made.expires_at, "token issued");
        let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        let (issued_at, expires_at) = (seconds(made.issued_at), seconds(made.expires_at));
        Ok(IssueJwtResponse { token: made.token.to_string(), issued_at, expires_at })
    }

    fn subject(&self, peer: &VerifiedPeer, entry: &str) -> Result<(SpiffeId, String, i64), Status> {
        if entry.is_empty() {
            return Ok((peer.id().clone(), String::new(), 0));
        }
        let entry = self.entries.get(peer.id(), entry);
        let entry = entry.ok_or_else(|| Status::permission_denied("no entry of that name is this agent's"))?;
        let id = SpiffeId::parse(&entry.spiffe_id)
            .map_err(|error| Status::internal(format!("the entry's ID is not valid: {error}")))?;
        Ok((id, entry.id, entry.jwt_ttl))
    }

    fn refuse_token(&self, peer: &VerifiedPeer, error: &TokenError) -> Status {
        self.authority.metrics().refused("agent-token");
        let text = error_chain(error);
        tracing::warn!(agent = %peer.id(), reason = text, "token refused");
        match error {
            TokenError::Jwt(JwtError::Audience) => Status::invalid_argument(JwtError::Audience.to_string()),
            TokenError::Reserved(_) => Status::permission_denied(text),
            TokenError::Store(StoreError::CallerRevoked) => Status::permission_denied("the certificate is revoked"),
            _ => Status::unavailable("no token can be issued now, try again"),
        }
    }
}
