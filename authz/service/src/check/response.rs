//! An answer as Envoy obeys it.

use palisade_authz::provider::ResponseEdits;
use palisade_authz::{Edits, Evaluation, Outcome, ShadowResult};
use palisade_wire::envoy::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use palisade_wire::envoy::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use palisade_wire::envoy::envoy::service::auth::v3::check_response::HttpResponse;
use palisade_wire::envoy::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use palisade_wire::envoy::envoy::r#type::v3::HttpStatus;
use palisade_wire::envoy::google::protobuf::value::Kind;
use palisade_wire::envoy::google::protobuf::{BoolValue, Struct, Value};
use palisade_wire::envoy::google::rpc::Status;

use super::value::{field, text, texts};
use crate::desk::Answer;
use crate::words::attribute;

/// `google.rpc.Code`.
const PERMISSION_DENIED: i32 = 7;
const UNAUTHENTICATED: i32 = 16;

/// The response to one check. `target` is the request's path and query as Envoy has them; `http` says whether there is HTTP.
pub(super) fn response(answer: Answer, target: Option<&str>, http: bool) -> CheckResponse {
    let dynamic_metadata = Some(metadata(&answer));
    let (code, http_response) = match answer.response {
        None => (0, http.then(|| HttpResponse::OkResponse(ok(&answer.edits, &answer.response_headers, target)))),
        Some(response) => {
            let code = if response.status == 401 { UNAUTHENTICATED } else { PERMISSION_DENIED };
            let headers = response.headers.iter().map(|(name, value)| option(name, value, Action::Set)).collect();
            let denied = DeniedHttpResponse {
                status: Some(HttpStatus { code: i32::from(response.status) }),
                headers,
                body: String::from_utf8_lossy(&response.body).into_owned(),
            };
            (code, http.then_some(HttpResponse::DeniedResponse(denied)))
        }
    };
    let status = Status { code, message: answer.reason.to_owned(), details: Vec::new() };
    CheckResponse { status: Some(status), dynamic_metadata, http_response }
}

/// Envoy applies additions before removals, so a field that is set is never also removed. Nothing is appended here: the
/// edits are those of [`crate::forwarded`].
fn ok(edits: &Edits, response: &ResponseEdits, target: Option<&str>) -> OkHttpResponse {
    let mut headers = Vec::new();
    for (name, value) in &edits.set {
        headers.push(option(name, value, Action::Set));
    }
    let set = |name: &String| headers.iter().any(|held| is_of(held, name));
    let headers_to_remove = edits.remove.iter().filter(|name| !set(name)).cloned().collect();
    let mut query_parameters_to_remove = Vec::new();
    if let Some(edited) = &edits.target {
        match target.and_then(|target| removed_parameters(target, edited)) {
            Some(names) => query_parameters_to_remove = names,
            None => headers.push(option(":path", edited.as_bytes(), Action::Set)),
        }
    }
    let pseudo = [(":method", &edits.method), (":authority", &edits.host)];
    headers.extend(
        pseudo.into_iter().filter_map(|(name, value)| Some(option(name, value.as_deref()?.as_bytes(), Action::Set))),
    );
    OkHttpResponse {
        headers,
        headers_to_remove,
        response_headers_to_add: downstream(response),
        query_parameters_to_remove,
        ..OkHttpResponse::default()
    }
}

/// The parameters whose removal leads from one target to the other; `None` if something else changed as well.
fn removed_parameters(from: &str, to: &str) -> Option<Vec<String>> {
    let ((path, query), (edited_path, edited)) = (split(from), split(to));
    let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).to_owned();
    let kept: Vec<&str> = edited.split('&').filter(|pair| !pair.is_empty()).collect();
    let mut gone: Vec<String> =
        query.split('&').filter(|pair| !pair.is_empty() && !kept.contains(pair)).map(name).collect();
    gone.dedup();
    // Envoy compares names as they stand between the separators.
    let rest: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !gone.contains(&name(pair))).collect();
    (path == edited_path && rest == kept && !gone.is_empty()).then_some(gone)
}

fn split(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Set,
    Append,
    IfAbsent,
    IfPresent,
}

/// `append` is what older Envoys read, `append_action` what newer ones do.
#[expect(deprecated, reason = "older Envoys know only `append`")]
fn option(name: &str, value: &[u8], action: Action) -> HeaderValueOption {
    let (value, raw_value) = match std::str::from_utf8(value) {
        Ok(text) => (text.to_owned(), Vec::new()),
        Err(_) => (String::new(), value.to_vec()),
    };
    let append_action = match action {
        Action::Set => HeaderAppendAction::OverwriteIfExistsOrAdd,
        Action::Append => HeaderAppendAction::AppendIfExistsOrAdd,
        Action::IfAbsent => HeaderAppendAction::AddIfAbsent,
        Action::IfPresent => HeaderAppendAction::OverwriteIfExists,
    };
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value, raw_value }),
        append: (action == Action::Set).then_some(BoolValue { value: false }),
        append_action: append_action.into(),
        keep_empty_value: false,
    }
}

fn is_of(held: &HeaderValueOption, name: &str) -> bool {
    held.header.as_ref().is_some_and(|header| header.key == name)
}

/// What a provider wants on the response: how each field is put follows from what it does where the response has the field
/// and where it has not.
fn downstream(edits: &ResponseEdits) -> Vec<HeaderValueOption> {
    let (absent, present) = (edits.resolve(&|_| false), edits.resolve(&|_| true));
    let mut options: Vec<HeaderValueOption> = present
        .add
        .iter()
        .map(|(name, value)| {
            let replaces = present.remove.contains(name);
            let action = match (replaces, absent.add.contains(&(*name, *value))) {
                (true, true) => Action::Set,
                (true, false) => Action::IfPresent,
                (false, _) => Action::Append,
            };
            option(name, value, action)
        })
        .collect();
    let only_absent = absent.add.iter().filter(|one| !present.add.contains(one));
    options.extend(only_absent.map(|(name, value)| option(name, value, Action::IfAbsent)));
    options
}

/// What later filters and access logs read: the names of Envoy's own RBAC filter, and ours.
fn metadata(answer: &Answer) -> Struct {
    let result = if answer.allowed { "allowed" } else { "denied" };
    let mut fields = vec![
        text("enforced_engine_result", result),
        text("palisade.reason", answer.reason),
        text("palisade.revision", &*answer.revision),
    ];
    if let Some(evaluation) = &answer.evaluation {
        evaluated(evaluation, &mut fields);
    }
    if !answer.missing.is_empty() {
        fields.push(texts("palisade.missing", answer.missing.iter().map(|one| attribute(*one))));
    }
    Struct { fields: fields.into_iter().collect() }
}

fn evaluated(evaluation: &Evaluation, fields: &mut Vec<(String, Value)>) {
    if let Some(policy) = &evaluation.policy {
        fields.push(text("enforced_effective_policy_id", policy.id()));
    }
    if evaluation.outcome != Outcome::Undecided {
        fields.push(text("palisade.phase", evaluation.phase.as_str()));
    }
    fields.push(field("palisade.audited", Kind::BoolValue(evaluation.audited)));
    for (name, shadow) in [("allow", &evaluation.shadow.allow), ("deny", &evaluation.shadow.deny)] {
        let Some(shadow) = shadow else { continue };
        let shadow: &ShadowResult = shadow;
        fields.push(text(format!("istio_dry_run_{name}_shadow_engine_result"), shadow.as_str()));
        if let Some(policy) = &shadow.policy {
            fields.push(text(format!("istio_dry_run_{name}_shadow_effective_policy_id"), policy.id()));
        }
    }
}

#[cfg(test)]
mod tests;
