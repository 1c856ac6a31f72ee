//! What each phase found, and whether it was reached at all.

use palisade_authz::gate::Judgement;
use palisade_authz::{Explanation, Outcome, Phase, PolicyRef};
use serde::Serialize;

/// One phase.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseReport {
    /// `custom`, `authn`, `audit`, `deny`, `allow`, or of dry-run policies `shadow-deny`, `shadow-allow`.
    pub phase: &'static str,
    /// What became of it.
    pub state: State,
    /// Whether the decision fell here.
    pub decided: bool,
    /// How many rules it has.
    pub rules: usize,
    /// All rules that match, the one that is reported first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matched: Vec<Matched>,
    /// Where none matches: the rules that came nearest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<Nearest>,
    /// More about it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What became of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// No policy of its kind is attached.
    Unattached,
    /// A phase before it decided. What it would have found is still told.
    NotReached,
    /// A rule matches.
    Matched,
    /// No rule matches.
    Unmatched,
    /// An attribute that is not known would decide.
    Undecided,
    /// Of `authn`: no token was refused.
    Passed,
    /// Of `authn`: a token was refused.
    Refused,
}

/// A rule that matches.
#[derive(Debug, Clone, Serialize)]
pub struct Matched {
    /// Envoy's id.
    pub policy: String,
    /// File and line of the rule.
    pub at: String,
}

impl Matched {
    pub(super) fn of(policy: &PolicyRef) -> Self {
        Self { policy: policy.id().to_owned(), at: policy.origin().to_string() }
    }
}

/// A rule that does not match, or may not.
#[derive(Debug, Clone, Serialize)]
pub struct Nearest {
    /// Which one.
    #[serde(flatten)]
    pub rule: Matched,
    /// How many of its lists hold.
    pub held: usize,
    /// Those that do not.
    pub failed: Vec<Unmet>,
}

/// A list of a rule that does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct Unmet {
    /// Where it is written, within the rule.
    pub field: String,
    /// What it asks for.
    pub expected: String,
    /// What the request has.
    pub actual: String,
}

/// How far a request got: the place of the phase that ended it in the order of phases.
fn end(judgement: &Judgement) -> usize {
    let evaluation = judgement.evaluation();
    match (evaluation.phase, evaluation.outcome) {
        (Phase::Custom, Outcome::Deny) => 0,
        (Phase::Authn, _) => 1,
        (Phase::Deny, Outcome::Deny) => 3,
        _ => usize::MAX,
    }
}

/// The phases in their order. `authenticated` says whether tokens were looked at.
pub(super) fn of(explanation: &Explanation, judgement: &Judgement, authenticated: bool) -> Vec<PhaseReport> {
    let end = end(judgement);
    let evaluation = judgement.evaluation();
    let mut reports = Vec::new();
    for found in &explanation.phases {
        let order = match found.phase {
            "custom" => 0,
            "audit" => 2,
            "deny" => 3,
            "allow" => 4,
            // Dry-run policies sit in the filters of their action: a phase before those ends them, too.
            _ => 3,
        };
        if found.phase == "audit" {
            reports.push(authn(judgement, authenticated, end));
        }
        let state = match (found.attached, found.result) {
            (false, _) => State::Unattached,
            _ if order > end => State::NotReached,
            (_, Some(true)) => State::Matched,
            (_, Some(false)) => State::Unmatched,
            (_, None) => State::Undecided,
        };
        let by_default = found.phase == "allow" && evaluation.phase == Phase::Default && found.attached;
        let decided = found.phase == evaluation.phase.as_str() && evaluation.policy.is_some();
        let nearest = found.nearest.iter().map(|near| Nearest {
            rule: Matched::of(&near.policy),
            held: near.held,
            failed: near.failed.iter().map(unmet).collect(),
        });
        reports.push(PhaseReport {
            phase: found.phase,
            state,
            decided: decided || (by_default && order <= end),
            rules: found.rules,
            matched: found.matched.iter().map(Matched::of).collect(),
            nearest: nearest.collect(),
            note: (found.phase == "custom").then(|| custom(judgement, found.result)).flatten(),
        });
    }
    reports
}

fn unmet(failed: &palisade_authz::Failed) -> Unmet {
    Unmet { field: failed.field.clone(), expected: failed.expected.clone(), actual: failed.actual.clone() }
}

/// What the provider said.
fn custom(judgement: &Judgement, matched: Option<bool>) -> Option<String> {
    match judgement {
        Judgement::Forward { standing, .. } => standing.provider().map(|provider| format!("`{provider}` approved")),
        Judgement::Refuse { denial, response, .. } if denial.evaluation().phase == Phase::Custom => {
            (denial.evaluation().outcome == Outcome::Deny)
                .then(|| format!("{}, status {}", denial.reason(), response.status))
        }
        Judgement::Refuse { .. } => (matched == Some(true)).then(|| "the provider approved".to_owned()),
    }
}

fn authn(judgement: &Judgement, authenticated: bool, end: usize) -> PhaseReport {
    let (state, note) = match judgement {
        _ if !authenticated => (State::Unattached, Some("claims are taken as verified".to_owned())),
        _ if end == 0 => (State::NotReached, None),
        Judgement::Refuse { denial, response, .. } if end == 1 => {
            (State::Refused, Some(format!("{}, status {}", denial.reason(), response.status)))
        }
        Judgement::Refuse { claims, .. } => (State::Passed, Some(token(claims.is_some()))),
        Judgement::Forward { standing, .. } => (State::Passed, Some(token(standing.claims().is_some()))),
    };
    let decided = state == State::Refused;
    PhaseReport { phase: "authn", state, decided, rules: 0, matched: Vec::new(), nearest: Vec::new(), note }
}

fn token(verified: bool) -> String {
    if verified { "a token was verified".to_owned() } else { "no token was verified".to_owned() }
}
