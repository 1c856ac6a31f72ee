//! `policy explain`: why one request is decided as it is. Every phase in order, the rule that decided, or what the
//! nearest rules asked for and did not find; and which policies had no say at all.
//!
//! It asks the same gate as `policy eval` and lets the same compiled set explain itself, so that an explanation cannot
//! drift from the decision.

use std::sync::Arc;

use palisade_authz::gate::Judgement;
use palisade_authz::{EditedHeaders, Edits, HttpRequest, Known, NoHeaders, Outcome, Request, Semantics, normalize};
use palisade_policies::{Loaded, MeshConfig, Workload};
use serde::Serialize;
use serde_json::Value;

mod attachment;
mod modes;
mod phases;
mod text;

pub use attachment::{Policies, Policy};
pub use modes::Mtls;
pub use phases::{Matched, Nearest, PhaseReport, State, Unmet};

use crate::eval::Options;
use crate::eval::answer::Answer;
use crate::eval::court::{Court, Judged, Ruling};
use crate::input::{Input, InputError};
use crate::world::World;

/// One decision, explained. Serialises to what `-o json` prints.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// The answer of `policy eval` to the same request.
    pub answer: Value,
    /// The rule that decided, with its place; none where no rule did.
    pub decided_by: Option<Matched>,
    /// Why the request was refused, in the words of the record: `deny-matched`, `token-invalid` and the like; or the
    /// status that a proxy answers before any policy.
    pub reason: Option<String>,
    /// The request as the policies saw it.
    pub request: Seen,
    /// Whose policies were asked.
    pub workload: Called,
    /// The mTLS mode of the port; none where the request does not say its port.
    pub mtls: Option<Mtls>,
    /// The phases, in the order in which they are run.
    pub phases: Vec<PhaseReport>,
    /// Who had a say, and who had not.
    pub policies: Policies,
    #[serde(skip)]
    outcome: Outcome,
    #[serde(skip)]
    refused: usize,
}

/// What of a request is compared.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// `http`, `tcp` or `l4`.
    pub semantics: &'static str,
    /// Who calls; none in plaintext.
    pub principal: Option<String>,
    /// HTTP method.
    pub method: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// The path as it was sent, without its query, which may hold a token.
    pub raw_path: Option<String>,
    /// The path as `paths` compares it: normalised, without query.
    pub path: Option<String>,
}

/// The workload that is called.
#[derive(Debug, Clone, Serialize)]
pub struct Called {
    /// Its namespace.
    pub namespace: String,
    /// Its name, which selects nothing.
    pub name: String,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Explains the decision about one request, written as one JSON object.
///
/// # Errors
/// The request cannot be read; the line of the error counts within `request`.
pub async fn explain(
    loaded: &Loaded,
    mesh: &MeshConfig,
    options: Options,
    world: Arc<dyn World>,
    request: &str,
) -> Result<Explained, InputError> {
    let input = Input::parse(request, options.semantics).map_err(|problem| InputError::at(1, problem))?;
    let mut court = Court::new(Arc::new(loaded.resources.clone()), mesh.clone(), options.authenticate, world);
    let ruling = court.judge(&input).await;
    let mut explained = Explained {
        answer: Value::Null,
        decided_by: None,
        reason: None,
        request: seen(&input, None),
        workload: called(&input.workload),
        mtls: modes::of(&court, &input),
        phases: Vec::new(),
        policies: attachment::of(&court, &input, options.authenticate),
        outcome: Outcome::Deny,
        refused: loaded.refused,
    };
    match &ruling {
        Ruling::Codec(status) => {
            explained.answer = json(&Answer::refused_by_the_codec(&input, *status));
            explained.reason = Some(format!("such a head is answered with {status} before any policy is asked"));
        }
        Ruling::Judged(judged) => {
            let Judged { judgement, gate, target } = judged.as_ref();
            let evaluation = judgement.evaluation();
            explained.answer = json(&Answer::of(&input, judgement));
            explained.outcome = evaluation.outcome;
            explained.decided_by = evaluation.policy.as_ref().map(Matched::of);
            if let Judgement::Refuse { denial, .. } = judgement {
                explained.reason = Some(denial.reason().to_owned());
            }
            explained.request = seen(&input, target.as_deref());
            let authenticated = options.authenticate && input.semantics == Semantics::Http;
            let view = input.view(target.as_deref());
            let explanation =
                edited(view, judgement, authenticated, |request, known| gate.policies().explain(request, known));
            explained.phases = phases::of(&explanation, judgement, authenticated);
        }
    }
    Ok(explained)
}

impl Explained {
    /// 3 if a policy was refused, else 4 if the answer is undecided, 2 if it is deny, 0 if it is allow.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match (self.refused, self.outcome) {
            (1.., _) => 3,
            (0, Outcome::Undecided) => 4,
            (0, Outcome::Deny) => 2,
            (0, Outcome::Allow) => 0,
        }
    }

    /// One JSON object.
    ///
    /// # Errors
    /// Never for this type; the serialiser's signature has one.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        text::render(self)
    }
}

fn json(answer: &Answer) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}

fn seen(input: &Input, target: Option<&str>) -> Seen {
    let semantics = match input.semantics {
        Semantics::Http => "http",
        Semantics::Tcp => "tcp",
        Semantics::L4 => "l4",
    };
    let http = (input.semantics == Semantics::Http).then_some(&input.http);
    Seen {
        semantics,
        principal: input.principal.clone(),
        method: http.and_then(|http| http.method.clone()),
        host: http.and_then(|http| http.host.clone()),
        raw_path: http.and_then(|http| http.target.as_deref()).map(|raw| normalize::without_query(raw).to_owned()),
        path: target.map(|target| normalize::without_query(target).to_owned()),
    }
}

fn called(workload: &Workload) -> Called {
    let Workload { namespace, name, labels } = workload.clone();
    Called { namespace, name, labels }
}

/// Lends the request as the policies behind provider and token rules saw it. The CUSTOM phase saw it as it came, which
/// is the same wherever its rules read nothing that a provider changed.
fn edited<T>(
    (request, known): (Request<'_>, Known),
    judgement: &Judgement,
    authenticated: bool,
    then: impl FnOnce(&Request<'_>, Known) -> T,
) -> T {
    let (edits, verified) = match judgement {
        Judgement::Forward { edits, standing, .. } => (edits, standing.claims().map(Arc::as_ref)),
        Judgement::Refuse { edits, claims, .. } => (edits, claims.as_deref()),
    };
    let none = NoHeaders;
    let headers: EditedHeaders<'_> = edits.over(request.http.map_or(&none, |http| http.headers));
    let http = request.http.map(|http| over(http, edits, &headers));
    let claims = if authenticated { verified } else { request.claims };
    then(&Request { http, claims, ..request }, known)
}

fn over<'a>(http: HttpRequest<'a>, edits: &'a Edits, headers: &'a EditedHeaders<'a>) -> HttpRequest<'a> {
    HttpRequest {
        method: edits.method.as_deref().or(http.method),
        host: edits.host.as_deref().or(http.host),
        path: edits.target.as_deref().map_or(http.path, |target| Some(normalize::without_query(target))),
        raw_target: edits.target.as_deref().or(http.raw_target),
        headers,
        ..http
    }
}
