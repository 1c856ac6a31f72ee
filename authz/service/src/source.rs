//! The policies this service decides by: one immutable snapshot at a time, handed in by whoever watches the configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use palisade_identity::{SpiffeId, TrustDomain};
use palisade_policies::registry::Registry;
use palisade_policies::{MeshConfig, Resources, Workload, WorkloadEntry};

/// Whoever keeps the policies. Asked once for each decision; must be cheap and must never block.
pub trait PolicySource: Send + Sync + 'static {
    /// What is in force; `None` before the first good configuration.
    fn current(&self) -> Option<Arc<PolicySnapshot>>;
}

/// Everything in force at one moment: resources, mesh configuration, and who is where.
#[derive(Debug)]
pub struct PolicySnapshot {
    revision: Arc<str>,
    resources: Arc<Resources>,
    mesh: MeshConfig,
    registry: Registry,
    /// Workloads by namespace and service account.
    by_account: BTreeMap<(String, String), Vec<Arc<WorkloadEntry>>>,
}

impl PolicySnapshot {
    /// A snapshot with its lookups; `revision` must change whenever the content does.
    #[must_use]
    pub fn new(revision: impl Into<Arc<str>>, resources: Arc<Resources>, mesh: MeshConfig) -> Self {
        let registry = Registry::new(Arc::clone(&resources), &mesh);
        let mut by_account = BTreeMap::<_, Vec<_>>::new();
        for entry in &resources.workload_entries {
            let key = (entry.meta.namespace.clone(), entry.service_account.clone());
            by_account.entry(key).or_default().push(Arc::clone(entry));
        }
        Self { revision: revision.into(), resources, mesh, registry, by_account }
    }

    /// Names this state of the configuration.
    #[must_use]
    pub fn revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// The resources.
    #[must_use]
    pub fn resources(&self) -> &Arc<Resources> {
        &self.resources
    }

    /// The mesh configuration.
    #[must_use]
    pub fn mesh(&self) -> &MeshConfig {
        &self.mesh
    }

    /// Services and workloads by name and address.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The workloads that have this identity; none for an ID of another trust domain.
    pub(crate) fn with_identity(&self, id: &SpiffeId) -> &[Arc<WorkloadEntry>] {
        let Some((namespace, account)) = id.namespace_and_service_account() else { return &[] };
        if id.trust_domain() != *self.trust_domain() {
            return &[];
        }
        self.by_account.get(&(namespace.to_owned(), account.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// The workloads at an address.
    pub(crate) fn at(&self, ip: IpAddr) -> &[Arc<WorkloadEntry>] {
        self.registry.workload_by_ip(ip)
    }

    /// The identity of a workload; `None` where its names cannot stand in one.
    pub(crate) fn identity_of(&self, entry: &WorkloadEntry) -> Option<SpiffeId> {
        SpiffeId::workload(self.trust_domain(), &entry.meta.namespace, &entry.service_account).ok()
    }

    fn trust_domain(&self) -> &TrustDomain {
        &self.mesh.trust_domain
    }
}

/// The facts by which policies are selected.
pub(crate) fn workload(entry: &WorkloadEntry) -> Workload {
    Workload { namespace: entry.meta.namespace.clone(), name: entry.meta.name.clone(), labels: entry.labels.clone() }
}
