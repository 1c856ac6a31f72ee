//! The service before which a waypoint stands: policies are attached to it by `targetRefs`.

use palisade_policies::json::{Fields, Problem};
use palisade_policies::select::{Registry, Target};
use palisade_policies::{AuthorizationPolicy, MeshConfig, RequestAuthentication, Resources, Workload, select};
use std::sync::Arc;

/// A service, as `targetRefs` name one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Service {
    registry: Registry,
    namespace: String,
    name: String,
}

impl Service {
    /// Reads `destination.service`, which only a waypoint has.
    pub(super) fn read(destination: &mut Fields, workload: &Workload) -> Result<Option<Self>, Problem> {
        let Some(mut service) = destination.object("service")? else { return Ok(None) };
        let missing = |name: &str| {
            Problem::new(format!("destination.service.{name}"), "missing", "name the service as policies refer to it")
        };
        let registry = match service.string("kind")?.as_deref() {
            None | Some("Service") => Registry::Kubernetes,
            Some("ServiceEntry") => Registry::ServiceEntry,
            Some(other) => {
                let message = format!("`{other}` is unknown");
                return Err(Problem::new("destination.service.kind", message, "write `Service` or `ServiceEntry`"));
            }
        };
        let namespace = service.string("namespace")?.ok_or_else(|| missing("namespace"))?;
        let name = service.string("name")?.ok_or_else(|| missing("name"))?;
        service.finish("kind, namespace, name")?;
        if !workload.says_waypoint() {
            return Err(Problem::new(
                "destination.service",
                "the labels are not those of a waypoint",
                "leave it out, or add the labels `gateway.networking.k8s.io/gateway-name` and \
                 `gateway.istio.io/managed: istio.io-mesh-controller`",
            ));
        }
        Ok(Some(Self { registry, namespace, name }))
    }

    fn target(&self) -> Target<'_> {
        Target { registry: self.registry, namespace: &self.namespace, name: &self.name }
    }
}

/// Calls `with` with what stands before a workload: a waypoint of a service, or what its labels say.
fn at<T>(workload: &Workload, service: Option<&Service>, with: impl FnOnce(&select::Attachment<'_>) -> T) -> T {
    match service {
        Some(service) => with(&select::Attachment::Waypoint { services: &[service.target()] }),
        None => with(&select::Attachment::said_by(workload)),
    }
}

/// The AuthorizationPolicies in force behind a proxy that reads HTTP and TCP.
pub(crate) fn policies(
    resources: &Resources,
    mesh: &MeshConfig,
    workload: &Workload,
    service: Option<&Service>,
) -> Vec<Arc<AuthorizationPolicy>> {
    at(workload, service, |attachment| select::authorization_policies_at(resources, mesh, workload, attachment))
}

/// The token rules in force there.
pub(crate) fn tokens(
    resources: &Resources,
    mesh: &MeshConfig,
    workload: &Workload,
    service: Option<&Service>,
) -> Vec<Arc<RequestAuthentication>> {
    at(workload, service, |attachment| select::request_authentications_at(resources, mesh, workload, attachment))
}
