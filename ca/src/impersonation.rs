//! Node agents: a proxy that serves all workloads of its node (Istio's ztunnel) asks for their certificates with its own token.
//!
//! That is the most that anybody here may ask, so every step is checked: the agent's account is in a list, its token is bound to
//! a pod and names the node, the identity asked for is of our own trust domain and of Istio's shape, and a workload of that
//! account runs on that node. Who runs where is for others to know: [`NodeWorkloads`].

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use palisade_identity::{SpiffeId, TrustDomain};

use crate::attest::Attested;
use crate::attest::kubernetes::{Bound, Holder};

/// Knows which workloads run on a node.
pub trait NodeWorkloads: Debug + Send + Sync {
    /// Whether a workload of this service account runs on `node`. `agent` is the pod that asks; whoever can see pods must check
    /// that it lives there under this UID.
    fn runs(&self, node: &Bound, agent: &Bound, namespace: &str, service_account: &str) -> bool;
}

/// Who may ask for certificates of others.
#[derive(Clone, Debug)]
pub struct Impersonation {
    accounts: BTreeSet<(String, String)>,
    workloads: Arc<dyn NodeWorkloads>,
}

impl Impersonation {
    /// Node agents are the pods of these accounts, namespace and name each.
    #[must_use]
    pub fn new(accounts: impl IntoIterator<Item = (String, String)>, workloads: Arc<dyn NodeWorkloads>) -> Self {
        Self { accounts: accounts.into_iter().collect(), workloads }
    }

    /// The ID wanted, if the caller may have certificates for it; else a stable reason.
    pub(crate) fn judge(
        &self,
        domain: &TrustDomain,
        caller: &Attested,
        wanted: &str,
    ) -> Result<SpiffeId, &'static str> {
        // A certificate of the agent does not say on which node it is: only its token does.
        let holder = caller.kubernetes.as_ref().ok_or("impersonation-without-token")?;
        if !self.is_agent(holder) {
            return Err("impersonation-not-trusted");
        }
        let agent = holder.pod.as_ref().filter(|pod| !pod.uid.is_empty()).ok_or("impersonation-without-pod")?;
        let node = holder.node.as_ref().ok_or("impersonation-without-node")?;
        let id = SpiffeId::parse(wanted).map_err(|_| "impersonation-not-an-id")?;
        if id.trust_domain() != *domain {
            return Err("impersonation-foreign-trust-domain");
        }
        let (namespace, account) = id.namespace_and_service_account().ok_or("impersonation-not-a-workload")?;
        if !self.workloads.runs(node, agent, namespace, account) {
            return Err("impersonation-not-on-node");
        }
        Ok(id)
    }

    fn is_agent(&self, holder: &Holder) -> bool {
        self.accounts.iter().any(|(namespace, name)| *namespace == holder.namespace && *name == holder.service_account)
    }
}
