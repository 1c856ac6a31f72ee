//! `envoy.service.auth.v3.Authorization`: a stock Envoy asks, and enforces the answer.
//!
//! Whatever goes wrong with a question is an answer too, a typed denial: a gRPC error would be an error of the service in
//! Envoy's eyes, and `failure_mode_allow` lets those pass.

mod attributes;
mod headers;
mod response;
mod value;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use palisade_policies::WorkloadEntry;
use palisade_wire::Caller;
use palisade_wire::envoy::envoy::service::auth::v3::authorization_server::Authorization;
use palisade_wire::envoy::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use tonic::{Request, Response, Status};

use crate::caller::{Callers, Standing};
use crate::desk::{Answer, Case, Desk, Refused};
use crate::metrics::Api;
use crate::question::Question;
use crate::reason;
use crate::source::PolicySnapshot;
use crate::workload::{Hints, WORKLOAD_KEY};
use attributes::Read;

/// The service.
pub(crate) struct Checks {
    pub(crate) desk: Arc<Desk>,
    pub(crate) callers: Arc<Callers>,
}

#[tonic::async_trait]
impl Authorization for Checks {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let began = Instant::now();
        let standing = Caller::of(&request).map_or(Standing::Unproven, |caller| self.callers.standing(caller));
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let of = attributes.request.as_ref().and_then(|request| request.http.as_ref());
        let (http, target) = (of.is_some(), of.map(|http| http.path.clone()));
        let answer = self.answer(attributes, &standing, began).await;
        Ok(Response::new(response::response(answer, target.as_deref(), http)))
    }
}

/// What names the workload, owned.
struct Named {
    name: Option<String>,
    principal: Option<String>,
    address: Option<IpAddr>,
}

impl Named {
    fn of(attributes: &AttributeContext) -> Self {
        let principal = attributes.destination.as_ref().map(|peer| peer.principal.clone());
        Self {
            name: attributes.context_extensions.get(WORKLOAD_KEY).cloned(),
            principal: principal.filter(|principal| !principal.is_empty()),
            address: attributes::destination(attributes).ok().flatten().map(|address| address.ip()),
        }
    }

    fn hints(&self) -> Hints<'_> {
        Hints { name: self.name.as_deref(), principal: self.principal.as_deref(), address: self.address }
    }
}

/// A refusal that is still to be recorded.
struct Refusal<'a> {
    reason: &'static str,
    status: u16,
    message: String,
    entry: Option<&'a WorkloadEntry>,
}

impl Checks {
    async fn answer(&self, attributes: AttributeContext, standing: &Standing, began: Instant) -> Answer {
        let snapshot = self.desk.snapshot();
        let named = Named::of(&attributes);
        let mode = snapshot.as_ref().map(|snapshot| snapshot.mesh().path_normalization).unwrap_or_default();
        let read = attributes::read(attributes, standing.is_proven(), mode, self.desk.now());
        let Some(snapshot) = snapshot else {
            let refusal = refusal(reason::NO_SNAPSHOT, "there is no configuration yet");
            return self.refuse(refusal, None, read.as_ref().ok(), began).await;
        };
        let found = named.hints().find(&snapshot);
        let read = match read {
            Ok(read) => read,
            Err(malformed) => {
                let (reason, status, message) = (malformed.reason, malformed.status, malformed.message);
                let refusal = Refusal { reason, status, message, entry: found.as_deref().ok() };
                return self.refuse(refusal, Some(&snapshot), None, began).await;
            }
        };
        let entry = match found {
            Ok(entry) => entry,
            Err(error) => {
                let refusal = refusal(error.reason(), error.to_string());
                return self.refuse(refusal, Some(&snapshot), Some(&read), began).await;
            }
        };
        if !standing.may_ask(&snapshot, &entry) {
            let message = format!("the caller's identity is neither trusted nor that of `{}`", entry.meta);
            let refusal = Refusal { entry: Some(&*entry), ..refusal(reason::CALLER_NOT_ALLOWED, message) };
            return self.refuse(refusal, Some(&snapshot), Some(&read), began).await;
        }
        let Read { question, unproven } = read;
        let case = Case { api: Api::ExtAuthz, snapshot: &snapshot, entry: &entry, question, unproven, began };
        self.desk.decide(case).await
    }

    async fn refuse(
        &self,
        refusal: Refusal<'_>,
        snapshot: Option<&Arc<PolicySnapshot>>,
        read: Option<&Read>,
        began: Instant,
    ) -> Answer {
        tracing::debug!(reason = refusal.reason, message = refusal.message, "a check is refused");
        let question: Option<&Question> = read.map(|read| &read.question);
        let refused = Refused {
            api: Api::ExtAuthz,
            reason: refusal.reason,
            status: refusal.status,
            revision: snapshot.map(|snapshot| snapshot.revision()),
            entry: refusal.entry,
            question,
            began,
        };
        self.desk.refuse(refused).await
    }
}

fn refusal(reason: &'static str, message: impl Into<String>) -> Refusal<'static> {
    Refusal { reason, status: 403, message: message.into(), entry: None }
}
