//! An answer as JSON.

use palisade_authz::{Attribute, Outcome, ShadowResult};
use palisade_policies::json::Problem;
use serde_json::{Map, Value, json};

use super::json::error;
use crate::desk::Answer;
use crate::reason;

/// `{decision, context}`. Fields that have nothing to say are left out.
pub(super) fn decision(answer: &Answer) -> Value {
    let mut context = Map::new();
    context.insert("reason".into(), answer.reason.into());
    if let Some(evaluation) = &answer.evaluation {
        if evaluation.outcome != Outcome::Undecided {
            context.insert("phase".into(), evaluation.phase.as_str().into());
        }
        if let Some(policy) = &evaluation.policy {
            context.insert("policy".into(), policy.id().into());
        }
        let shadow: Map<String, Value> = [("allow", &evaluation.shadow.allow), ("deny", &evaluation.shadow.deny)]
            .into_iter()
            .filter_map(|(name, result)| Some((name.to_owned(), shadow(result.as_ref()?))))
            .collect();
        if !shadow.is_empty() {
            context.insert("shadow".into(), Value::Object(shadow));
        }
        context.insert("audited".into(), evaluation.audited.into());
        if let Some(response) = answer.response.as_ref().filter(|_| answer.http) {
            context.insert("status".into(), response.status.into());
        }
    }
    if !answer.missing.is_empty() {
        context.insert("missing".into(), answer.missing.iter().map(|one| field(*one)).collect());
    }
    if !answer.revision.is_empty() {
        context.insert("revision".into(), (*answer.revision).into());
    }
    json!({ "decision": answer.allowed, "context": context })
}

/// An evaluation that could not be read, inside a batch.
pub(super) fn unreadable(problem: &Problem) -> Value {
    json!({ "decision": false, "context": { "reason": reason::BAD_REQUEST, "error": error(problem, 400) } })
}

/// The same answer, with what made it one that no policy was asked about.
pub(super) fn with_error(mut decision: Value, status: u16, message: &str) -> Value {
    if let Some(context) = decision.get_mut("context").and_then(Value::as_object_mut) {
        context.insert("error".into(), json!({ "status": status, "message": message }));
    }
    decision
}

fn shadow(result: &ShadowResult) -> Value {
    let mut shown = Map::new();
    shown.insert("result".into(), result.as_str().into());
    if let Some(policy) = &result.policy {
        shown.insert("policy".into(), policy.id().into());
    }
    Value::Object(shown)
}

/// Where a caller writes an attribute.
fn field(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::SourcePrincipal => "subject.id",
        Attribute::SourceIp => "context.ip",
        Attribute::RemoteIp => "context.remoteIp",
        Attribute::DestinationIp => "resource.properties.ip",
        Attribute::DestinationPort => "resource.properties.port",
        Attribute::Sni => "context.sni",
        Attribute::Method => "action.name",
        Attribute::Path => "resource.properties.path",
        Attribute::Host => "resource.properties.host",
        Attribute::Scheme => "resource.properties.scheme",
        Attribute::Headers => "context.headers",
        Attribute::Claims => "subject.properties.claims",
        Attribute::Metadata => "context.metadata",
    }
}
