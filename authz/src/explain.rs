//! Why a request was decided as it was: every phase in order, all rules that match, and where none does, those that
//! came nearest with what they miss.
//!
//! Tries every predicate of every rule, one by one, and allocates: for people, not for enforcement.

use std::cmp::Reverse;

use crate::compiled::{CompiledSet, Stage};
use crate::evaluation::PolicyRef;
use crate::predicate::{Slot, Tri};
use crate::program::{Clause, Clauses, Rule, all, any};
use crate::request::{Attribute, Known, Request};

mod actual;
mod written;

/// How many rules that nearly match are reported for one phase.
const NEAREST: usize = 5;

/// All phases of one decision, in the order in which they are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// `custom`, `audit`, `deny`, `allow`, `shadow-deny`, `shadow-allow`; all of them, attached or not.
    pub phases: Vec<PhaseReport>,
}

/// What one phase found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseReport {
    /// Its name: `custom`, `audit`, `deny`, `allow`, or of dry-run policies `shadow-deny`, `shadow-allow`.
    pub phase: &'static str,
    /// Whether a policy of this phase is attached, be it without rules.
    pub attached: bool,
    /// How many rules it has. Rules that were dropped while compiling do not count.
    pub rules: usize,
    /// Whether some rule matches; `None` where an unknown attribute would decide.
    pub result: Option<bool>,
    /// All rules that match, the one that is reported first.
    pub matched: Vec<PolicyRef>,
    /// Where none matches: the rules that came nearest, at most 5. Most clauses held first, then fewest failed, then by
    /// id.
    pub nearest: Vec<Near>,
}

/// A rule that does not match, or may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// Which rule.
    pub policy: PolicyRef,
    /// How many of its clauses hold. Of alternatives (`from`, `to`) the best one counts.
    pub held: usize,
    /// The clauses that do not hold.
    pub failed: Vec<Failed>,
}

/// A clause that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Where it is written, for example `to[0].operation.paths` or `when[1].notValues`.
    pub field: String,
    /// What it asks for, for example `` `/a` or `/b*` `` or ``none of `GET` ``; of a condition with its key.
    pub expected: String,
    /// The request's value in backticks, `(missing)`, `(unknown)`, or `(not shown)` for credentials.
    pub actual: String,
}

impl CompiledSet {
    /// Explains the decision about `request`: what each phase finds by itself, whether or not it is reached.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>, known: Known) -> Explanation {
        let bare = &request.before_tokens();
        let phases: [(_, &[Stage], _); 6] = [
            ("custom", &[Stage::CustomDeny, Stage::CustomAsk], bare),
            ("audit", &[Stage::Audit], request),
            ("deny", &[Stage::Deny], request),
            ("allow", &[Stage::Allow], request),
            ("shadow-deny", &[Stage::ShadowDeny], request),
            ("shadow-allow", &[Stage::ShadowAllow], request),
        ];
        let report = |(phase, stages, request)| self.report(phase, stages, request, known);
        Explanation { phases: phases.into_iter().map(report).collect() }
    }

    /// Which unknown attributes leave a phase open that decides (CUSTOM, DENY, ALLOW), each once, in no order: those of the
    /// clauses on which its rules hang. None where every phase is settled.
    #[must_use]
    pub fn undecided_by(&self, request: &Request<'_>, known: Known) -> Vec<Attribute> {
        let eye = Eye { set: self, request, known };
        let mut found = Vec::new();
        for stage in [Stage::CustomDeny, Stage::CustomAsk, Stage::Deny, Stage::Allow] {
            let rules = || self.engine(stage).rules.clone().filter_map(|number| self.rule(number));
            let open = |rule: &Rule<'_>| self.test(rule, request, known);
            if rules().any(|rule| open(&rule) == Tri::Yes) {
                continue;
            }
            rules().filter(|rule| open(rule) == Tri::Unknown).for_each(|rule| eye.unknown(&rule, &mut found));
        }
        found
    }

    fn report(&self, phase: &'static str, stages: &[Stage], request: &Request<'_>, known: Known) -> PhaseReport {
        let engines = stages.iter().map(|stage| self.engine(*stage));
        let numbers: Vec<u32> = engines.clone().flat_map(|engine| engine.rules.clone()).collect();
        let rules = || numbers.iter().filter_map(|number| Some((self.policy_of(*number)?, self.rule(*number)?)));
        let test = |rule: &Rule<'_>| self.test(rule, request, known);
        let result = rules().map(|(_, rule)| test(&rule)).max().unwrap_or(Tri::No);
        let matched: Vec<PolicyRef> =
            rules().filter(|(_, rule)| test(rule) == Tri::Yes).map(|(policy, _)| policy.clone()).collect();
        let eye = Eye { set: self, request, known };
        let nearest = if matched.is_empty() { eye.nearest(rules()) } else { Vec::new() };
        PhaseReport {
            phase,
            attached: engines.clone().any(|engine| engine.attached),
            rules: numbers.len(),
            result: match result {
                Tri::Yes => Some(true),
                Tri::No => Some(false),
                Tri::Unknown => None,
            },
            matched,
            nearest,
        }
    }
}

struct Eye<'a> {
    set: &'a CompiledSet,
    request: &'a Request<'a>,
    known: Known,
}

impl Eye<'_> {
    fn nearest<'r>(&self, rules: impl Iterator<Item = (&'r PolicyRef, Rule<'r>)>) -> Vec<Near> {
        let mut ranked: Vec<_> = rules.map(|(policy, rule)| (self.score(rule), policy, rule)).collect();
        // The sort is stable and the rules stand in the order of their ids.
        ranked.sort_by_key(|((held, failed), ..)| (Reverse(*held), *failed));
        ranked.truncate(NEAREST);
        let near = |((held, _), policy, rule): (_, &PolicyRef, Rule<'_>)| {
            let failed = chosen(rule, |clauses| self.count(clauses)).into_iter().flatten();
            let failed =
                failed.filter(|clause| !self.holds(clause)).map(|clause| self.failed(policy, &clause)).collect();
            Near { policy: policy.clone(), held, failed }
        };
        ranked.into_iter().map(near).collect()
    }

    /// Clauses held and failed, of alternatives the best.
    fn score(&self, rule: Rule<'_>) -> (usize, usize) {
        let counts = chosen(rule, |clauses| self.count(clauses)).into_iter().map(|clauses| self.count(clauses));
        counts.fold((0, 0), |(held, failed), (h, f)| (held + h, failed + f))
    }

    fn count(&self, clauses: Clauses<'_>) -> (usize, usize) {
        let held = clauses.filter(|clause| self.holds(clause)).count();
        (held, clauses.count() - held)
    }

    fn holds(&self, clause: &Clause<'_>) -> bool {
        self.set.clause(clause, self.request, self.known) == Tri::Yes
    }

    /// The unknown attributes of a rule that may match: of alternatives, those that may.
    fn unknown(&self, rule: &Rule<'_>, found: &mut Vec<Attribute>) {
        let test = |clause: &Clause<'_>| self.set.clause(clause, self.request, self.known);
        let conjunctions = std::iter::once(rule.when).chain(rule.sides.into_iter().flat_map(|side| {
            let open = any(side, |clauses| all(clauses, test)) == Tri::Unknown;
            side.filter(move |clauses| open && all(*clauses, test) == Tri::Unknown)
        }));
        for clause in conjunctions.flatten().filter(|clause| test(clause) == Tri::Unknown) {
            let slot = usize::try_from(clause.slot).ok().and_then(|slot| self.set.slots.get(slot));
            found.extend(slot.map(Slot::attribute).filter(|attribute| !found.contains(attribute)));
        }
    }

    fn failed(&self, policy: &PolicyRef, clause: &Clause<'_>) -> Failed {
        let (field, expected) = written::clause(policy, clause);
        let slot = usize::try_from(clause.slot).ok().and_then(|slot| self.set.slots.get(slot));
        let actual = slot.map_or_else(String::new, |slot| actual::value(slot, self.request, self.known));
        Failed { field, expected, actual }
    }
}

/// The conjunction of a rule, and of each side the alternative with the fewest failures, then the most clauses held.
fn chosen<'a>(rule: Rule<'a>, count: impl Fn(Clauses<'a>) -> (usize, usize)) -> Vec<Clauses<'a>> {
    let best = |side| {
        Iterator::min_by_key(side, |clauses: &Clauses<'a>| {
            let (held, failed) = count(*clauses);
            (failed, Reverse(held))
        })
    };
    std::iter::once(rule.when).chain(rule.sides.into_iter().filter_map(best)).collect()
}
