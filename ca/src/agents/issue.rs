//! Certificates for an agent's workloads. The identity comes from the entry, never from the request.

use der::pem::LineEnding;
use palisade_identity::{SpiffeId, VerifiedPeer};
use palisade_wire::agents::{X509Answer, X509Order};
use tonic::{Code, Status};

use super::AgentsService;
use crate::attest::Attested;
use crate::authority::{IssueError, Order};
use crate::csr::{Csr, ExtraKeys};
use crate::store::StoreError;

/// One call's worth: a few hundred milliseconds of one core.
pub(super) const MOST_ORDERS: usize = 500;
/// Signed at a time for one call; their records share a flush.
const AT_A_TIME: usize = 64;
pub(crate) const ATTESTOR: &str = "agent";

impl AgentsService {
    /// An answer for each order, in their order.
    pub(super) async fn issue_all(
        &self,
        peer: &VerifiedPeer,
        orders: Vec<X509Order>,
    ) -> Result<Vec<X509Answer>, Status> {
        if orders.len() > MOST_ORDERS {
            let text = format!("{} orders in one call, at most {MOST_ORDERS} are taken", orders.len());
            return Err(Status::invalid_argument(text));
        }
        let mut answers = Vec::with_capacity(orders.len());
        for some in orders.chunks(AT_A_TIME) {
            self.admit(peer)?;
            let all = some.iter().map(|order| async {
                match self.issue_one(peer, order).await {
                    Ok(answer) => answer,
                    Err(status) => self.refusal(peer, order, &status),
                }
            });
            answers.extend(futures_util::future::join_all(all).await);
        }
        Ok(answers)
    }

    async fn issue_one(&self, peer: &VerifiedPeer, order: &X509Order) -> Result<X509Answer, Status> {
        let entry = self.entries.get(peer.id(), &order.entry_id);
        let entry = entry.ok_or_else(|| Status::permission_denied("no entry of that name is this agent's"))?;
        let id = SpiffeId::parse(&entry.spiffe_id)
            .map_err(|error| Status::internal(format!("the entry's ID is not valid: {error}")))?;
        let csr = read(&order.csr, self.authority.extra_keys())?;
        csr.check_id(&id).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let attested = Attested::new(id, ATTESTOR);
        let ordered = Order {
            attested: &attested,
            csr: &csr,
            ttl: entry.x509_ttl,
            caller: peer.id().as_str().to_owned(),
            presented: Some(peer.serial().to_owned()),
            dns_names: &entry.dns_names,
            entry: entry.id.clone(),
        };
        let issued = self.authority.issue(ordered).await.map_err(refuse)?;
        tracing::info!(id = %attested.id, serial = issued.leaf.serial, agent = %peer.id(), entry = entry.id,
            not_after = issued.leaf.lifetime.not_after, "certificate issued");
        let chain = std::iter::once(&issued.leaf.certificate).chain(&issued.realm.signer.chain);
        let wish = self.renewals.wish(self.authority.now(), &issued.leaf.lifetime);
        let renew_at = wish.map_or(0, crate::authority::signed);
        Ok(X509Answer { chain: chain.map(|der| der.to_vec()).collect(), renew_at, ..X509Answer::default() })
    }

    fn refusal(&self, peer: &VerifiedPeer, order: &X509Order, status: &Status) -> X509Answer {
        self.authority.metrics().refused("agent-order");
        tracing::warn!(agent = %peer.id(), entry = order.entry_id, code = ?status.code(), reason = status.message(),
            "certificate refused");
        let (code, reason) = (i32::from(status.code()), status.message().to_owned());
        X509Answer { code, reason, ..X509Answer::default() }
    }
}

fn read(der: &[u8], extra: ExtraKeys) -> Result<Csr, Status> {
    let refuse = |error: crate::CsrError| Status::invalid_argument(error.to_string());
    let pem = der::pem::encode_string("CERTIFICATE REQUEST", LineEnding::LF, der);
    let pem = pem.map_err(|_| Status::invalid_argument("the request is too long"))?;
    Csr::parse(&pem, extra).map_err(refuse)
}

fn refuse(error: IssueError) -> Status {
    let code = match &error {
        IssueError::Store(StoreError::CallerRevoked) => return Status::permission_denied("the certificate is revoked"),
        IssueError::Reserved(_) => return Status::permission_denied(error.to_string()),
        _ => Code::Unavailable,
    };
    let text = palisade_identity::error_chain(&error);
    tracing::error!(error = text, "no certificate can be issued");
    Status::new(code, "no certificate can be issued now, try again")
}
