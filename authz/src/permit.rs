//! No permit, no request: the only way to a [`Permit`] is a decision, and the only use of one writes its record.

use crate::evaluation::Evaluation;
use crate::record::{DecisionRecord, DecisionSink, RequestFacts};

/// The outcome of [`crate::CompiledSet::decide`].
#[derive(Debug)]
#[must_use = "a decision must be obeyed and recorded"]
pub enum Decision {
    /// Forward, by spending the permit.
    Allow(Permit),
    /// Refuse, and record it.
    Deny(Denial),
}

impl Decision {
    /// What was decided and why.
    #[must_use]
    pub fn evaluation(&self) -> &Evaluation {
        match self {
            Self::Allow(permit) => permit.evaluation(),
            Self::Deny(denial) => denial.evaluation(),
        }
    }

    /// Whether the request passes.
    #[must_use]
    pub const fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// Leave to forward one request. Made by `decide` alone, cannot be copied, is spent exactly once.
///
/// ```compile_fail,E0423
/// # fn evaluation() -> palisade_authz::Evaluation { loop {} }
/// let forged = palisade_authz::Permit(evaluation());
/// ```
///
/// ```compile_fail,E0599
/// fn twice(permit: palisade_authz::Permit) -> (palisade_authz::Permit, palisade_authz::Permit) {
///     (permit.clone(), permit)
/// }
/// ```
///
/// ```compile_fail,E0382
/// # use palisade_authz::{DecisionSink, Permit, RequestFacts};
/// fn spent_twice(permit: Permit, sink: &dyn DecisionSink) {
///     permit.spend(sink, RequestFacts::default());
///     permit.spend(sink, RequestFacts::default());
/// }
/// ```
#[derive(Debug)]
#[must_use = "a permit that is not spent leaves no record"]
pub struct Permit(Evaluation);

impl Permit {
    pub(crate) const fn new(evaluation: Evaluation) -> Self {
        Self(evaluation)
    }

    /// What was decided and why.
    #[must_use]
    pub const fn evaluation(&self) -> &Evaluation {
        &self.0
    }

    /// Writes the one record of the request; call it when the outcome (status, duration) is known.
    pub fn spend(self, sink: &dyn DecisionSink, facts: RequestFacts) {
        let reason = self.0.reason();
        sink.record(DecisionRecord::decided(self.0, reason, facts));
    }
}

/// A refusal. Like a [`Permit`] it cannot be made elsewhere or recorded twice.
#[derive(Debug)]
#[must_use = "a denial that is not recorded leaves no trace"]
pub struct Denial(Evaluation);

impl Denial {
    pub(crate) const fn new(evaluation: Evaluation) -> Self {
        Self(evaluation)
    }

    /// What was decided and why.
    #[must_use]
    pub const fn evaluation(&self) -> &Evaluation {
        &self.0
    }

    /// Writes the one record of the refusal.
    pub fn record(self, sink: &dyn DecisionSink, facts: RequestFacts) {
        let reason = self.0.reason();
        self.record_as(reason, sink, facts);
    }

    /// The same with another reason of [`crate::reason`]: an open connection closed because policy changed.
    pub fn record_as(self, reason: &'static str, sink: &dyn DecisionSink, facts: RequestFacts) {
        sink.record(DecisionRecord::decided(self.0, reason, facts));
    }
}
