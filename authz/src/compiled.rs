//! The immutable result of compilation, and the decision.
//!
//! Rules refer to interned predicates by number, in conjunctions of clauses: the shape an index needs. For
//! now every rule of a phase is tried in the order of its id until one matches.

use std::sync::Arc;

use palisade_policies::{AuthorizationPolicy, MeshConfig};

use crate::compile;
use crate::evaluation::{Evaluation, Outcome, Phase, PolicyRef, Shadow, ShadowResult};
use crate::permit::{Decision, Denial, Permit};
use crate::predicate::{Predicate, Tri};
use crate::request::{Known, Request, Semantics};

/// The policies of one workload, compiled for one evaluator.
pub struct CompiledSet {
    pub(crate) predicates: Box<[Predicate]>,
    pub(crate) headers: Box<[String]>,
    pub(crate) custom: Engine,
    pub(crate) audit: Engine,
    pub(crate) deny: Engine,
    pub(crate) allow: Engine,
    pub(crate) shadow_deny: Engine,
    pub(crate) shadow_allow: Engine,
}

/// All rules of one action.
#[derive(Default)]
pub(crate) struct Engine {
    /// A policy of this action is attached, be it one that can never match.
    pub(crate) attached: bool,
    /// Sorted by id, so that the first match is the one Envoy reports.
    pub(crate) rules: Vec<Rule>,
}

/// `when AND (any of from) AND (any of to)`; an empty list of alternatives imposes nothing.
pub(crate) struct Rule {
    pub(crate) policy: PolicyRef,
    pub(crate) when: Vec<Clause>,
    pub(crate) from: Vec<Vec<Clause>>,
    pub(crate) to: Vec<Vec<Clause>>,
}

/// Any of the predicates, or none of them.
pub(crate) struct Clause {
    pub(crate) negated: bool,
    pub(crate) any: Vec<PredicateId>,
}

/// Index into [`CompiledSet::predicates`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PredicateId(pub(crate) u32);

/// What one engine found.
struct Match<'a> {
    result: Tri,
    rule: Option<&'a PolicyRef>,
}

impl CompiledSet {
    /// Compiles the policies that apply to one workload, in any order.
    ///
    /// A policy that slipped past validation is compiled as Istio would: a bad value drops an ALLOW rule and
    /// is left out of any other; an unknown condition key drops the rule. CUSTOM policies have no provider to
    /// ask here, so what they match is denied.
    #[must_use]
    pub fn compile(policies: &[Arc<AuthorizationPolicy>], mesh: &MeshConfig, semantics: Semantics) -> Self {
        compile::compile(policies, mesh, semantics)
    }

    /// Lower-case names of the headers that some rule reads, sorted: what a record must keep to be replayed.
    #[must_use]
    pub fn headers_read(&self) -> &[String] {
        &self.headers
    }

    /// Whether no policy at all is attached, dry-run and AUDIT included.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.custom, &self.audit, &self.deny, &self.allow, &self.shadow_deny, &self.shadow_allow]
            .iter()
            .all(|engine| !engine.attached)
    }

    /// Decides one request. Allocates nothing, takes no lock, does no I/O.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let evaluation = self.evaluate(request, Known::ALL);
        match evaluation.outcome {
            Outcome::Allow => Decision::Allow(Permit::new(evaluation)),
            Outcome::Deny | Outcome::Undecided => Decision::Deny(Denial::new(evaluation)),
        }
    }

    /// Evaluates with attributes possibly unknown: the outcome is undecided where one of those would decide.
    ///
    /// A deny that is certain although the phase is not (a DENY rule may match, no ALLOW rule does) is given
    /// as phase `default` without a policy.
    #[must_use]
    pub fn evaluate(&self, request: &Request<'_>, known: Known) -> Evaluation {
        let audited = self.audit.attached && self.run(&self.audit, request, known).result == Tri::Yes;
        let (outcome, phase, policy) = self.enforce(request, known);
        let shadow = Shadow {
            deny: self.shadow_deny.attached.then(|| shadow(self.run(&self.shadow_deny, request, known), false)),
            allow: self.shadow_allow.attached.then(|| shadow(self.run(&self.shadow_allow, request, known), true)),
        };
        Evaluation { outcome, phase, policy: policy.cloned(), shadow, audited }
    }

    fn enforce(&self, request: &Request<'_>, known: Known) -> (Outcome, Phase, Option<&PolicyRef>) {
        let mut open = None;
        for (engine, phase) in [(&self.custom, Phase::Custom), (&self.deny, Phase::Deny)] {
            let found = self.run(engine, request, known);
            match found.result {
                // An earlier phase that is open can only deny as well: the outcome is certain, its phase not.
                Tri::Yes if open.is_some() => return (Outcome::Deny, Phase::Default, None),
                Tri::Yes => return (Outcome::Deny, phase, found.rule),
                Tri::Unknown => open = open.or(Some(phase)),
                Tri::No => {}
            }
        }
        let (result, phase, rule) = if self.allow.attached {
            let found = self.run(&self.allow, request, known);
            let phase = if found.result == Tri::No { Phase::Default } else { Phase::Allow };
            (found.result, phase, found.rule)
        } else {
            (Tri::Yes, Phase::Default, None)
        };
        match (result, open) {
            (Tri::No, _) => (Outcome::Deny, Phase::Default, None),
            (_, Some(open)) => (Outcome::Undecided, open, None),
            (Tri::Unknown, None) => (Outcome::Undecided, phase, None),
            (Tri::Yes, None) => (Outcome::Allow, phase, rule),
        }
    }

    fn run<'a>(&self, engine: &'a Engine, request: &Request<'_>, known: Known) -> Match<'a> {
        let mut result = Tri::No;
        for rule in &engine.rules {
            match self.rule(rule, request, known) {
                Tri::Yes => return Match { result: Tri::Yes, rule: Some(&rule.policy) },
                other => result = result.max(other),
            }
        }
        Match { result, rule: None }
    }

    fn rule(&self, rule: &Rule, request: &Request<'_>, known: Known) -> Tri {
        let mut result = self.all(&rule.when, request, known);
        for side in [&rule.to, &rule.from] {
            if result == Tri::No {
                return Tri::No;
            }
            if !side.is_empty() {
                let any = any(side, |alternative| self.all(alternative, request, known));
                result = result.min(any);
            }
        }
        result
    }

    fn all(&self, clauses: &[Clause], request: &Request<'_>, known: Known) -> Tri {
        let mut result = Tri::Yes;
        for clause in clauses {
            let hit = any(&clause.any, |id| self.predicate(*id, request, known));
            result = result.min(if clause.negated { hit.not() } else { hit });
            if result == Tri::No {
                break;
            }
        }
        result
    }

    fn predicate(&self, id: PredicateId, request: &Request<'_>, known: Known) -> Tri {
        usize::try_from(id.0)
            .ok()
            .and_then(|index| self.predicates.get(index))
            .map_or(Tri::No, |predicate| predicate.test(request, known))
    }
}

fn any<T>(items: &[T], mut test: impl FnMut(&T) -> Tri) -> Tri {
    let mut result = Tri::No;
    for item in items {
        result = result.max(test(item));
        if result == Tri::Yes {
            break;
        }
    }
    result
}

fn shadow(found: Match<'_>, match_allows: bool) -> ShadowResult {
    ShadowResult {
        allowed: (found.result == Tri::Yes) == match_allows,
        policy: found.rule.cloned(),
        undecided: found.result == Tri::Unknown,
    }
}

impl std::fmt::Debug for CompiledSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompiledSet")
            .field("predicates", &self.predicates.len())
            .field("deny", &self.deny.rules.len())
            .field("allow", &self.allow.rules.len())
            .finish_non_exhaustive()
    }
}
