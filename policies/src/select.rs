//! Which policies concern a workload, as Istio's sidecars decide it. Kept apart from the engine because a control
//! plane, a proxy and an author's tool have to agree on the answer before anything is compiled.

use std::sync::Arc;

use crate::{AuthorizationPolicy, MeshConfig, MtlsMode, Origin, PeerAuthentication, Resources, Selector, Workload};

/// The AuthorizationPolicies attached to a workload: those of its own namespace and of the root namespace whose
/// selector matches (a root policy with a selector matches in every namespace). Policies with `targetRefs` never
/// apply to a sidecar. Sorted by namespace, then name, so that the same set always compiles to the same thing.
///
/// Source: Istio `ListAuthorizationPolicies` and `ShouldAttachPolicy`.
#[must_use]
pub fn authorization_policies(
    resources: &Resources,
    mesh: &MeshConfig,
    workload: &Workload,
) -> Vec<Arc<AuthorizationPolicy>> {
    let mut attached: Vec<_> = resources
        .authorization_policies
        .iter()
        .filter(|policy| {
            let namespace = &policy.meta.namespace;
            (*namespace == workload.namespace || *namespace == mesh.root_namespace)
                && policy.target_refs.is_empty()
                && selects(policy.selector.as_ref(), workload)
        })
        .cloned()
        .collect();
    attached.sort_by(|a, b| (&a.meta.namespace, &a.meta.name).cmp(&(&b.meta.namespace, &b.meta.name)));
    attached
}

/// What decided a port's mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeDecision {
    /// What the port accepts.
    pub mode: MtlsMode,
    /// Where the policy that decided is written; `None` if the default (PERMISSIVE) holds.
    pub origin: Option<Origin>,
    /// `namespace/name` of that policy.
    pub policy: Option<String>,
}

/// The mode of one port of a workload (the application's port, whatever the listener).
///
/// The oldest mesh policy, the oldest namespace policy and the oldest matching workload policy are each allowed to
/// override the one before; port settings are read from that one workload policy only, and an unset port takes the
/// mode that the three gave. A root-namespace policy with a selector is ignored, in the root namespace, too.
///
/// Source: Istio `ComposePeerAuthentication`.
#[must_use]
pub fn mtls_mode(resources: &Resources, mesh: &MeshConfig, workload: &Workload, port: u16) -> ModeDecision {
    let scopes = Scopes::find(resources, mesh, workload);
    let mut decided = ModeDecision { mode: MtlsMode::Permissive, origin: None, policy: None };
    for policy in [scopes.mesh, scopes.namespace, scopes.workload].into_iter().flatten() {
        if let Some(mode) = policy.mode {
            decided = decided_by(policy, mode);
        }
    }
    if let Some(policy) = scopes.workload
        && let Some(Some(mode)) = policy.port_level.get(&port)
    {
        decided = decided_by(policy, *mode);
    }
    decided
}

fn decided_by(policy: &PeerAuthentication, mode: MtlsMode) -> ModeDecision {
    ModeDecision { mode, origin: Some(policy.meta.origin.clone()), policy: Some(policy.meta.to_string()) }
}

/// The one policy of each scope that counts.
#[derive(Default)]
struct Scopes<'a> {
    mesh: Option<&'a PeerAuthentication>,
    namespace: Option<&'a PeerAuthentication>,
    workload: Option<&'a PeerAuthentication>,
}

impl<'a> Scopes<'a> {
    fn find(resources: &'a Resources, mesh: &MeshConfig, workload: &Workload) -> Self {
        let mut scopes = Self::default();
        for policy in &resources.peer_authentications {
            let in_root = policy.meta.namespace == mesh.root_namespace;
            let in_own = policy.meta.namespace == workload.namespace;
            let whole = policy.selector.as_ref().is_none_or(Selector::is_empty);
            let slot = match (in_root, in_own, whole) {
                (true, _, true) => &mut scopes.mesh,
                (false, true, true) => &mut scopes.namespace,
                (false, true, false) if selects(policy.selector.as_ref(), workload) => &mut scopes.workload,
                _ => continue,
            };
            if slot.is_none_or(|oldest| policy.meta.age_key() < oldest.meta.age_key()) {
                *slot = Some(policy);
            }
        }
        scopes
    }
}

fn selects(selector: Option<&Selector>, workload: &Workload) -> bool {
    selector.is_none_or(|selector| selector.matches(&workload.labels))
}
