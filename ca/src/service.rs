//! Istio's certificate API: `istio.v1.auth.IstioCertificateService/CreateCertificate`.

use std::sync::Arc;

use palisade_wire::Caller;
use palisade_wire::istio_ca::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use palisade_wire::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Request, Response, Status};

use crate::attest::{self, Attested, Evidence, Refusal};
use crate::authority::{Authority, IssueError, Order};
use crate::csr::Csr;
use crate::signer::{certificate_pem, hex};
use crate::store::StoreError;

/// A request is a PEM of a few kilobytes: this is already generous.
const MAX_MESSAGE: usize = 128 * 1_024;

/// The gRPC service in front of an [`Authority`].
#[derive(Clone, Debug)]
pub struct CaService {
    authority: Arc<Authority>,
    roots_pem: Arc<str>,
}

/// An answer that is not a certificate, and the reason we count and log.
struct Refused {
    status: Status,
    reason: &'static str,
}

impl CaService {
    /// Serves `authority`.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        let roots_pem = authority.bundle().to_pem().into();
        Self { authority, roots_pem }
    }

    /// For `tonic::service::Routes`. Its listener must put a [`Caller`] into the requests, as
    /// `palisade_wire::serve` does.
    #[must_use]
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    async fn create(&self, request: Request<IstioCertificateRequest>) -> Result<IstioCertificateResponse, Refused> {
        let caller = Caller::of(&request).cloned().unwrap_or_default();
        let attested = self.attest(&request, &caller).await?;
        let message = request.get_ref();
        check_metadata(message, &attested)?;
        let refuse = |error: crate::CsrError| refused(error.code(), Status::invalid_argument(error.to_string()));
        let csr = Csr::parse(&message.csr, self.authority.extra_keys()).map_err(refuse)?;
        csr.check_id(&attested.id).map_err(refuse)?;
        check_redeemable(&attested, &csr)?;
        let order = Order { attested: &attested, csr: &csr, ttl: message.validity_duration, caller: caller.describe() };
        let issued = self.authority.issue(order).await.map_err(refuse_issue)?;
        let (leaf, ttl) = (issued.leaf, message.validity_duration);
        tracing::info!(id = %attested.id, serial = leaf.serial, attestor = attested.attestor,
            caller = caller.describe(), not_after = leaf.lifetime.not_after, "certificate issued");
        if leaf.lifetime.shortened {
            tracing::warn!(id = %attested.id, serial = leaf.serial, requested_ttl = ttl,
                not_after = leaf.lifetime.not_after, "lifetime shortened");
        }
        let cert_chain = vec![certificate_pem(&leaf.certificate), issued.intermediate_pem, self.roots_pem.to_string()];
        Ok(IstioCertificateResponse { cert_chain })
    }

    async fn attest(&self, request: &Request<IstioCertificateRequest>, caller: &Caller) -> Result<Attested, Refused> {
        // Of several headers the first counts: a later one must not be a second chance.
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let bearer = header.and_then(bearer);
        let evidence = Evidence { caller, bearer, now: self.authority.now() };
        match attest::first_success(self.authority.attestors(), evidence).await {
            Ok(Some(attested)) => Ok(attested),
            Ok(None) if header.is_some() => Err(unauthenticated("evidence-unknown")),
            Ok(None) => Err(unauthenticated("no-evidence")),
            Err(Refusal::Evidence { code, .. }) => Err(unauthenticated(code)),
            Err(Refusal::Unavailable(error)) => Err(unavailable(&error)),
        }
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CaService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = Caller::of(&request).map(Caller::describe).unwrap_or_default();
        match self.create(request).await {
            Ok(response) => Ok(Response::new(response)),
            Err(Refused { status, reason }) => {
                self.authority.metrics().refused(reason);
                tracing::warn!(caller, reason, code = ?status.code(), "certificate refused");
                Err(status)
            }
        }
    }
}

fn refused(reason: &'static str, status: Status) -> Refused {
    Refused { status, reason }
}

/// Always the same words: whoever guesses learns nothing.
fn unauthenticated(reason: &'static str) -> Refused {
    refused(reason, Status::unauthenticated("attestation failed"))
}

/// Clients try this again.
fn unavailable(error: &StoreError) -> Refused {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, "issuance records cannot be used");
    refused("store-unavailable", Status::unavailable("issuance cannot be recorded now, try again"))
}

fn refuse_issue(error: IssueError) -> Refused {
    match error {
        IssueError::Store(StoreError::TokenSpent) => unauthenticated("token-used"),
        IssueError::Store(error) => unavailable(&error),
        IssueError::Leaf(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "no leaf can be signed");
            refused("sign-failed", Status::unavailable("no certificate can be signed now, try again"))
        }
    }
}

/// The token of a `Bearer` header, the scheme's case ignored (RFC 9110, 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A token that another key has redeemed is refused before anything is signed. The store decides
/// once more, in the transaction.
fn check_redeemable(attested: &Attested, csr: &Csr) -> Result<(), Refused> {
    let redeemed_by = attested.redeem.as_ref().and_then(|redeem| redeem.redeemed_by.as_ref());
    match redeemed_by {
        Some(key) if *key != hex(&csr.key_sha256()) => Err(unauthenticated("token-used")),
        _ => Ok(()),
    }
}

/// Istio's two keys are not supported yet, which must not pass in silence: a caller that asks for
/// another identity or signer would take what it gets for what it asked.
fn check_metadata(message: &IstioCertificateRequest, attested: &Attested) -> Result<(), Refused> {
    let text = |key: &str| {
        use prost_types::value::Kind;
        match message.metadata.as_ref()?.fields.get(key)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text.as_str()),
            Kind::NullValue(_) => None,
            _ => Some("(not a string)"),
        }
    };
    if text("CertSigner").is_some_and(|signer| !signer.is_empty()) {
        let status = Status::invalid_argument("metadata `CertSigner` is not supported");
        return Err(refused("cert-signer", status));
    }
    match text("ImpersonatedIdentity").filter(|id| !id.is_empty()) {
        Some(id) if id != attested.id.as_str() => {
            let status = Status::permission_denied("metadata `ImpersonatedIdentity` is not supported");
            Err(refused("impersonation", status))
        }
        _ => Ok(()),
    }
}
