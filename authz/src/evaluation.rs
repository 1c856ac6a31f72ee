//! What a decision says: outcome, the phase and rule that decided, and what dry-run policies would have said.

use std::fmt;
use std::sync::Arc;

use palisade_policies::{AuthorizationPolicy, Origin};

/// The answer of the evaluator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The request passes.
    Allow,
    /// The request is refused.
    Deny,
    /// An attribute that is not known would decide. Never an answer of enforcement.
    Undecided,
}

/// Where the decision fell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// A CUSTOM policy.
    Custom,
    /// Authentication of the request or of the peer.
    Authn,
    /// A DENY rule matched.
    Deny,
    /// An ALLOW rule matched.
    Allow,
    /// Nothing matched: allowed because no ALLOW policy is attached, or denied because one is.
    Default,
}

impl Phase {
    /// The stable name: `custom`, `authn`, `deny`, `allow`, `default`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Custom => "custom",
            Self::Authn => "authn",
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Default => "default",
        }
    }
}

/// One rule of one policy, cheap to clone.
#[derive(Clone)]
pub struct PolicyRef(Arc<Named>);

struct Named {
    id: Box<str>,
    policy: Arc<AuthorizationPolicy>,
    rule: u32,
}

impl PolicyRef {
    pub(crate) fn new(id: String, policy: &Arc<AuthorizationPolicy>, rule: u32) -> Self {
        Self(Arc::new(Named { id: id.into(), policy: Arc::clone(policy), rule }))
    }

    /// The policy as it was written.
    pub(crate) fn policy(&self) -> &AuthorizationPolicy {
        &self.0.policy
    }

    /// Envoy's key: `ns[<namespace>]-policy[<name>]-rule[<index>]`, of a CUSTOM policy with Istio's prefix
    /// `istio-ext-authz-<provider>-`, and `-deny-due-to-bad-CUSTOM-action` behind it where that cannot be asked.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Namespace of the policy.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.0.policy.meta.namespace
    }

    /// Name of the policy.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.policy.meta.name
    }

    /// Index of the rule, from 0.
    #[must_use]
    pub fn rule(&self) -> u32 {
        self.0.rule
    }

    /// File and line of the rule.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        let policy = self.policy();
        let rule = usize::try_from(self.0.rule).ok().and_then(|at| policy.rules.get(at));
        rule.map_or(&policy.meta.origin, |rule| &rule.origin)
    }
}

/// Ids name a rule uniquely within a set of policies.
impl PartialEq for PolicyRef {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for PolicyRef {}

impl fmt::Debug for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// What the dry-run policies of one action say, as Envoy reports it (`..._shadow_engine_result`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowResult {
    /// `allowed` or `denied` of that action's engine alone: DENY without a match says allowed, ALLOW without
    /// a match denied. Meaningless where `undecided`.
    pub allowed: bool,
    /// The first matching dry-run rule; `None` without one.
    pub policy: Option<PolicyRef>,
    /// An unknown attribute would decide. Never true in enforcement.
    pub undecided: bool,
}

impl ShadowResult {
    /// `allowed`, `denied` or `undecided`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match (self.undecided, self.allowed) {
            (true, _) => "undecided",
            (false, true) => "allowed",
            (false, false) => "denied",
        }
    }
}

/// Shadow results of the actions that have dry-run policies attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shadow {
    /// Of dry-run ALLOW policies.
    pub allow: Option<ShadowResult>,
    /// Of dry-run DENY policies.
    pub deny: Option<ShadowResult>,
}

/// One whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// Allow, deny, undecided.
    pub outcome: Outcome,
    /// Where it fell; of an undecided answer: the first phase that could not be decided.
    pub phase: Phase,
    /// The first matching rule in byte-lexicographic order of the ids; `None` where no rule decided.
    pub policy: Option<PolicyRef>,
    /// What dry-run policies would have said; they never change the outcome.
    pub shadow: Shadow,
    /// An AUDIT rule matched.
    pub audited: bool,
}

impl Evaluation {
    /// A refusal before any policy was asked.
    pub(crate) fn refused(phase: Phase) -> Self {
        Self { outcome: Outcome::Deny, phase, policy: None, shadow: Shadow::default(), audited: false }
    }

    /// The stable reason code of [`crate::reason`].
    #[must_use]
    pub fn reason(&self) -> &'static str {
        use crate::reason;
        match (self.phase, self.outcome) {
            (_, Outcome::Undecided) => reason::UNDECIDED,
            (Phase::Deny, _) => reason::DENY_MATCHED,
            (Phase::Allow, _) => reason::ALLOW_MATCHED,
            (Phase::Default, Outcome::Allow) => reason::NO_ALLOW_POLICY,
            (Phase::Default, _) => reason::NO_ALLOW_MATCHED,
            (Phase::Custom, _) => reason::NO_PROVIDER,
            (Phase::Authn, _) => reason::PEER_INVALID,
        }
    }
}
