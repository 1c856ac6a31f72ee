//! PeerAuthentications that do not set the mode they name.

use std::sync::Arc;

use palisade_authz::Semantics;
use palisade_policies::{MtlsMode, PeerAuthentication, Selector, Workload, select};
use serde_json::json;

use super::draft::Draft;
use super::scene::{Asked, Scene};
use super::{Example, Trap};

/// Traps of PeerAuthentications.
pub(super) fn find(scene: &Scene<'_>) -> Vec<Trap> {
    let mut traps = Vec::new();
    for (index, policy) in scene.resources.peer_authentications.iter().enumerate() {
        traps.extend(root_selector(scene, policy).or_else(|| shadowed(scene, index, policy)));
        traps.extend(lost_in_ambient(scene, policy));
    }
    traps
}

fn selector(policy: &PeerAuthentication) -> Option<&Selector> {
    policy.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// A plaintext request to a port, with its mode beside the decision.
fn example(scene: &Scene<'_>, code: &'static str, workload: &Workload, port: u16) -> Option<Example> {
    let mut draft = Draft::new(code, workload, scene.mesh.trust_domain.as_str(), Semantics::Http);
    draft.plaintext();
    draft.destination.port = port;
    let asked = Asked::of(&draft, scene.mesh)?;
    let mut decision = scene.answer(&asked, &scene.evaluate(&asked, None))?;
    let decided = select::mtls_mode(scene.resources, scene.mesh, workload, port);
    let mtls = json!({ "mode": decided.mode.as_str(), "policy": decided.policy });
    decision.as_object_mut()?.insert("mtls".to_owned(), mtls);
    Some(Example { request: draft.json()?, decision })
}

/// The modes that a policy names, with a port each: the policy's own on a port that it does not name.
fn named(policy: &PeerAuthentication) -> impl Iterator<Item = (u16, MtlsMode)> {
    let free = [8080, 8081].into_iter().find(|port| !policy.port_level.contains_key(port)).unwrap_or(1);
    let ports = policy.port_level.iter().filter_map(|(port, mode)| Some((*port, (*mode)?)));
    policy.mode.map(|mode| (free, mode)).into_iter().chain(ports)
}

/// The first mode that a policy names and a workload does not have.
fn unset(scene: &Scene<'_>, policy: &PeerAuthentication, workload: &Workload) -> Option<(u16, MtlsMode)> {
    let effective = |port| select::mtls_mode(scene.resources, scene.mesh, workload, port).mode;
    named(policy).find(|(port, mode)| effective(*port) != *mode)
}

fn trap(code: &'static str, policy: &PeerAuthentication, field: &str, message: String, example: Example) -> Trap {
    let resource = ("PeerAuthentication", policy.meta.namespace.clone(), policy.meta.name.clone());
    Trap { code, resource, field: field.to_owned(), message, example }
}

/// A policy of the root namespace with a selector: nobody reads it.
fn root_selector(scene: &Scene<'_>, policy: &PeerAuthentication) -> Option<Trap> {
    let selector = selector(policy).filter(|_| policy.meta.namespace == scene.mesh.root_namespace)?;
    let known = scene.workloads.iter().find(|workload| selector.matches(&workload.labels)).cloned();
    let made = || Workload {
        namespace: scene.home(&policy.meta.namespace),
        name: String::new(),
        labels: selector.labels().clone(),
    };
    let workload = known.unwrap_or_else(made);
    let (port, mode) = unset(scene, policy, &workload)?;
    let shown = example(scene, "PAL0736", &workload, port)?;
    let message = format!("it is ignored: port {port} is not {mode} for the workloads it selects");
    Some(trap("PAL0736", policy, "spec.selector", message, shown))
}

/// A policy for a workload that an older one of the same namespace has taken.
fn shadowed(scene: &Scene<'_>, index: usize, policy: &PeerAuthentication) -> Option<Trap> {
    let own = selector(policy)?;
    let others = scene.resources.peer_authentications.iter().enumerate().filter(|(at, other)| {
        *at != index && other.meta.namespace == policy.meta.namespace && selector(other).is_some()
    });
    for (_, other) in others {
        let Some(workload) = common(scene, policy, own, other) else { continue };
        let (port, mode) = unset(scene, policy, &workload)?;
        let decided = select::mtls_mode(scene.resources, scene.mesh, &workload, port);
        if decided.policy.as_deref() == Some(policy.meta.to_string().as_str()) {
            continue;
        }
        let shown = example(scene, "PAL0735", &workload, port)?;
        let message =
            format!("`{}` is older and decides alone: port {port} is {}, not {mode}", other.meta, decided.mode);
        return Some(trap("PAL0735", policy, "spec.selector", message, shown));
    }
    None
}

/// A workload that both select: a known one, or one with the labels of the narrower selector.
fn common(
    scene: &Scene<'_>,
    policy: &PeerAuthentication,
    own: &Selector,
    other: &Arc<PeerAuthentication>,
) -> Option<Workload> {
    let other = selector(other)?;
    let namespace = &policy.meta.namespace;
    let both = |workload: &&Workload| {
        workload.namespace == *namespace && own.matches(&workload.labels) && other.matches(&workload.labels)
    };
    let made = || {
        let narrower = [own, other].into_iter().find(|one| own.matches(one.labels()) && other.matches(one.labels()))?;
        let labels = narrower.labels().clone();
        Some(Workload { namespace: namespace.clone(), name: String::new(), labels })
    };
    scene.workloads.iter().find(both).cloned().or_else(made)
}

/// A PERMISSIVE workload with a STRICT port in a STRICT mesh: Istio has no rule for ztunnel then.
fn lost_in_ambient(scene: &Scene<'_>, policy: &PeerAuthentication) -> Option<Trap> {
    let own = selector(policy).filter(|_| policy.mode == Some(MtlsMode::Permissive))?;
    let (port, _) = policy.port_level.iter().find(|(_, mode)| **mode == Some(MtlsMode::Strict))?;
    let whole = |namespace: &str| {
        let all = scene.resources.peer_authentications.iter();
        all.filter(|one| one.meta.namespace == namespace && selector(one).is_none()).find_map(|one| one.mode)
    };
    let strict = whole(&scene.mesh.root_namespace) == Some(MtlsMode::Strict);
    if !strict || policy.meta.namespace == scene.mesh.root_namespace || whole(&policy.meta.namespace).is_some() {
        return None;
    }
    let known = scene.workloads.iter().find(|one| one.namespace == policy.meta.namespace && own.matches(&one.labels));
    let made = Workload { namespace: policy.meta.namespace.clone(), name: String::new(), labels: own.labels().clone() };
    let workload = known.cloned().unwrap_or(made);
    if select::mtls_mode(scene.resources, scene.mesh, &workload, *port).mode != MtlsMode::Strict {
        return None;
    }
    let shown = example(scene, "PAL0737", &workload, *port)?;
    let message = format!("in ambient mode Istio takes plaintext on port {port}; here it is STRICT");
    Some(trap("PAL0737", policy, "spec.portLevelMtls", message, shown))
}
