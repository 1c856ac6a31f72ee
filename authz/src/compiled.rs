//! The immutable result of compilation, and the decision.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use palisade_policies::{AuthorizationPolicy, MeshConfig};

use crate::compiler::Compiler;
use crate::evaluation::{Evaluation, Outcome, Phase, PolicyRef, Shadow, ShadowResult};
use crate::index::{Index, Search};
use crate::permit::{Approval, Decision, Denial, Permit};
use crate::predicate::{Predicates, Slot, Tri};
use crate::program::{Clause, Rule, any};
use crate::request::{Known, Request, Semantics};

/// The policies of one workload, compiled for one evaluator.
pub struct CompiledSet {
    pub(crate) predicates: Predicates,
    /// Attributes by the number that clauses carry.
    pub(crate) slots: Arc<[Slot]>,
    pub(crate) headers: Box<[String]>,
    pub(crate) provider: Option<Arc<str>>,
    /// All rules: by stage, then by id, so that the first match of a stage is the one Envoy reports.
    pub(crate) policies: Box<[PolicyRef]>,
    /// Where the words of each rule begin.
    pub(crate) starts: Box<[u32]>,
    pub(crate) words: Box<[u32]>,
    pub(crate) stages: [Engine; Stage::COUNT],
    /// None for few rules.
    pub(crate) index: Option<Index>,
}

/// The rules of one action.
#[derive(Debug, Clone, Default)]
pub(crate) struct Engine {
    /// A policy of this action is attached, be it one that can never match.
    pub(crate) attached: bool,
    pub(crate) rules: Range<u32>,
}

/// What a matching rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// A CUSTOM policy whose provider cannot be asked.
    CustomDeny,
    CustomAsk,
    Audit,
    Deny,
    Allow,
    ShadowDeny,
    ShadowAllow,
}

impl Stage {
    pub(crate) const COUNT: usize = 7;
}

/// What one stage found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) result: Tri,
    /// The first rule that matches.
    pub(crate) rule: Option<u32>,
}

impl Match {
    pub(crate) const NONE: Self = Self { result: Tri::No, rule: None };
}

/// How rules are found for one request.
trait Find {
    /// What a stage finds.
    fn first(&mut self, stage: Stage) -> Match;
}

/// By the index; every attribute is known.
impl Find for Search<'_> {
    fn first(&mut self, stage: Stage) -> Match {
        self.find(stage)
    }
}

/// One after the other.
struct Walk<'a> {
    set: &'a CompiledSet,
    request: &'a Request<'a>,
    known: Known,
}

impl Find for Walk<'_> {
    fn first(&mut self, stage: Stage) -> Match {
        self.set.walk(stage, self.request, self.known)
    }
}

/// What CUSTOM policies ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Custom<'a> {
    /// None matches: go on.
    Pass,
    /// Ask this provider; if it allows, decide with its [`Approval`].
    Ask {
        /// The provider's name in the mesh configuration.
        provider: &'a str,
        /// The first matching rule in byte order of the ids.
        policy: &'a PolicyRef,
    },
    /// This rule matches and its provider cannot be asked: unknown, not one that authorizes, or one of several.
    Deny(&'a PolicyRef),
    /// An unknown attribute would decide. Never an answer of enforcement.
    Undecided,
}

impl CompiledSet {
    /// Compiles the policies that apply to one workload, in any order.
    ///
    /// A policy that slipped past validation is compiled as Istio would: a bad value drops an ALLOW rule and
    /// is left out of any other; an unknown condition key drops the rule.
    #[must_use]
    pub fn compile(policies: &[Arc<AuthorizationPolicy>], mesh: &MeshConfig, semantics: Semantics) -> Self {
        Compiler::new(semantics).compile(policies, mesh)
    }

    /// Lower-case names of the headers that some rule reads, sorted: what a record must keep to be replayed.
    #[must_use]
    pub fn headers_read(&self) -> &[String] {
        &self.headers
    }

    /// Whether no policy at all is attached, dry-run and AUDIT included.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.stages.iter().any(|stage| stage.attached)
    }

    /// Whether some CUSTOM policy is attached, so that [`Self::custom`] has to be asked first.
    #[must_use]
    pub fn has_custom(&self) -> bool {
        self.engine(Stage::CustomDeny).attached || self.engine(Stage::CustomAsk).attached
    }

    /// What the CUSTOM policies say, before request authentication: claims that the request has do not count here.
    #[must_use]
    pub fn custom(&self, request: &Request<'_>, known: Known) -> Custom<'_> {
        if !self.has_custom() {
            return Custom::Pass;
        }
        let (deny, ask) = self.find(&request.before_tokens(), known, |find| {
            (self.first(Stage::CustomDeny, find), self.first(Stage::CustomAsk, find))
        });
        match (deny.result, ask.result, self.policy(deny), self.policy(ask), &self.provider) {
            (Tri::Yes, _, Some(policy), _, _) => Custom::Deny(policy),
            (Tri::No, Tri::Yes, _, Some(policy), Some(provider)) => Custom::Ask { provider, policy },
            (Tri::No, Tri::No, ..) => Custom::Pass,
            _ => Custom::Undecided,
        }
    }

    /// Decides one request. Allocates nothing, takes no lock, does no I/O. A CUSTOM rule that matches denies: nobody
    /// has approved.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        self.decide_known(request, Known::ALL)
    }

    /// The same with attributes possibly unknown; undecided is a denial whose outcome says so.
    pub(crate) fn decide_known(&self, request: &Request<'_>, known: Known) -> Decision {
        decision(self.judge(request, known, None))
    }

    /// The phases behind CUSTOM alone, for a request as a provider left it.
    pub(crate) fn decide_past_custom(&self, request: &Request<'_>, known: Known) -> Decision {
        decision(self.find(request, known, |find| self.past_custom(find, None)))
    }

    /// The same for a request that a provider has allowed: CUSTOM rules that ask this provider no longer deny.
    pub fn decide_approved(&self, request: &Request<'_>, approval: &Approval) -> Decision {
        decision(self.judge(request, Known::ALL, Some(approval)))
    }

    /// Evaluates with attributes possibly unknown: the outcome is undecided where one of those would decide.
    ///
    /// A deny that is certain although the phase is not (a DENY rule may match, no ALLOW rule does) is given
    /// as phase `default` without a policy.
    #[must_use]
    pub fn evaluate(&self, request: &Request<'_>, known: Known) -> Evaluation {
        self.judge(request, known, None)
    }

    /// The same for a request that a provider has allowed.
    #[must_use]
    pub fn evaluate_approved(&self, request: &Request<'_>, known: Known, approval: &Approval) -> Evaluation {
        self.judge(request, known, Some(approval))
    }

    fn judge(&self, request: &Request<'_>, known: Known, approval: Option<&Approval>) -> Evaluation {
        let mut open = None;
        if self.has_custom() {
            let approved = approval.is_some_and(|approval| self.provider.as_deref() == Some(approval.provider()));
            let found = self.find(&request.before_tokens(), known, |find| self.unapproved(find, approved));
            match found.result {
                // Later phases are not reached, their dry-run and AUDIT policies neither.
                Tri::Yes => {
                    let policy = self.policy(found).cloned();
                    return Evaluation { policy, ..Evaluation::refused(Phase::Custom) };
                }
                Tri::Unknown => open = Some(Phase::Custom),
                Tri::No => {}
            }
        }
        self.find(request, known, |find| self.past_custom(find, open))
    }

    /// The CUSTOM rule that denies where nobody is asked; none where an earlier one may.
    fn unapproved(&self, find: &mut dyn Find, approved: bool) -> Match {
        let deny = self.first(Stage::CustomDeny, find);
        if deny.result == Tri::Yes || approved {
            return deny;
        }
        let ask = self.first(Stage::CustomAsk, find);
        Match { result: deny.result.max(ask.result), rule: ask.rule.filter(|_| deny.result == Tri::No) }
    }

    /// Lends `then` the fastest way to find rules. The search is large and stays where it is made.
    fn find<T>(&self, request: &Request<'_>, known: Known, then: impl FnOnce(&mut dyn Find) -> T) -> T {
        match &self.index {
            Some(index) if known == Known::ALL => then(&mut Search::new(self, index, request)),
            _ => then(&mut Walk { set: self, request, known }),
        }
    }

    fn first(&self, stage: Stage, find: &mut dyn Find) -> Match {
        if self.engine(stage).rules.is_empty() { Match::NONE } else { find.first(stage) }
    }

    fn past_custom(&self, find: &mut dyn Find, open: Option<Phase>) -> Evaluation {
        let audited = self.first(Stage::Audit, find).result == Tri::Yes;
        let (outcome, phase, found) = self.enforce(find, open);
        let shadow =
            Shadow { deny: self.shadow(Stage::ShadowDeny, find), allow: self.shadow(Stage::ShadowAllow, find) };
        Evaluation { outcome, phase, policy: self.policy(found).cloned(), shadow, audited }
    }

    fn enforce(&self, find: &mut dyn Find, mut open: Option<Phase>) -> (Outcome, Phase, Match) {
        let deny = self.first(Stage::Deny, find);
        match deny.result {
            // An earlier phase that is open can only deny as well: the outcome is certain, its phase not.
            Tri::Yes if open.is_some() => return (Outcome::Deny, Phase::Default, Match::NONE),
            Tri::Yes => return (Outcome::Deny, Phase::Deny, deny),
            Tri::Unknown => open = open.or(Some(Phase::Deny)),
            Tri::No => {}
        }
        let (result, phase, found) = if self.engine(Stage::Allow).attached {
            let found = self.first(Stage::Allow, find);
            (found.result, if found.result == Tri::No { Phase::Default } else { Phase::Allow }, found)
        } else {
            (Tri::Yes, Phase::Default, Match::NONE)
        };
        match (result, open) {
            (Tri::No, _) => (Outcome::Deny, Phase::Default, Match::NONE),
            (_, Some(open)) => (Outcome::Undecided, open, Match::NONE),
            (Tri::Unknown, None) => (Outcome::Undecided, phase, Match::NONE),
            (Tri::Yes, None) => (Outcome::Allow, phase, found),
        }
    }

    fn shadow(&self, stage: Stage, find: &mut dyn Find) -> Option<ShadowResult> {
        self.engine(stage).attached.then(|| {
            let found = self.first(stage, find);
            ShadowResult {
                allowed: (found.result == Tri::Yes) == (stage == Stage::ShadowAllow),
                policy: self.policy(found).cloned(),
                undecided: found.result == Tri::Unknown,
            }
        })
    }

    /// Tries the rules of a stage one after the other.
    fn walk(&self, stage: Stage, request: &Request<'_>, known: Known) -> Match {
        if known == Known::ALL {
            return self.walk_known(stage, request);
        }
        let mut result = Tri::No;
        for number in self.engine(stage).rules.clone() {
            let found = self.rule(number).map_or(Tri::No, |rule| self.test(&rule, request, known));
            if found == Tri::Yes {
                return Match { result: Tri::Yes, rule: Some(number) };
            }
            result = result.max(found);
        }
        Match { result, rule: None }
    }

    /// The same where every attribute is known. What the first predicates say is remembered: few rules have few.
    fn walk_known(&self, stage: Stage, request: &Request<'_>) -> Match {
        let (mut asked, mut held) = (0_u64, 0_u64);
        let mut predicate = |id: u32| {
            let bit = if id < u64::BITS { 1 << id } else { 0 };
            if asked & bit == 0 {
                asked |= bit;
                let holds = self.predicate_holds(id, request);
                held |= bit * u64::from(holds);
                return holds;
            }
            held & bit != 0
        };
        let mut holds = |clause: &Clause<'_>| clause.any.iter().any(|id| predicate(*id)) != clause.negated();
        let mut rules = self.engine(stage).rules.clone();
        let matching = rules.find(|number| self.rule(*number).is_some_and(|rule| rule.holds(&mut holds)));
        matching.map_or(Match::NONE, |number| Match { result: Tri::Yes, rule: Some(number) })
    }

    /// Whether a predicate holds, all attributes being known.
    pub(crate) fn predicate_holds(&self, id: u32, request: &Request<'_>) -> bool {
        self.predicates.get(id).is_some_and(|predicate| predicate.holds(request))
    }

    /// Whether a rule matches, its predicates tried one by one.
    pub(crate) fn test(&self, rule: &Rule<'_>, request: &Request<'_>, known: Known) -> Tri {
        rule.test(|clause| self.clause(clause, request, known))
    }

    /// Whether a clause holds.
    pub(crate) fn clause(&self, clause: &Clause<'_>, request: &Request<'_>, known: Known) -> Tri {
        let test = |id: &u32| self.predicates.get(*id).map_or(Tri::No, |predicate| predicate.test(request, known));
        let hit = any(clause.any.iter(), test);
        if clause.negated() { hit.not() } else { hit }
    }

    /// The rule of that number.
    pub(crate) fn rule(&self, number: u32) -> Option<Rule<'_>> {
        let start = self.starts.get(usize::try_from(number).ok()?)?;
        Rule::read(self.words.get(usize::try_from(*start).ok()?..)?)
    }

    pub(crate) fn engine(&self, stage: Stage) -> &Engine {
        static NONE: Engine = Engine { attached: false, rules: 0..0 };
        self.stages.get(stage as usize).unwrap_or(&NONE)
    }

    /// Whose rule it is.
    pub(crate) fn policy_of(&self, number: u32) -> Option<&PolicyRef> {
        self.policies.get(usize::try_from(number).ok()?)
    }

    fn policy(&self, found: Match) -> Option<&PolicyRef> {
        found.rule.and_then(|number| self.policy_of(number))
    }
}

fn decision(evaluation: Evaluation) -> Decision {
    match evaluation.outcome {
        Outcome::Allow => Decision::Allow(Permit::new(evaluation)),
        Outcome::Deny | Outcome::Undecided => Decision::Deny(Denial::new(evaluation)),
    }
}

impl fmt::Debug for CompiledSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledSet")
            .field("rules", &self.policies.len())
            .field("predicates", &self.predicates.len())
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}
