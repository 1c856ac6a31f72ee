//! Renewal: whoever authenticates with a current certificate of ours gets the same ID again.

use palisade_identity::TrustDomain;

use super::{Attestation, Attested, Attestor, Evidence, Refusal};

/// The name in rows and metrics.
pub(crate) const NAME: &str = "certificate";

/// Attests by the client certificate of the connection, which the transport has verified.
#[derive(Debug)]
pub struct CurrentCertificate {
    domain: TrustDomain,
}

impl CurrentCertificate {
    /// Accepts certificates of `domain` only: a federated peer is trusted to be who it is, not to join us.
    #[must_use]
    pub fn new(domain: TrustDomain) -> Self {
        Self { domain }
    }

    fn judge(&self, evidence: Evidence<'_>) -> Result<Option<Attested>, Refusal> {
        let Some(peer) = evidence.caller.peer.as_deref() else { return Ok(None) };
        let refuse = |code| Refusal::Evidence { attestor: NAME, code };
        if peer.id().trust_domain() != self.domain {
            return Err(refuse("foreign-trust-domain"));
        }
        // The connection may be older than the certificate had left.
        if peer.not_after().as_secs() < evidence.now {
            return Err(refuse("certificate-expired"));
        }
        Ok(Some(Attested::new(peer.id().clone(), NAME)))
    }
}

impl Attestor for CurrentCertificate {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attest<'a>(&'a self, evidence: Evidence<'a>) -> Attestation<'a> {
        Box::pin(std::future::ready(self.judge(evidence)))
    }
}
