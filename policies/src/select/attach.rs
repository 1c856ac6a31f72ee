//! The attachment of one policy to one proxy. Source: Istio `ShouldAttachPolicy`, which AuthorizationPolicy and
//! RequestAuthentication share.

use super::Attachable;
use crate::{MeshConfig, Meta, Selector, TargetRef, Workload};

/// The GatewayClass of waypoints, by which a root policy concerns all of them.
const WAYPOINT_CLASS: &str = "istio-waypoint";

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const NETWORKING: &str = "networking.istio.io";

/// The role of the proxy whose policies are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment<'a> {
    /// A sidecar, or a gateway: one of the Gateway API, to which `targetRefs` can attach, where the workload has the label
    /// `gateway.networking.k8s.io/gateway-name`. Never a waypoint, whatever its labels say.
    Proxy,
    /// A waypoint that handles these services. The workload is the waypoint itself: its labels name its Gateway.
    /// Policies without `targetRefs` never apply to it, mesh-wide ones included.
    Waypoint {
        /// The services whose traffic is judged.
        services: &'a [Target<'a>],
    },
}

/// A service before which a waypoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target<'a> {
    /// Where it is defined.
    pub registry: Registry,
    /// Its namespace.
    pub namespace: &'a str,
    /// The name of the resource that defines it, not its host.
    pub name: &'a str,
}

/// Where a service is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Registry {
    /// A Kubernetes Service.
    Kubernetes,
    /// A ServiceEntry.
    ServiceEntry,
}

impl Attachment<'static> {
    /// What a dry-run takes it for, which knows nothing but labels. Whoever enforces knows what it is: a label must not take
    /// policies away from a sidecar.
    #[must_use]
    pub fn said_by(workload: &Workload) -> Self {
        if workload.says_waypoint() { Self::Waypoint { services: &[] } } else { Self::Proxy }
    }
}

impl Attachment<'_> {
    pub(super) fn takes<P: Attachable>(&self, policy: &P, mesh: &MeshConfig, workload: &Workload) -> bool {
        let refs = policy.target_refs();
        let of_gateway = |target: &TargetRef| {
            workload.gateway_name().is_some_and(|gateway| is_gateway(target, policy.meta(), gateway, workload))
        };
        let services = match self {
            Self::Waypoint { services } => services,
            Self::Proxy if refs.is_empty() => {
                return in_scope(policy.meta(), mesh, workload) && selects(policy.selector(), workload);
            }
            Self::Proxy => return refs.iter().any(of_gateway),
        };
        refs.iter().any(|target| {
            services.iter().any(|service| is_service(target, policy.meta(), service))
                || is_class(target, policy.meta(), mesh)
                || of_gateway(target)
        })
    }
}

/// Whether a policy stands in a namespace that is looked at for a workload.
pub(super) fn in_scope(meta: &Meta, mesh: &MeshConfig, workload: &Workload) -> bool {
    meta.namespace == workload.namespace || meta.namespace == mesh.root_namespace
}

/// Whether the selector's labels are on the workload; no selector takes every one.
pub(super) fn selects(selector: Option<&Selector>, workload: &Workload) -> bool {
    selector.is_none_or(|selector| selector.matches(&workload.labels))
}

fn is_gateway(target: &TargetRef, policy: &Meta, gateway: &str, workload: &Workload) -> bool {
    policy.namespace == workload.namespace
        && (target.group.as_str(), target.kind.as_str()) == (GATEWAY_API, "Gateway")
        && target.name == gateway
}

fn is_service(target: &TargetRef, policy: &Meta, service: &Target<'_>) -> bool {
    let kind = match service.registry {
        Registry::Kubernetes => ("", "Service"),
        Registry::ServiceEntry => (NETWORKING, "ServiceEntry"),
    };
    (target.group.as_str(), target.kind.as_str()) == kind
        && target.name == service.name
        && policy.namespace == service.namespace
}

fn is_class(target: &TargetRef, policy: &Meta, mesh: &MeshConfig) -> bool {
    policy.namespace == mesh.root_namespace
        && (target.group.as_str(), target.kind.as_str()) == (GATEWAY_API, "GatewayClass")
        && target.name == WAYPOINT_CLASS
}
