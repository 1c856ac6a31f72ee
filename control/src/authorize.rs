//! Who may be whom: the one rule by which a caller speaks for a workload, for xDS and audit alike.
//!
//! The caller's SVID must be the ID that the WorkloadEntry grants: trust domain of the mesh, namespace of the entry, its
//! service account. Nothing that the caller says about itself counts, and its address least of all.

use std::fmt;

use palisade_identity::SpiffeId;
use palisade_wire::Caller;
use thiserror::Error;
use tonic::Status;

use crate::index::Index;

/// Longest namespace or name of a Kubernetes object (RFC 1123 subdomain).
const LONGEST_NAME: usize = 253;

/// `<namespace>/<workload>`: a proxy's node id, resource name, and its name as an enforcer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    text: String,
    slash: usize,
}

impl Node {
    /// Both parts present, not overlong, and of the characters that Kubernetes names have.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let named = |part: &str| {
            (1..=LONGEST_NAME).contains(&part.len())
                && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
        };
        match text.split_once('/') {
            Some((namespace, name)) if named(namespace) && named(name) => {
                Ok(Self { text: text.to_owned(), slash: namespace.len() })
            }
            _ => Err(Refusal::BadNode { given: text.chars().take(LONGEST_NAME).collect() }),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn namespace(&self) -> &str {
        self.text.get(..self.slash).unwrap_or_default()
    }

    pub(crate) fn workload(&self) -> &str {
        self.text.get(self.slash + 1..).unwrap_or_default()
    }
}

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// Why a caller may not speak for a workload.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No client certificate was presented.
    #[error("a client certificate is required: present the workload's SVID")]
    NoPeer,
    /// The name cannot be one.
    #[error("node id `{given}` is not `<namespace>/<workload>`")]
    BadNode {
        /// What was said, shortened.
        given: String,
    },
    /// Nothing to authorise by.
    #[error("the server has no valid configuration yet")]
    NoConfiguration,
    /// The caller's own namespace has no such WorkloadEntry.
    #[error(
        "no workload `{node}`: create a WorkloadEntry `{workload}` in namespace `{namespace}` whose serviceAccount is `{account}`"
    )]
    Unknown {
        /// What was asked for.
        node: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        workload: String,
        /// The caller's service account.
        account: String,
    },
    /// The caller is somebody else.
    #[error("`{peer}` may not speak for workload `{node}`")]
    Foreign {
        /// The caller's SPIFFE ID.
        peer: String,
        /// What was asked for.
        node: String,
    },
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::NoPeer => Self::unauthenticated(message),
            Refusal::BadNode { .. } => Self::invalid_argument(message),
            Refusal::NoConfiguration => Self::unavailable(message),
            Refusal::Unknown { .. } => Self::not_found(message),
            Refusal::Foreign { .. } => Self::permission_denied(message),
        }
    }
}

/// The caller's verified identity, if it may speak for `node` under this index.
pub(crate) fn authorize(index: Option<&Index>, caller: &Caller, node: &Node) -> Result<SpiffeId, Refusal> {
    let peer = caller.peer.as_ref().ok_or(Refusal::NoPeer)?.id();
    let index = index.ok_or(Refusal::NoConfiguration)?;
    match index.identity_of(node) {
        Some(granted) if granted == *peer => Ok(granted),
        // Only who lives in the namespace is told whether the workload exists.
        None if lives_in(index, peer, node.namespace()) => Err(Refusal::Unknown {
            node: node.to_string(),
            namespace: node.namespace().to_owned(),
            workload: node.workload().to_owned(),
            account: peer.namespace_and_service_account().map_or_else(String::new, |(_, account)| account.to_owned()),
        }),
        _ => Err(Refusal::Foreign { peer: peer.to_string(), node: node.to_string() }),
    }
}

fn lives_in(index: &Index, peer: &SpiffeId, namespace: &str) -> bool {
    let own = peer.namespace_and_service_account().is_some_and(|(own, _)| own == namespace);
    own && peer.trust_domain() == *index.trust_domain()
}

#[cfg(test)]
mod tests;
