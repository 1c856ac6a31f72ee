//! Which policies concern a workload, as Istio decides it for sidecars, gateways, waypoints and ambient workloads.
//! Kept apart from the engine because a control plane, a proxy and an author's tool have to agree on the answer
//! before anything is compiled.

mod attach;

use std::sync::Arc;

use crate::{
    Action, AuthorizationPolicy, MeshConfig, Meta, MtlsMode, Origin, PeerAuthentication, RequestAuthentication,
    Resources, Selector, TargetRef, Workload,
};
pub use attach::{Attachment, Registry, Target};

/// The AuthorizationPolicies attached to the proxy before a workload: those of its own namespace and of the root
/// namespace whose selector matches (a root policy with a selector matches in every namespace). Policies with
/// `targetRefs` never apply to a sidecar. Sorted by namespace, then name, so that the same set always compiles to the
/// same thing. It is [`authorization_policies_at`] for [`Attachment::Proxy`].
///
/// Source: Istio `ListAuthorizationPolicies` and `ShouldAttachPolicy`.
#[must_use]
pub fn authorization_policies(
    resources: &Resources,
    mesh: &MeshConfig,
    workload: &Workload,
) -> Vec<Arc<AuthorizationPolicy>> {
    authorization_policies_at(resources, mesh, workload, &Attachment::Proxy)
}

/// The AuthorizationPolicies attached to what stands before a workload, or is one itself (a gateway, a waypoint).
#[must_use]
pub fn authorization_policies_at(
    resources: &Resources,
    mesh: &MeshConfig,
    workload: &Workload,
    attachment: &Attachment<'_>,
) -> Vec<Arc<AuthorizationPolicy>> {
    attached(&resources.authorization_policies, |policy| attachment.takes(policy.as_ref(), mesh, workload))
}

/// The RequestAuthentications attached to the proxy before a workload, by the same rules as
/// [`authorization_policies`]. All their rules count together; none overrides another.
#[must_use]
pub fn request_authentications(
    resources: &Resources,
    mesh: &MeshConfig,
    workload: &Workload,
) -> Vec<Arc<RequestAuthentication>> {
    request_authentications_at(resources, mesh, workload, &Attachment::Proxy)
}

/// The RequestAuthentications attached to what stands before a workload, or is one itself (a gateway, a waypoint).
#[must_use]
pub fn request_authentications_at(
    resources: &Resources,
    mesh: &MeshConfig,
    workload: &Workload,
    attachment: &Attachment<'_>,
) -> Vec<Arc<RequestAuthentication>> {
    attached(&resources.request_authentications, |policy| attachment.takes(policy.as_ref(), mesh, workload))
}

/// The AuthorizationPolicies that a ztunnel gets for a workload: ALLOW and DENY policies in force, without
/// `targetRefs`, of its own namespace and of the root namespace. One with labels applies where they match; one with a
/// selector but no labels (`selector: {}`) applies to nothing, although for a sidecar it applies to everything.
///
/// Source: Istio `convertAuthorizationPolicy` and `buildWorkloadPolicies`, with Istio's defaults (policies in a dry
/// run are withheld).
#[must_use]
pub fn ambient_authorization_policies(
    resources: &Resources,
    mesh: &MeshConfig,
    workload: &Workload,
) -> Vec<Arc<AuthorizationPolicy>> {
    attached(&resources.authorization_policies, |policy| {
        matches!(policy.action, Action::Allow | Action::Deny)
            && !policy.dry_run
            && ambient_attaches(policy, mesh, workload)
    })
}

/// Whether one policy concerns a workload that is what its labels say ([`Attachment::said_by`]).
#[must_use]
pub fn attaches(policy: &AuthorizationPolicy, mesh: &MeshConfig, workload: &Workload) -> bool {
    Attachment::said_by(workload).takes(policy, mesh, workload)
}

/// Whether one policy is among [`ambient_authorization_policies`], were it among the resources, in force, and of an
/// action that ztunnel knows.
#[must_use]
pub fn ambient_attaches(policy: &AuthorizationPolicy, mesh: &MeshConfig, workload: &Workload) -> bool {
    let selected = |selector: &Selector| !selector.is_empty() && selector.matches(&workload.labels);
    policy.target_refs.is_empty()
        && attach::in_scope(&policy.meta, mesh, workload)
        && policy.selector.as_ref().is_none_or(selected)
}

fn attached<P: Attachable>(policies: &[Arc<P>], takes: impl Fn(&Arc<P>) -> bool) -> Vec<Arc<P>> {
    let mut attached: Vec<_> = policies.iter().filter(|policy| takes(policy)).cloned().collect();
    attached.sort_by(|a, b| (&a.meta().namespace, &a.meta().name).cmp(&(&b.meta().namespace, &b.meta().name)));
    attached
}

/// What a policy says about the workloads that it concerns.
trait Attachable {
    fn meta(&self) -> &Meta;
    fn selector(&self) -> Option<&Selector>;
    fn target_refs(&self) -> &[TargetRef];
}

impl Attachable for AuthorizationPolicy {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }
    fn target_refs(&self) -> &[TargetRef] {
        &self.target_refs
    }
}

impl Attachable for RequestAuthentication {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn selector(&self) -> Option<&Selector> {
        self.selector.as_ref()
    }
    fn target_refs(&self) -> &[TargetRef] {
        &self.target_refs
    }
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
                (false, true, false) if attach::selects(policy.selector.as_ref(), workload) => &mut scopes.workload,
                _ => continue,
            };
            if slot.is_none_or(|oldest| policy.meta.age_key() < oldest.meta.age_key()) {
                *slot = Some(policy);
            }
        }
        scopes
    }
}
