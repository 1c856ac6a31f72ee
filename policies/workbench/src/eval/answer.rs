//! The answer line; the order of the fields is part of the contract.

use palisade_authz::gate::Judgement;
use palisade_authz::{Evaluation, Outcome, Phase, PolicyRef, Semantics, ShadowResult};
use serde::Serialize;
use serde_json::Value;

use crate::input::Input;

#[derive(Serialize)]
pub(crate) struct Answer {
    id: Value,
    decision: &'static str,
    /// What the caller sees; absent without HTTP and where undecided.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    phase: &'static str,
    policy: Option<String>,
    shadow: Shadows,
    audited: bool,
    #[serde(skip)]
    outcome: Outcome,
}

#[derive(Default, Serialize)]
struct Shadows {
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Shadow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny: Option<Shadow>,
}

#[derive(Serialize)]
struct Shadow {
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
}

impl Answer {
    /// Of the policies' answer alone.
    pub(crate) fn new(input: &Input, evaluation: &Evaluation) -> Self {
        let status = if evaluation.outcome == Outcome::Allow { 200 } else { 403 };
        Self::with_status(input, evaluation, status)
    }

    /// Of a judgement; the status is the one that the caller would get, a provider's own included.
    pub(crate) fn of(input: &Input, judgement: &Judgement) -> Self {
        let status = match judgement {
            Judgement::Forward { .. } => 200,
            Judgement::Refuse { response, .. } => response.status,
        };
        Self::with_status(input, judgement.evaluation(), status)
    }

    fn with_status(input: &Input, evaluation: &Evaluation, status: u16) -> Self {
        let seen = input.semantics == Semantics::Http && evaluation.outcome != Outcome::Undecided;
        Self {
            id: input.id.clone(),
            decision: decision(evaluation.outcome),
            status: seen.then_some(status),
            phase: evaluation.phase.as_str(),
            policy: evaluation.policy.as_ref().map(id),
            shadow: Shadows {
                allow: evaluation.shadow.allow.as_ref().map(Shadow::from),
                deny: evaluation.shadow.deny.as_ref().map(Shadow::from),
            },
            audited: evaluation.audited,
            outcome: evaluation.outcome,
        }
    }

    /// A target that never reaches a policy: 400, or 404 for `OPTIONS *`.
    pub(crate) fn refused_by_the_codec(input: &Input, status: u16) -> Self {
        Self {
            id: input.id.clone(),
            decision: decision(Outcome::Deny),
            status: Some(status),
            phase: Phase::Default.as_str(),
            policy: None,
            shadow: Shadows::default(),
            audited: false,
            outcome: Outcome::Deny,
        }
    }

    pub(crate) const fn outcome(&self) -> Outcome {
        self.outcome
    }
}

impl From<&ShadowResult> for Shadow {
    fn from(result: &ShadowResult) -> Self {
        Self { result: result.as_str(), policy: result.policy.as_ref().map(id) }
    }
}

const fn decision(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allow => "allow",
        Outcome::Deny => "deny",
        Outcome::Undecided => "undecided",
    }
}

fn id(policy: &PolicyRef) -> String {
    policy.id().to_owned()
}
