//! The operator's service, on a Unix socket that only the server's user can open.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use palisade_audit::{AdminAudit, Answers};
use palisade_ca::{Authority, Entries, JoinTokenError};
use palisade_identity::SpiffeId;
use palisade_wire::admin::admin_server::Admin;
use palisade_wire::admin::{
    AuditQuery, Authorities, CreateEntryRequest, CreateJoinTokenRequest, CreateJoinTokenResponse, DeleteEntryRequest,
    DeleteEntryResponse, GetAuthoritiesRequest, GetBundleRequest, ListEntriesRequest, ListEntriesResponse,
    ListIssuancesRequest, ListRevokedCertificatesRequest, RegistrationEntry, RevokeCertificatesRequest,
    RevokedCertificates, RotateAuthoritiesRequest, TrustBundle,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{authorities, issuances};

/// Audit queries, join tokens, registration entries, authorities and revocation.
pub(super) struct AdminService {
    pub(super) audit: AdminAudit,
    pub(super) authority: Arc<Authority>,
    pub(super) entries: Entries,
    /// Ends what nobody else would end: followers of the audit log.
    pub(super) closing: CancellationToken,
}

#[tonic::async_trait]
impl Admin for AdminService {
    type QueryAuditStream = Answers;
    type FollowAuditStream = Answers;
    type ListIssuancesStream = issuances::Answers;

    async fn query_audit(&self, request: Request<AuditQuery>) -> Result<Response<Answers>, Status> {
        Ok(Response::new(self.audit.query(request.into_inner()).await?))
    }

    async fn follow_audit(&self, request: Request<AuditQuery>) -> Result<Response<Answers>, Status> {
        let rows = self.audit.follow(request.into_inner()).await?;
        Ok(Response::new(Box::pin(rows.take_until(self.closing.clone().cancelled_owned()))))
    }

    async fn create_entry(&self, request: Request<CreateEntryRequest>) -> Result<Response<RegistrationEntry>, Status> {
        super::entries::create(&self.authority, &self.entries, request.into_inner()).await.map(Response::new)
    }

    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        super::entries::list(&self.entries, &request.into_inner()).map(Response::new)
    }

    async fn delete_entry(
        &self,
        request: Request<DeleteEntryRequest>,
    ) -> Result<Response<DeleteEntryResponse>, Status> {
        super::entries::delete(&self.entries, &request.into_inner().id).await.map(Response::new)
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let CreateJoinTokenRequest { spiffe_id, ttl_seconds } = request.into_inner();
        let id = SpiffeId::parse(&spiffe_id)
            .map_err(|error| Status::invalid_argument(format!("`{spiffe_id}` is not a SPIFFE ID: {error}")))?;
        let ttl = Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or_default());
        let made = self.authority.create_join_token(&id, ttl).await.map_err(|error| {
            let text = crate::exit::chain(&error);
            match error {
                JoinTokenError::Store(_) | JoinTokenError::Random(_) => Status::internal(text),
                _ => Status::invalid_argument(text),
            }
        })?;
        let expires_unix = i64::try_from(made.expires.as_secs()).unwrap_or(i64::MAX);
        Ok(Response::new(CreateJoinTokenResponse { token: made.token.to_string(), expires_unix }))
    }

    async fn get_authorities(&self, _: Request<GetAuthoritiesRequest>) -> Result<Response<Authorities>, Status> {
        authorities::status(&self.authority).await.map(Response::new)
    }

    async fn rotate_authorities(
        &self,
        request: Request<RotateAuthoritiesRequest>,
    ) -> Result<Response<Authorities>, Status> {
        authorities::rotate(&self.authority, request.into_inner()).await.map(Response::new)
    }

    async fn revoke_certificates(
        &self,
        request: Request<RevokeCertificatesRequest>,
    ) -> Result<Response<RevokedCertificates>, Status> {
        authorities::revoke(&self.authority, request.into_inner()).await.map(Response::new)
    }

    async fn list_revoked_certificates(
        &self,
        _: Request<ListRevokedCertificatesRequest>,
    ) -> Result<Response<RevokedCertificates>, Status> {
        authorities::revoked(&self.authority).await.map(Response::new)
    }

    async fn list_issuances(
        &self,
        request: Request<ListIssuancesRequest>,
    ) -> Result<Response<issuances::Answers>, Status> {
        issuances::list(&self.authority, request.into_inner()).await.map(Response::new)
    }

    async fn get_bundle(&self, _: Request<GetBundleRequest>) -> Result<Response<TrustBundle>, Status> {
        Ok(Response::new(issuances::bundle(&self.authority)))
    }
}
