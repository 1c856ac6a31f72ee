//! What each proxy gets, derived from one good configuration.
//!
//! A proxy gets the policies that can apply to it (root namespace and its own, as Istio searches them) and every workload and
//! service, because it may call any. The scope depends on the namespace alone, so that one snapshot serves all its proxies
//! and an edit in another namespace changes nobody else's revision.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use palisade_identity::{SpiffeId, TrustDomain};
use palisade_policies::Document;
use palisade_watch::{Configuration, Snapshot};
use palisade_wire::control;
use prost::Message;

use crate::authorize::Node;

/// One configuration, ready to be asked.
#[derive(Debug)]
pub(crate) struct Index {
    configuration: Arc<Configuration>,
    /// Namespace, then name, to the service account: every WorkloadEntry.
    workloads: BTreeMap<String, BTreeMap<String, String>>,
    /// One cell for each namespace with a workload; filled when its first proxy asks.
    snapshots: BTreeMap<String, OnceLock<Arc<Encoded>>>,
}

/// A snapshot as it goes over the wire.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) revision: String,
    /// `palisade.control.v1.Snapshot`, encoded.
    pub(crate) bytes: Vec<u8>,
}

impl Index {
    pub(crate) fn new(configuration: Arc<Configuration>) -> Self {
        let mut workloads: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for entry in &configuration.resources.workload_entries {
            let names = workloads.entry(entry.meta.namespace.clone()).or_default();
            names.insert(entry.meta.name.clone(), entry.service_account.clone());
        }
        let snapshots = workloads.keys().map(|namespace| (namespace.clone(), OnceLock::new())).collect();
        Self { configuration, workloads, snapshots }
    }

    /// Revision of the configuration this was made from.
    pub(crate) fn revision(&self) -> &str {
        &self.configuration.revision
    }

    /// The trust domain that workloads of this mesh have.
    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.configuration.mesh.trust_domain
    }

    /// The SPIFFE ID that the WorkloadEntry of `node` grants; `None` where there is no such entry, or where its service
    /// account cannot stand in an ID.
    pub(crate) fn identity_of(&self, node: &Node) -> Option<SpiffeId> {
        let account = self.workloads.get(node.namespace())?.get(node.workload())?;
        SpiffeId::workload(self.trust_domain(), node.namespace(), account).ok()
    }

    /// The snapshot of a workload's namespace; `None` where it has no workload.
    pub(crate) fn snapshot(&self, namespace: &str) -> Option<Arc<Encoded>> {
        let cell = self.snapshots.get(namespace)?;
        Some(cell.get_or_init(|| Arc::new(encode(self.scope(namespace)))).clone())
    }

    fn scope(&self, namespace: &str) -> Snapshot {
        let root = self.configuration.mesh.root_namespace.as_str();
        let in_scope = |document: &&Document| match document.kind {
            "WorkloadEntry" | "ServiceEntry" => true,
            // Whom the CA gives what is no business of a proxy.
            "RegistrationEntry" => false,
            _ => document.namespace == namespace || document.namespace == root,
        };
        let documents = self.configuration.documents.iter().filter(in_scope);
        Snapshot::new(documents.map(|document| document.text.clone()).collect(), self.configuration.mesh_text.clone())
    }
}

fn encode(snapshot: Snapshot) -> Encoded {
    let message = control::Snapshot {
        revision: snapshot.revision.clone(),
        documents: snapshot.documents.iter().map(document).collect(),
        mesh: snapshot.mesh.as_ref().map(document),
    };
    Encoded { revision: snapshot.revision, bytes: message.encode_to_vec() }
}

fn document(text: &palisade_policies::SourceText) -> control::Document {
    control::Document { file: text.file.to_string(), first_line: text.first_line, text: text.text.to_string() }
}

#[cfg(test)]
mod tests;
