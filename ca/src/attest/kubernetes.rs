//! Kubernetes: a pod proves its service account by the token that the kubelet projects for it.
//!
//! Who judges tokens is a [`TokenReviewer`]: [`OfflineTokens`] verifies them by the issuer's public keys, without any cluster;
//! a reviewer that asks the cluster (TokenReview) belongs behind [`CachedReviewer`], which bounds how often it is asked.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use palisade_identity::{SpiffeId, TrustDomain};

mod cache;
mod claims;
mod fetch;
mod jwk;
mod keys;
mod offline;

pub use cache::{CacheLimits, CachedReviewer};
pub use keys::KeySource;
pub use offline::{OfflineConfig, OfflineTokens};

use super::{Attestation, Attested, Attestor, Evidence, Refusal};

const NAME: &str = "kubernetes";
/// Longer tokens are not looked at; real ones have one to two kilobytes.
const MAX_TOKEN_BYTES: usize = 16 * 1_024;

/// An object that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its name.
    pub name: String,
    /// Its UID; empty where the token names none.
    pub uid: String,
}

/// Whom a token was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// The pod that the token is bound to.
    pub pod: Option<Bound>,
    /// The node on which that pod runs.
    pub node: Option<Bound>,
    /// The end of the token's life, unix seconds.
    pub expires: u64,
}

impl Holder {
    /// What registration entries can select by, as SPIRE names it.
    fn selectors(&self) -> Vec<String> {
        let mut selectors = vec![format!("k8s:ns:{}", self.namespace), format!("k8s:sa:{}", self.service_account)];
        if let Some(pod) = &self.pod {
            selectors.push(format!("k8s:pod-name:{}", pod.name));
            selectors.push(format!("k8s:pod-uid:{}", pod.uid));
        }
        selectors.extend(self.node.as_ref().map(|node| format!("k8s:node-name:{}", node.name)));
        selectors
    }
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewError {
    /// It is wrong, and stays wrong. A stable reason.
    Refused(&'static str),
    /// It cannot be judged now. A stable reason.
    Unavailable(&'static str),
}

/// The answer of a reviewer.
pub type Review<'a> = Pin<Box<dyn Future<Output = Result<Holder, ReviewError>> + Send + 'a>>;

/// Judges service account tokens.
pub trait TokenReviewer: Debug + Send + Sync {
    /// Judges one token at `now`, unix seconds. Implementations check signature, issuer, audience and dates, and must not log
    /// the token.
    fn review<'a>(&'a self, token: &'a str, now: u64) -> Review<'a>;
}

/// Attests by a service account token in the `authorization` header: the ID is `spiffe://<domain>/ns/<ns>/sa/<account>`.
#[derive(Debug)]
pub struct KubernetesTokens<R> {
    domain: TrustDomain,
    reviewer: R,
}

impl<R: TokenReviewer> KubernetesTokens<R> {
    /// Attests IDs of `domain`.
    #[must_use]
    pub fn new(domain: TrustDomain, reviewer: R) -> Self {
        Self { domain, reviewer }
    }

    async fn judge(&self, evidence: Evidence<'_>) -> Result<Option<Attested>, Refusal> {
        let Some(token) = evidence.bearer.filter(|bearer| is_jwt(bearer)) else { return Ok(None) };
        let refuse = |code| Refusal::Evidence { attestor: NAME, code };
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refuse("token-too-long"));
        }
        let holder = self.reviewer.review(token, evidence.now).await.map_err(|error| match error {
            ReviewError::Refused(code) => refuse(code),
            ReviewError::Unavailable(code) => Refusal::Later { attestor: NAME, code },
        })?;
        let id = SpiffeId::workload(&self.domain, &holder.namespace, &holder.service_account);
        let id = id.map_err(|_| refuse("token-subject"))?;
        Ok(Some(Attested { selectors: holder.selectors(), kubernetes: Some(holder), ..Attested::new(id, NAME) }))
    }
}

impl<R: TokenReviewer> Attestor for KubernetesTokens<R> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attest<'a>(&'a self, evidence: Evidence<'a>) -> Attestation<'a> {
        Box::pin(self.judge(evidence))
    }
}

/// Three parts, the first of which is a JSON object in base64: no other evidence looks like that.
fn is_jwt(token: &str) -> bool {
    token.starts_with("ey") && token.split('.').count() == 3
}
