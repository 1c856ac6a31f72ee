//! Who is asking: evidence becomes an ID, and a request never does.
//!
//! Each kind of evidence has an [`Attestor`]. They are asked in order and the first success wins; an
//! attestor that finds no evidence of its kind says so, which is different from evidence that is
//! refused. What the caller learns is always the same text: the reasons go to the log.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use palisade_identity::SpiffeId;
use palisade_wire::Caller;

pub mod certificate;
pub mod join_token;
pub mod kubernetes;
pub mod x509pop;

use crate::store::StoreError;

/// What a caller brings besides its request.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Who the transport says it is.
    pub caller: &'a Caller,
    /// The first `authorization` header, without its `Bearer` scheme. A secret.
    pub bearer: Option<&'a str>,
    /// Unix seconds.
    pub now: u64,
}

/// An ID somebody has proven to be entitled to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// The ID the certificate will carry.
    pub id: SpiffeId,
    /// Which attestor found it: goes into the row, the metrics and the log.
    pub attestor: &'static str,
    /// Evidence that is used up by the issuance, in the same transaction as its row.
    pub redeem: Option<Redeem>,
    /// What else is proven, `kind:value` each, for registration entries to select by.
    pub selectors: Vec<String>,
    /// What a Kubernetes token said about its holder.
    pub kubernetes: Option<kubernetes::Holder>,
}

impl Attested {
    /// An ID about whose holder nothing else is known.
    #[must_use]
    pub fn new(id: SpiffeId, attestor: &'static str) -> Self {
        Self { id, attestor, redeem: None, selectors: Vec::new(), kubernetes: None }
    }
}

/// Evidence that works once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redeem {
    /// SHA-256 of the token's secret, lower-case hex.
    pub secret_sha256: String,
    /// The key that has redeemed it before, as the hash of its SubjectPublicKeyInfo in lower-case hex. Only
    /// the same key can again.
    pub redeemed_by: Option<String>,
}

/// Why evidence is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The evidence is wrong, and stays wrong: UNAUTHENTICATED.
    #[error("{attestor} evidence refused: {code}")]
    Evidence {
        /// Who refused it.
        attestor: &'static str,
        /// A stable reason.
        code: &'static str,
    },
    /// It could not be judged just now: UNAVAILABLE.
    #[error("evidence cannot be judged now")]
    Unavailable(#[from] StoreError),
    /// What judges it is not there just now: UNAVAILABLE.
    #[error("{attestor} evidence cannot be judged now: {code}")]
    Later {
        /// Who cannot judge.
        attestor: &'static str,
        /// A stable reason.
        code: &'static str,
    },
}

/// The answer of an attestor: `None` if there is no evidence of its kind.
pub type Attestation<'a> = Pin<Box<dyn Future<Output = Result<Option<Attested>, Refusal>> + Send + 'a>>;

/// One way to prove an ID.
pub trait Attestor: Debug + Send + Sync {
    /// The name in rows, metrics and logs, for example `join-token`.
    fn name(&self) -> &'static str;

    /// Judges the evidence. It must not change anything: what is used up is named in
    /// [`Attested::redeem`] and used up with the issuance.
    fn attest<'a>(&'a self, evidence: Evidence<'a>) -> Attestation<'a>;
}

/// Asks `attestors` in order.
///
/// # Errors
/// The first refusal if nobody succeeds; `Ok(None)` if there was no evidence at all.
pub(crate) async fn first_success<'a>(
    attestors: impl Iterator<Item = &'a dyn Attestor>,
    evidence: Evidence<'_>,
) -> Result<Option<Attested>, Refusal> {
    let mut refusal = None;
    for attestor in attestors {
        match attestor.attest(evidence).await {
            Ok(Some(attested)) => return Ok(Some(attested)),
            Ok(None) => {}
            Err(error) => {
                tracing::info!(caller = evidence.caller.describe(), %error, "evidence not accepted");
                refusal.get_or_insert(error);
            }
        }
    }
    refusal.map_or(Ok(None), Err)
}
