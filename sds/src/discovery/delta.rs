//! Delta: each response holds what the client does not have yet, and names what it has and may have no longer.
//!
//! Only a secret that is not meant for the client any more is removed; one that cannot be served now is kept by the client as long
//! as it is good. A name that the client never had anything of is not answered: an Envoy that waits with its listener for
//! the secret would take a removal for an answer, and begin without one.

use std::collections::BTreeMap;

use palisade_wire::SECRET_TYPE_URL;
use palisade_wire::envoy::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as DeltaResource,
};
use tonic::Status;

use super::rejection;
use super::stream::{Answer, Machine};
use crate::metrics::Metrics;
use crate::secrets::view::is_trust;
use crate::secrets::{CERTIFICATE_NAME, ROOTS_NAME, View};

/// One subscriber.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    wanted: BTreeMap<String, Wanted>,
    /// `*` is asked for, beside or instead of names.
    everything: bool,
    node: String,
    heard: bool,
    /// Number of responses sent; the nonce of the last one.
    sent: u64,
    /// The last one that the client has answered.
    answered: u64,
}

/// One name asked for.
#[derive(Debug, Default)]
struct Wanted {
    /// The version that the client has.
    held: Option<String>,
    /// By itself, and not only as a part of everything.
    named: bool,
    /// The last response with it, and why the client did not take that.
    nonce: u64,
    rejected: Option<Box<str>>,
}

/// What `*` stands for.
const EVERYTHING: [&str; 2] = [CERTIFICATE_NAME, ROOTS_NAME];

impl Machine for Subscription {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn hear(&mut self, request: DeltaDiscoveryRequest, metrics: &Metrics) -> Result<(), Status> {
        rejection::check_type(&request.type_url)?;
        if let Some(node) = &request.node {
            self.node.clone_from(&node.id);
        }
        if let Some(nonce) = request.response_nonce.parse().ok().filter(|nonce| (1..=self.sent).contains(nonce)) {
            self.answered = self.answered.max(nonce);
            self.note(nonce, request.error_detail.as_ref().map(|error| error.message.as_str()), metrics);
        }
        self.subscribe(request)
    }

    fn reply(&mut self, view: &View) -> Option<DeltaDiscoveryResponse> {
        let (mut resources, mut removed_resources) = (Vec::new(), Vec::new());
        let next = self.sent + 1;
        for (name, Wanted { held, nonce, .. }) in &mut self.wanted {
            let Some(resource) = view.resource(name) else {
                if held.is_some() && !view.is_meant(name) {
                    *held = None;
                    removed_resources.push(name.clone());
                }
                continue;
            };
            if held.as_ref() == Some(&resource.version) {
                continue;
            }
            *held = Some(resource.version.clone());
            *nonce = next;
            resources.push(DeltaResource {
                name: name.clone(),
                version: resource.version.clone(),
                resource: Some(resource.secret.clone()),
                ..DeltaResource::default()
            });
        }
        if resources.is_empty() && removed_resources.is_empty() {
            return None;
        }
        // Bundles first, for a new certificate may need them.
        resources.sort_by_key(|resource| !is_trust(&resource.name));
        self.sent = next;
        Some(DeltaDiscoveryResponse {
            resources,
            removed_resources,
            type_url: SECRET_TYPE_URL.to_owned(),
            nonce: self.sent.to_string(),
            ..DeltaDiscoveryResponse::default()
        })
    }

    fn answer(&self) -> Answer<'_> {
        if self.answered != self.sent {
            return Answer::Open;
        }
        let trust = self.wanted.iter().filter(|(name, _)| is_trust(name));
        trust.filter_map(|(_, wanted)| wanted.rejected.as_deref()).next().map_or(Answer::Taken, Answer::Rejected)
    }
}

impl Subscription {
    /// What the client says of a response counts for the names of which it was the last; of what was overtaken by another it counts
    /// for none.
    fn note(&mut self, nonce: u64, error: Option<&str>, metrics: &Metrics) {
        let concerned = || self.wanted.iter().filter(|(_, wanted)| wanted.nonce == nonce);
        let rejected = error.filter(|_| concerned().any(|(_, wanted)| wanted.rejected.is_none())).map(|error| {
            let names: Vec<&str> = concerned().map(|(name, _)| name.as_str()).collect();
            rejection::record(metrics, &self.node, &names.join(","), error)
        });
        for wanted in self.wanted.values_mut().filter(|wanted| wanted.nonce == nonce) {
            if error.is_none() || rejected.is_some() {
                wanted.rejected.clone_from(&rejected);
            }
        }
    }

    /// Names come and go in any message, replies included.
    fn subscribe(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let first = !std::mem::replace(&mut self.heard, true);
        let mut names = request.resource_names_subscribe;
        let everything = names.iter().any(|name| name == "*") || (first && names.is_empty());
        names.retain(|name| name != "*");
        rejection::check_names(&self.node, names.iter())?;
        for name in &request.resource_names_unsubscribe {
            self.unsubscribe(name);
        }
        // Asked for again means sent again: the client may have dropped it.
        for name in EVERYTHING.into_iter().filter(|_| everything) {
            self.wanted.entry(name.to_owned()).or_default().held = None;
        }
        self.everything |= everything;
        self.wanted.extend(names.into_iter().map(|name| (name, Wanted { named: true, ..Wanted::default() })));
        if self.wanted.len() > rejection::MAX_NAMES {
            return Err(Status::resource_exhausted("too many resource names on one stream"));
        }
        if first {
            for (name, version) in request.initial_resource_versions {
                if let Some(wanted) = self.wanted.get_mut(&name) {
                    wanted.held = Some(version);
                }
            }
        }
        Ok(())
    }

    /// Names outlive `*`, and `*` outlives names (xDS protocol, "Unsubscribing From Resources"). What is asked for by `*` alone is sent
    /// once more: the client does not know otherwise whether it is to keep it.
    fn unsubscribe(&mut self, name: &str) {
        if name == "*" {
            self.everything = false;
            self.wanted.retain(|_, wanted| wanted.named);
        } else if self.everything && EVERYTHING.contains(&name) {
            self.wanted.insert(name.to_owned(), Wanted::default());
        } else {
            self.wanted.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
