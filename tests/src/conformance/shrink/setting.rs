//! Scenes with a plainer mesh and a plainer way in.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use palisade_policies::MeshConfig;

use super::text::without_one;
use crate::conformance::oracle::Question;
use crate::conformance::scene::{Door, Place, Reserved, Scene, Tls};
use crate::conformance::translate::{Chain, Identity};

/// The same scene without something that most meshes do not have.
pub(super) fn plainer(scene: &Scene) -> Vec<Scene> {
    let usual = MeshConfig::default();
    let mut scenes = Vec::new();
    let mut push = |changed: bool, change: &dyn Fn(&mut Scene)| {
        if changed {
            let mut scene = scene.clone();
            change(&mut scene);
            scenes.push(scene);
        }
    };
    let mesh = &scene.mesh;
    push(mesh.trust_domain != usual.trust_domain, &|scene| scene.mesh.trust_domain = usual.trust_domain.clone());
    for aliases in without_one(&mesh.trust_domain_aliases) {
        push(true, &|scene| scene.mesh.trust_domain_aliases.clone_from(&aliases));
    }
    let normal = usual.path_normalization;
    push(mesh.path_normalization != normal, &|scene| scene.mesh.path_normalization = normal);
    push(scene.trusted_hops.is_some(), &|scene| scene.trusted_hops = None);
    push(scene.door.tls != Tls::Plain, &|scene| {
        scene.door = Door { tls: Tls::Plain, identity: Identity::FilterState, place: scene.door.place.clone() };
    });
    if let Place::At(reserved) = &scene.door.place {
        let v6 = reserved.address.is_ipv6();
        push(true, &|scene| scene.door.place = Place::Proxied { v6 });
    }
    scenes
}

/// Makes the calls of a question fit its changed scene, so that they still have the attributes that they had.
pub(super) fn fit(question: &mut Question, before: &Scene) {
    let scene = &question.scene;
    let certified = scene.door.tls == Tls::Ended && scene.door.identity == Identity::Certificate;
    for call in &mut question.calls {
        if matches!(scene.door.place, Place::Proxied { .. }) && call.proxied.is_none() {
            call.proxied =
                before.destination(call).map(|destination| (SocketAddr::new(call.source, 4321), destination));
        }
        if scene.door.tls == Tls::Plain {
            call.sni = None;
        }
        if scene.chain == Chain::Http && !certified {
            for ask in &mut call.asks {
                ask.principal = ask.principal.take().or_else(|| call.principal.clone());
            }
        }
    }
}

/// The same question at an address of its own, since no two listeners have the same. The port changes with it in policies.
///
/// # Errors
/// When no address is left.
pub(super) fn elsewhere(question: &Question) -> Result<Question> {
    let mut question = question.clone();
    let Place::At(reserved) = &question.scene.door.place else { return Ok(question) };
    let (old, fresh) = (reserved.address, Arc::new(Reserved::on(reserved.address.ip())?));
    let (from, to) = (old.port().to_string(), fresh.address.port().to_string());
    let rename = |values: &mut Vec<String>| {
        for value in values.iter_mut().filter(|value| **value == from) {
            value.clone_from(&to);
        }
    };
    for policy in &mut question.scene.policies {
        for rule in &mut Arc::make_mut(policy).rules {
            rule.to.iter_mut().for_each(|to| [&mut to.ports, &mut to.not_ports].into_iter().for_each(rename));
            let conditions = rule.when.iter_mut().filter(|when| when.key == "destination.port");
            conditions.for_each(|when| [&mut when.values, &mut when.not_values].into_iter().for_each(rename));
        }
    }
    question.scene.door.place = Place::At(fresh);
    Ok(question)
}
