//! No permit, no request: the only way to a [`Permit`] is a decision, and the only use of one writes its record.

use std::sync::Arc;

use crate::evaluation::{Evaluation, Phase, PolicyRef};
use crate::record::{DecisionRecord, DecisionSink, RequestFacts, reason};

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

/// That a provider of CUSTOM policies allowed a request. Made where providers are asked, and nowhere else.
///
/// ```compile_fail,E0624
/// let forged = palisade_authz::Approval::new("ext".into());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    provider: Arc<str>,
}

impl Approval {
    pub(crate) const fn new(provider: Arc<str>) -> Self {
        Self { provider }
    }

    /// Who allowed it: the name in the mesh configuration.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }
}

/// A refusal. Like a [`Permit`] it cannot be recorded twice.
#[derive(Debug)]
#[must_use = "a denial that is not recorded leaves no trace"]
pub struct Denial {
    evaluation: Evaluation,
    reason: &'static str,
}

impl Denial {
    pub(crate) fn new(evaluation: Evaluation) -> Self {
        Self { reason: evaluation.reason(), evaluation }
    }

    /// A provider refused the request, or failed to answer: the CUSTOM rule that asked it is named. Reason
    /// [`reason::CUSTOM_DENIED`].
    pub fn by_provider(policy: &PolicyRef) -> Self {
        let evaluation = Evaluation { policy: Some(policy.clone()), ..Evaluation::refused(Phase::Custom) };
        Self { evaluation, reason: reason::CUSTOM_DENIED }
    }

    /// Request authentication refused the token; no policy was asked. Reason [`reason::TOKEN_INVALID`].
    pub fn by_authentication() -> Self {
        Self { evaluation: Evaluation::refused(Phase::Authn), reason: reason::TOKEN_INVALID }
    }

    /// The same with another reason of [`crate::reason`].
    pub fn with_reason(self, reason: &'static str) -> Self {
        Self { reason, ..self }
    }

    /// The stable code that the record will carry, one of [`crate::reason`].
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.reason
    }

    /// What was decided and why.
    #[must_use]
    pub const fn evaluation(&self) -> &Evaluation {
        &self.evaluation
    }

    /// Writes the one record of the refusal.
    pub fn record(self, sink: &dyn DecisionSink, facts: RequestFacts) {
        sink.record(DecisionRecord::decided(self.evaluation, self.reason, facts));
    }

    /// The same with another reason of [`crate::reason`]: an open connection closed because policy changed.
    pub fn record_as(self, reason: &'static str, sink: &dyn DecisionSink, facts: RequestFacts) {
        self.with_reason(reason).record(sink, facts);
    }
}

#[cfg(test)]
mod tests {
    use palisade_policies::{ExtAuthzGrpc, ExtensionProvider, MeshConfig, ProviderKind, SourceText, load};

    use super::*;
    use crate::{CompiledSet, Known, Outcome, Request, Semantics};

    fn mesh() -> MeshConfig {
        let kind = ProviderKind::ExtAuthzGrpc(ExtAuthzGrpc {
            service: "ext.foo".to_owned(),
            port: 9000,
            timeout: std::time::Duration::from_secs(1),
            fail_open: false,
            status_on_error: None,
            body: None,
            clear_route_cache: false,
        });
        let provider = ExtensionProvider { name: "ext".to_owned(), kind };
        MeshConfig { extension_providers: vec![provider], ..MeshConfig::default() }
    }

    fn set(action: &str) -> CompiledSet {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: c, namespace: foo}}\n\
             spec: {{action: CUSTOM, provider: {{name: ext}}, rules: [{{}}]}}\n---\n\
             apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: foo}}\n\
             spec: {{action: {action}, rules: [{{to: [{{operation: {{ports: ['80']}}}}]}}]}}\n"
        );
        let loaded = load(&[SourceText::new("p.yaml", text)], "default");
        CompiledSet::compile(&loaded.resources.authorization_policies, &mesh(), Semantics::Http)
    }

    #[test]
    fn only_the_approval_of_the_asked_provider_passes_custom() {
        let request = Request { destination: crate::Destination { ip: None, port: Some(80) }, ..Request::default() };
        let (approval, other) = (Approval::new("ext".into()), Approval::new("other".into()));
        assert_eq!(approval.provider(), "ext");
        let allow = set("ALLOW");
        assert!(allow.decide_approved(&request, &approval).is_allow());
        assert!(!allow.decide_approved(&request, &other).is_allow() && !allow.decide(&request).is_allow());
        let deny = set("DENY");
        let denied = deny.evaluate_approved(&request, Known::ALL, &approval);
        assert_eq!((denied.outcome, denied.phase), (Outcome::Deny, Phase::Deny), "an approval bypasses nothing");
        assert!(!deny.decide_past_custom(&request, Known::ALL).is_allow());
        assert!(allow.decide_past_custom(&request, Known::ALL).is_allow());
    }

    #[test]
    fn denials_by_others_carry_their_reason_and_no_shadow() {
        let set = set("ALLOW");
        let crate::Custom::Ask { policy, .. } = set.custom(&Request::default(), Known::ALL) else {
            panic!("not asked")
        };
        let denial = Denial::by_provider(policy);
        assert_eq!((denial.reason(), denial.evaluation().phase), ("custom-denied", Phase::Custom));
        assert_eq!(denial.evaluation().policy.as_ref(), Some(policy));
        let denial = Denial::by_authentication();
        assert_eq!((denial.reason(), denial.evaluation().phase), ("token-invalid", Phase::Authn));
        assert!(!denial.evaluation().audited && denial.evaluation().policy.is_none());
        assert_eq!(denial.with_reason(reason::TOKEN_AUDIENCE).reason(), "token-audience");
    }
}
