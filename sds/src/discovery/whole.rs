//! State of the world: each response holds everything asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_wire::SECRET_TYPE_URL;
use palisade_wire::envoy::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tonic::Status;

use super::rejection;
use super::stream::{Answer, Machine};
use crate::metrics::Metrics;
use crate::secrets::encoded::version_of;
use crate::secrets::view::is_trust;
use crate::secrets::{CERTIFICATE_NAME, ROOTS_NAME, Resource, View};

/// One subscriber.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    asked: Asked,
    node: String,
    /// Number of responses sent; the nonce of the last one.
    sent: u64,
    /// The last one that the client has answered.
    answered: u64,
    /// Version of the last one.
    version: String,
    /// A request that wants an answer even if the content is the same.
    owed: bool,
    /// Why the client did not take the bundles that it was sent.
    rejected: Option<Box<str>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Asked {
    /// The first request has not come yet.
    #[default]
    Nothing,
    /// It named nothing, which means everything.
    Everything,
    /// These names.
    Names(BTreeSet<String>),
}

impl Asked {
    /// Are there bundles among them? A response is taken or rejected as a whole.
    fn are_bundles(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Names(names) => names.iter().any(|name| is_trust(name)),
        }
    }
}

impl Machine for Subscription {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn hear(&mut self, request: DiscoveryRequest, metrics: &Metrics) -> Result<(), Status> {
        rejection::check_type(&request.type_url)?;
        if let Some(node) = request.node {
            self.node = node.id;
        }
        let answers_ours = request.response_nonce == self.sent.to_string();
        if self.sent > 0 && !request.response_nonce.is_empty() && !answers_ours {
            // About a response that a newer one has overtaken; the client will speak about that one next.
            return Ok(());
        }
        if self.sent > 0 && answers_ours {
            let first = std::mem::replace(&mut self.answered, self.sent) != self.sent;
            match request.error_detail {
                Some(error) if first => {
                    let names = request.resource_names.join(",");
                    self.rejected = Some(rejection::record(metrics, &self.node, &names, &error.message));
                }
                None if first || request.version_info == self.version => self.rejected = None,
                // About other names, or said before.
                _ => {}
            }
        }
        // Without a nonce it is no reply but a new question, and wants an answer whatever it had before.
        let question = self.sent == 0 || request.response_nonce.is_empty();
        self.subscribe(request.resource_names, question)
    }

    fn reply(&mut self, view: &View) -> Option<DiscoveryResponse> {
        let resources = self.resources(view);
        if resources.is_empty() {
            return None;
        }
        let version = version(&resources);
        if !self.owed && version == self.version {
            return None;
        }
        let secrets = resources.iter().map(|resource| resource.secret.clone()).collect();
        self.owed = false;
        self.sent += 1;
        self.version.clone_from(&version);
        Some(DiscoveryResponse {
            version_info: version,
            resources: secrets,
            type_url: SECRET_TYPE_URL.to_owned(),
            nonce: self.sent.to_string(),
            ..DiscoveryResponse::default()
        })
    }

    fn answer(&self) -> Answer<'_> {
        match &self.rejected {
            _ if self.answered != self.sent => Answer::Open,
            Some(why) if self.asked.are_bundles() => Answer::Rejected(why),
            _ => Answer::Taken,
        }
    }
}

impl Subscription {
    fn subscribe(&mut self, names: Vec<String>, question: bool) -> Result<(), Status> {
        let everything = names.is_empty() && matches!(self.asked, Asked::Nothing | Asked::Everything);
        let asked = if everything { Asked::Everything } else { Asked::Names(names.into_iter().collect()) };
        let news = asked != self.asked;
        if news && let Asked::Names(names) = &asked {
            rejection::check_names(&self.node, names.iter())?;
        }
        self.owed |= news || question;
        self.asked = asked;
        Ok(())
    }

    /// What was asked for and may be served; bundles first, for a new certificate may need them.
    fn resources(&self, view: &View) -> Vec<Arc<Resource>> {
        match &self.asked {
            Asked::Nothing => Vec::new(),
            Asked::Everything => {
                [ROOTS_NAME, CERTIFICATE_NAME].into_iter().filter_map(|name| view.resource(name)).collect()
            }
            Asked::Names(names) => {
                let (trust, rest): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| is_trust(name));
                trust.into_iter().chain(rest).filter_map(|name| view.resource(name)).collect()
            }
        }
    }
}

/// The version of a response: its resource's own, or a hash over all of them.
fn version(resources: &[Arc<Resource>]) -> String {
    if let [only] = resources {
        return only.version.clone();
    }
    let versions: Vec<&[u8]> = resources.iter().map(|resource| resource.version.as_bytes()).collect();
    version_of(&versions)
}

#[cfg(test)]
mod tests;
