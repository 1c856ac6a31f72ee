//! Under which clause each rule is filed.
//!
//! A good clause has values that few rules share. Of those, clauses about attributes are preferred by which many other
//! rules can be filed, too: each such attribute costs every request a look-up.

use crate::predicate::{Interner, Slot};
use crate::program::{Clause, Clauses, Rule};

/// Values that so many rules share at most are good to file rules under.
const GOOD: u32 = 8;
/// Values that more rules share are not used.
const LIMIT: u32 = 32;

/// What [`plan`] finds.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Predicates and the rules filed under them.
    pub(super) filed: Vec<(u32, u32)>,
    /// Rules that are filed under none.
    pub(super) dense: Vec<u32>,
    /// Attributes of the predicates under which rules are filed.
    pub(super) slots: Vec<u32>,
}

impl Plan {
    pub(super) fn file(&mut self, clause: &Clause<'_>, rule: u32) {
        self.filed.extend(clause.any.iter().map(|id| (*id, rule)));
        self.add_slot(clause.slot);
    }

    pub(super) fn add_slot(&mut self, slot: u32) {
        if !self.slots.contains(&slot) {
            self.slots.push(slot);
        }
    }
}

/// How many rules name each predicate in a clause that is not negated.
struct Shares(Vec<u32>);

impl Shares {
    fn new(rules: &[Rule<'_>], predicates: usize) -> Self {
        let mut shares = vec![0; predicates];
        for clause in rules.iter().flat_map(|rule| rule.clauses()).filter(|clause| !clause.negated()) {
            for id in clause.any {
                let share: Option<&mut u32> = usize::try_from(*id).ok().and_then(|at| shares.get_mut(at));
                share.into_iter().for_each(|share| *share += 1);
            }
        }
        Self(shares)
    }

    fn of(&self, id: u32) -> u32 {
        usize::try_from(id).ok().and_then(|at| self.0.get(at)).copied().unwrap_or_default()
    }

    /// The rules that share the commonest value; `None` where rules cannot be filed under the clause.
    fn weight(&self, clause: &Clause<'_>) -> Option<u32> {
        (clause.found() && !clause.negated())
            .then(|| clause.any.iter().map(|id| self.of(*id)).max().unwrap_or_default())
    }

    /// The best clause of a conjunction, of those about `slot` where one is given.
    fn best<'a>(&self, clauses: Clauses<'a>, slot: Option<u32>) -> Option<(u32, Clause<'a>)> {
        let wanted = |clause: &Clause<'a>| slot.is_none_or(|slot| slot == clause.slot);
        let weighed = clauses.filter(wanted).filter_map(|clause| Some((self.weight(&clause)?, clause)));
        weighed.min_by_key(|(weight, _)| *weight)
    }
}

/// What one look-up of the attribute costs, relative to another.
const fn cost(slot: &Slot) -> u32 {
    match slot {
        Slot::Method | Slot::DestinationPort | Slot::SourceIp | Slot::RemoteIp | Slot::DestinationIp => 2,
        Slot::Principal | Slot::L4Principal | Slot::L4Namespace | Slot::L4ServiceAccount => 2,
        Slot::Host | Slot::Sni | Slot::TrustDomain | Slot::Namespace => 3,
        Slot::Path | Slot::ServiceAccount | Slot::Header(_) => 4,
        Slot::Claim(_) | Slot::RequestPrincipal | Slot::Metadata(_) => 6,
    }
}

pub(super) fn plan(rules: &[Rule<'_>], interner: &Interner) -> Plan {
    let shares = Shares::new(rules, interner.len());
    let mut plan = Plan::default();
    // Bit `n`: the rule has a good clause about slot `n`.
    let good = |rule: &Rule<'_>| {
        let clauses = rule.when.filter(|clause| shares.weight(clause).is_some_and(|weight| weight <= GOOD));
        clauses.fold(0_u64, |mask, clause| mask | 1_u64.checked_shl(clause.slot).unwrap_or_default())
    };
    let mut open: Vec<(u32, u64)> = (0..).zip(rules.iter().map(good)).collect();
    while let Some(slot) = commonest(&open, interner.slots()) {
        let bit = 1_u64.checked_shl(slot).unwrap_or_default();
        let (filed, others): (Vec<_>, Vec<_>) = open.into_iter().partition(|(_, mask)| mask & bit != 0);
        for (number, _) in filed {
            let rule = usize::try_from(number).ok().and_then(|at| rules.get(at));
            if let Some((_, clause)) = rule.and_then(|rule| shares.best(rule.when, Some(slot))) {
                plan.file(&clause, number);
            }
        }
        open = others;
    }
    for (number, _) in open {
        let rule = usize::try_from(number).ok().and_then(|at| rules.get(at));
        match rule.and_then(|rule| any_way(rule, &shares)) {
            Some(clauses) => clauses.iter().for_each(|clause| plan.file(clause, number)),
            None => plan.dense.push(number),
        }
    }
    plan.dense.sort_unstable();
    plan
}

/// The slot by which most rules can be filed, for its cost.
fn commonest(open: &[(u32, u64)], slots: &[Slot]) -> Option<u32> {
    let mut votes = [0_u32; 64];
    for (_, mask) in open.iter().filter(|(_, mask)| *mask != 0) {
        votes.iter_mut().zip(0..).for_each(|(votes, slot)| *votes += u32::from(mask >> slot & 1 == 1));
    }
    let worth = |votes: u32, slot: &Slot| u64::from(votes) * 64 / u64::from(cost(slot));
    let ranked = (0..).zip(votes).zip(slots).map(|((number, votes), slot)| (worth(votes, slot), votes, number));
    ranked.filter(|(_, votes, _)| *votes > 0).max_by_key(|(worth, _, _)| *worth).map(|(_, _, number)| number)
}

/// The clauses that together catch the rule: one of the conjunction, or one of each alternative of a side.
fn any_way<'a>(rule: &Rule<'a>, shares: &Shares) -> Option<Vec<Clause<'a>>> {
    let single = shares.best(rule.when, None).map(|(weight, clause)| (weight, vec![clause]));
    let side = |side: crate::program::Side<'a>| {
        let mut heaviest = 0;
        let mut clauses = Vec::new();
        for alternative in side {
            let (weight, clause) = shares.best(alternative, None)?;
            heaviest = heaviest.max(weight);
            clauses.push(clause);
        }
        (!clauses.is_empty()).then_some((heaviest, clauses))
    };
    let ways = single.into_iter().chain(rule.sides.into_iter().filter_map(side));
    ways.filter(|(weight, _)| *weight <= LIMIT)
        .min_by_key(|(weight, clauses)| (*weight, clauses.len()))
        .map(|way| way.1)
}

/// Rules by the predicate they are filed under, in the order of their numbers.
#[derive(Debug)]
pub(super) struct Postings {
    starts: Box<[u32]>,
    rules: Box<[u32]>,
}

impl Postings {
    pub(super) fn new(filed: &[(u32, u32)], predicates: usize) -> Self {
        // One word sorts faster than two.
        let mut filed: Vec<u64> = filed.iter().map(|(id, rule)| u64::from(*id) << 32 | u64::from(*rule)).collect();
        filed.sort_unstable();
        filed.dedup();
        let mut starts = vec![0_u32; predicates + 1];
        for pair in &filed {
            let after = usize::try_from(*pair >> 32).ok().and_then(|at| starts.get_mut(at + 1));
            after.into_iter().for_each(|count| *count += 1);
        }
        let mut total = 0;
        for start in &mut starts {
            total += *start;
            *start = total;
        }
        let rule = |pair: u64| u32::try_from(pair & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Self { starts: starts.into(), rules: filed.into_iter().map(rule).collect() }
    }

    pub(super) fn of(&self, id: u32) -> &[u32] {
        let span = || {
            let at = usize::try_from(id).ok()?;
            let [start, end] = *self.starts.get(at..at.checked_add(2)?)?.first_chunk::<2>()?;
            self.rules.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        };
        span().unwrap_or_default()
    }
}
