//! Everything one decision needs, compiled, under one revision.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use palisade_authz::gate::Gate;
use palisade_authz::provider::Providers;
use palisade_authz::{JwksCache, recorded_headers};
use palisade_policies::registry::{Registry, ServiceRoute};
use palisade_policies::select;
use palisade_policies::{AppProtocol, Diagnostic, MeshConfig, MtlsMode, Resources, Severity, Workload};

use crate::control_client::RawSnapshot;
use crate::core::Core;
use crate::means::Means;

/// A compiled snapshot. A request sees exactly one.
pub struct ProxySnapshot {
    /// Names the content: the same on every machine.
    pub revision: Arc<str>,
    /// The mesh configuration.
    pub mesh: MeshConfig,
    /// Decides HTTP requests.
    pub(crate) http: Gate,
    /// Decides opaque connections.
    pub(crate) tcp: Gate,
    /// Fields that policies read and records may hold.
    pub(crate) recorded: Vec<String>,
    pub(crate) providers: Arc<Providers>,
    pub(crate) keys: Arc<JwksCache>,
    means: Arc<Means>,
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
    /// Checks and compiles `raw` for `workload`; `ports` are the application's ports whose modes are asked often. The
    /// providers it names are reached by `means`, which also begin to fetch the keys of its token rules.
    ///
    /// # Errors
    /// Every error of the documents and the mesh configuration. Nothing is left out silently: a policy that cannot be
    /// read refuses the whole snapshot.
    pub(crate) fn build(
        raw: &RawSnapshot,
        workload: &Workload,
        ports: &[u16],
        means: &Arc<Means>,
    ) -> Result<ProxySnapshot, BuildError> {
        let (documents, mesh) = (&raw.documents, raw.mesh.as_ref());
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
        let tokens = select::request_authentications(&resources, &mesh, workload);
        let gates = means.gates(&policies, &tokens, &mesh);
        let mode = |port: u16| select::mtls_mode(&resources, &mesh, workload, port).mode;
        Ok(ProxySnapshot {
            revision: raw.revision.as_str().into(),
            recorded: recorded_headers(gates.http.policies().headers_read(), &tokens),
            http: gates.http,
            tcp: gates.tcp,
            providers: gates.providers,
            keys: gates.keys,
            means: means.clone(),
            registry: Registry::new(resources.clone(), &mesh),
            modes: ports.iter().map(|port| (*port, mode(*port))).collect(),
            workload: workload.clone(),
            mesh,
            resources,
        })
    }

    /// That proxy uses this snapshot: what its providers are asked, they are asked by it.
    pub(crate) fn used_by(&self, core: &Arc<Core>) {
        self.means.dialler().serve(core);
    }

    /// How mTLS is demanded on that port of the application.
    #[must_use]
    pub fn mode(&self, port: u16) -> MtlsMode {
        let known = self.modes.get(&port).copied();
        known.unwrap_or_else(|| select::mtls_mode(&self.resources, &self.mesh, &self.workload, port).mode)
    }

    /// Whether what is decided of a request, or forwarded of it, hangs on its header fields.
    pub(crate) fn reads_headers(&self) -> bool {
        !self.http.is_plain() || !self.http.policies().headers_read().is_empty()
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
