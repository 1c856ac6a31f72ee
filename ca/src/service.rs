//! Istio's certificate API: `istio.v1.auth.IstioCertificateService/CreateCertificate`.

use std::sync::Arc;
use std::time::Duration;

use palisade_identity::SpiffeId;
use palisade_wire::Caller;
use palisade_wire::istio_ca::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use palisade_wire::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::admission::{Admission, Later};
use crate::attest::{self, Attested, Attestor, Evidence, Refusal};
use crate::authority::{Authority, IssueError, Order};
use crate::csr::Csr;
use crate::entries::{Entries, Grant};
use crate::impersonation::Impersonation;
use crate::leaf::Leaf;
use crate::signer::{certificate_pem, hex};
use crate::store::StoreError;

/// A request is a PEM of a few kilobytes: this is already generous.
const MAX_MESSAGE: usize = 128 * 1_024;

/// The gRPC service in front of an [`Authority`].
#[derive(Clone, Debug)]
pub struct CaService {
    authority: Arc<Authority>,
    parts: Arc<Parts>,
}

/// What a service may have besides its authority.
#[derive(Debug, Default)]
struct Parts {
    attestors: Vec<Box<dyn Attestor>>,
    entries: Option<Entries>,
    impersonation: Option<Impersonation>,
    admission: Admission,
}

/// An answer that is not a certificate, and the reason we count and log.
struct Refused {
    status: Status,
    reason: &'static str,
}

impl CaService {
    /// Serves `authority`: callers prove themselves by their current certificate or a join token.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        Self { authority, parts: Arc::default() }
    }

    /// Believes one more kind of evidence; asked after those that are there already.
    #[must_use]
    pub fn with_attestor(self, attestor: Box<dyn Attestor>) -> Self {
        self.with(|parts| parts.attestors.push(attestor))
    }

    /// Gives callers what their registration entry grants: DNS names, and a shorter life.
    #[must_use]
    pub fn with_entries(self, entries: Entries) -> Self {
        self.with(|parts| parts.entries = Some(entries))
    }

    /// Lets node agents ask for certificates of the workloads on their node.
    #[must_use]
    pub fn with_impersonation(self, impersonation: Impersonation) -> Self {
        self.with(|parts| parts.impersonation = Some(impersonation))
    }

    /// Serves within these limits; several services of one authority share them.
    #[must_use]
    pub fn with_admission(self, admission: Admission) -> Self {
        self.with(|parts| parts.admission = admission)
    }

    fn with(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        // Nobody shares it before it is served.
        if let Some(parts) = Arc::get_mut(&mut self.parts) {
            change(parts);
        }
        self
    }

    /// For `tonic::service::Routes`. Its listener must put a [`Caller`] into the requests, as
    /// `palisade_wire::serve` does.
    #[must_use]
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    async fn create(&self, request: Request<IstioCertificateRequest>) -> Result<IstioCertificateResponse, Refused> {
        let caller = Caller::of(&request).cloned().unwrap_or_default();
        let admission = &self.parts.admission;
        let _turn = admission.admit(&caller, 1).await.map_err(come_back)?;
        let attested = self.attest(&request, &caller).await.inspect_err(|refused| {
            if refused.status.code() == Code::Unauthenticated {
                admission.failed(&caller);
            }
        })?;
        admission.charge(&attested).map_err(come_back)?;
        let message = request.get_ref();
        let holder = self.impersonate(attested, message)?;
        let attested = &holder.attested;
        let refuse = |error: crate::CsrError| refused(error.code(), Status::invalid_argument(error.to_string()));
        let csr = Csr::parse(&message.csr, self.authority.extra_keys()).map_err(refuse)?;
        csr.check_id(&attested.id).map_err(refuse)?;
        check_redeemable(attested, &csr)?;
        let grant = self.grant(attested, &caller);
        let presented = caller.peer.as_deref().map(|peer| peer.serial().to_owned());
        let caller = holder.describe(&caller);
        let order = Order {
            attested,
            csr: &csr,
            dns_names: &grant.dns_names,
            ttl: lifetime(message.validity_duration, grant.x509_ttl),
            caller: caller.clone(),
            presented,
            entry: grant.entry.clone(),
        };
        let issued = self.authority.issue(order).await.map_err(refuse_issue)?;
        report(attested, &issued.leaf, message.validity_duration, &caller);
        // One certificate an element, and the last holds all roots.
        let mut cert_chain = vec![certificate_pem(&issued.leaf.certificate)];
        cert_chain.extend(issued.realm.signer.chain_pem.iter().cloned());
        cert_chain.push(issued.realm.roots_pem.to_string());
        Ok(IstioCertificateResponse { cert_chain })
    }

    /// What registration entries give beyond the ID.
    fn grant(&self, attested: &Attested, caller: &Caller) -> Grant {
        let Some(entries) = &self.parts.entries else { return Grant::default() };
        match caller.peer.as_deref().filter(|peer| *peer.id() == attested.id && attested.selectors.is_empty()) {
            Some(peer) => entries.for_renewal(&attested.id, peer.dns_names()),
            None => {
                entries.for_caller(&attested.id, &attested.selectors).map(|entry| (&*entry).into()).unwrap_or_default()
            }
        }
    }

    /// Whose certificate is made: the caller's own, or that of a workload on its node.
    fn impersonate(&self, attested: Attested, message: &IstioCertificateRequest) -> Result<OnBehalf, Refused> {
        if metadata(message, "CertSigner").is_some_and(|signer| !signer.is_empty()) {
            let status = Status::invalid_argument("metadata `CertSigner` is not supported");
            return Err(refused("cert-signer", status));
        }
        match metadata(message, "ImpersonatedIdentity").filter(|id| !id.is_empty() && *id != attested.id.as_str()) {
            None => Ok(OnBehalf { attested, by: None }),
            Some(wanted) => {
                let denied = |reason| {
                    let text = format!("metadata `ImpersonatedIdentity` is refused: {reason}");
                    refused(reason, Status::permission_denied(text))
                };
                let judged = self.parts.impersonation.as_ref().ok_or("impersonation-not-configured");
                let id = judged.and_then(|rule| rule.judge(self.authority.trust_domain(), &attested, wanted));
                Ok(OnBehalf::of(attested, id.map_err(denied)?))
            }
        }
    }

    async fn attest(&self, request: &Request<IstioCertificateRequest>, caller: &Caller) -> Result<Attested, Refused> {
        // Of several headers the first counts: a later one must not be a second chance.
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let bearer = header.and_then(bearer);
        let evidence = Evidence { caller, bearer, now: self.authority.now() };
        let attestors = self.authority.attestors().iter().chain(&self.parts.attestors);
        match attest::first_success(attestors.map(|attestor| &**attestor), evidence).await {
            Ok(Some(attested)) => Ok(attested),
            Ok(None) if header.is_some() => Err(unauthenticated("evidence-unknown")),
            Ok(None) => Err(unauthenticated("no-evidence")),
            Err(Refusal::Evidence { code, .. }) => Err(unauthenticated(code)),
            Err(Refusal::Unavailable(error)) => Err(unavailable(&error)),
            Err(Refusal::Later { code, .. }) => {
                Err(refused(code, Status::unavailable("evidence cannot be judged now, try again")))
            }
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
                if status.code() != Code::ResourceExhausted || self.parts.admission.says(Instant::now()) {
                    tracing::warn!(caller, reason, code = ?status.code(), "certificate refused");
                }
                Err(status)
            }
        }
    }
}

fn refused(reason: &'static str, status: Status) -> Refused {
    Refused { status, reason }
}

fn come_back(later: Later) -> Refused {
    refused(later.reason, later.status())
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
        IssueError::Store(StoreError::CallerRevoked) => unauthenticated("certificate-revoked"),
        IssueError::Store(error) => unavailable(&error),
        error @ IssueError::Reserved(_) => refused("reserved", Status::permission_denied(error.to_string())),
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

/// A text of Istio's metadata. What is there and no text is neither empty nor any ID.
fn metadata<'a>(message: &'a IstioCertificateRequest, key: &str) -> Option<&'a str> {
    use prost_types::value::Kind;
    match message.metadata.as_ref()?.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.as_str()),
        Kind::NullValue(_) => None,
        _ => Some("(not a string)"),
    }
}

/// Who gets the certificate, and who asked for it.
struct OnBehalf {
    attested: Attested,
    /// The node agent, where it asked for somebody else.
    by: Option<SpiffeId>,
}

impl OnBehalf {
    /// Of the workload its account is known, and nothing that was proven about the agent.
    fn of(agent: Attested, id: SpiffeId) -> Self {
        let account = id.namespace_and_service_account();
        let selectors = account.map(|(ns, sa)| vec![format!("k8s:ns:{ns}"), format!("k8s:sa:{sa}")]);
        let attested = Attested { selectors: selectors.unwrap_or_default(), ..Attested::new(id, agent.attestor) };
        Self { attested, by: Some(agent.id) }
    }

    /// For rows and logs: the address, and the agent that asked.
    fn describe(&self, caller: &Caller) -> String {
        match &self.by {
            Some(agent) => format!("{} for {agent}", caller.describe()),
            None => caller.describe(),
        }
    }
}

/// The lifetime to issue, in seconds: an entry's stands for the default, and bounds what is asked for.
fn lifetime(asked: i64, granted: Option<Duration>) -> i64 {
    let granted = granted.map(|ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
    match granted {
        Some(granted) if asked > 0 => asked.min(granted),
        Some(granted) => granted,
        None => asked,
    }
}

fn report(attested: &Attested, leaf: &Leaf, asked: i64, caller: &str) {
    let not_after = leaf.lifetime.not_after;
    tracing::info!(id = %attested.id, serial = leaf.serial, attestor = attested.attestor, caller, not_after,
        "certificate issued");
    if leaf.lifetime.shortened {
        tracing::warn!(id = %attested.id, serial = leaf.serial, requested_ttl = asked, not_after, "lifetime shortened");
    }
}
