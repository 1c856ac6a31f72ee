//! Everything one decision needs, compiled, under one revision.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use palisade_authz::{CompiledSet, Semantics};
use palisade_policies::registry::{Registry, ServiceRoute};
use palisade_policies::select;
use palisade_policies::{AppProtocol, Diagnostic, MeshConfig, MtlsMode, Resources, Severity, SourceText, Workload};

/// A compiled snapshot. A request sees exactly one.
pub struct ProxySnapshot {
    /// Names the content: the same on every machine.
    pub revision: Arc<str>,
    /// The mesh configuration.
    pub mesh: MeshConfig,
    /// Decides HTTP requests.
    pub http: CompiledSet,
    /// Decides opaque connections.
    pub tcp: CompiledSet,
    registry: Registry,
    resources: Arc<Resources>,
    workload: Workload,
    /// Modes of the ports that listeners have.
    modes: BTreeMap<u16, MtlsMode>,
}

impl fmt::Debug for ProxySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxySnapshot")
            .field("revision", &self.revision)
            .field("modes", &self.modes)
            .finish_non_exhaustive()
    }
}

/// Why a snapshot cannot be taken into use; the one in use stays.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct BuildError(pub Vec<Diagnostic>);

fn lines(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl ProxySnapshot {
    /// Checks and compiles `documents` for `workload`; `ports` are the application's ports whose modes are asked often.
    ///
    /// # Errors
    /// Every error of the documents and the mesh configuration. Nothing is left out silently: a policy that cannot be
    /// read refuses the whole snapshot.
    pub fn build(
        documents: &[SourceText],
        mesh: Option<&SourceText>,
        workload: &Workload,
        revision: &str,
        ports: &[u16],
    ) -> Result<ProxySnapshot, BuildError> {
        let (mesh, mut diagnostics) = mesh.map_or((Some(MeshConfig::default()), Vec::new()), MeshConfig::parse);
        let loaded = palisade_policies::load(documents, palisade_watch::DEFAULT_NAMESPACE);
        diagnostics.extend(loaded.diagnostics);
        diagnostics.retain(|one| one.severity == Severity::Error);
        let mesh = match mesh {
            Some(mesh) if diagnostics.is_empty() => mesh,
            _ => return Err(BuildError(diagnostics)),
        };
        let resources = Arc::new(loaded.resources);
        let policies = select::authorization_policies(&resources, &mesh, workload);
        let mode = |port: u16| select::mtls_mode(&resources, &mesh, workload, port).mode;
        Ok(ProxySnapshot {
            revision: revision.into(),
            http: CompiledSet::compile(&policies, &mesh, Semantics::Http),
            tcp: CompiledSet::compile(&policies, &mesh, Semantics::Tcp),
            registry: Registry::new(resources.clone(), &mesh),
            modes: ports.iter().map(|port| (*port, mode(*port))).collect(),
            workload: workload.clone(),
            mesh,
            resources,
        })
    }

    /// How mTLS is demanded on that port of the application.
    #[must_use]
    pub fn mode(&self, port: u16) -> MtlsMode {
        let known = self.modes.get(&port).copied();
        known.unwrap_or_else(|| select::mtls_mode(&self.resources, &self.mesh, &self.workload, port).mode)
    }

    /// What services and workloads there are.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What the services of this workload say is spoken on one of these ports of it (the application's, or the one the
    /// proxy listens on for it); none where no service leads there.
    #[must_use]
    pub fn protocol(&self, ports: &[u16]) -> Option<AppProtocol> {
        let leads_here = |route: &&Arc<ServiceRoute>| {
            let mut ours = route
                .endpoints
                .iter()
                .filter(|one| one.workload.0 == self.workload.namespace && one.workload.1 == self.workload.name);
            ours.any(|one| ports.contains(&one.address.port()))
        };
        self.registry.services().find(leads_here).map(|route| route.protocol)
    }

    /// The workload at that address, as a hint in records: never an identity. None where several share it.
    #[must_use]
    pub fn hint(&self, ip: std::net::IpAddr) -> Option<String> {
        match self.registry.workload_by_ip(ip) {
            [one] => Some(format!("{}/{}", one.meta.namespace, one.meta.name)),
            _ => None,
        }
    }
}
