//! The index: which rules can match a request at all.
//!
//! It only ever leaves out rules that cannot match. What it leaves is tried as written, so that a gap in the index
//! costs time and never changes an answer. Each rule is filed in one of two ways:
//!
//! - under the values of one clause that few rules share (`select`). The attribute is looked up once and gives the
//!   values that hold; the rules filed under them are tried.
//! - where every clause has values that many rules share, as one bit of sets that are intersected word by word
//!   (`dense`), most telling attribute first.
//!
//! Both yield the first match in the order of the ids. Memory is on the stack and of fixed size; where it would not
//! suffice, the predicates are tested one by one.

use std::sync::Arc;

use crate::compiled::{CompiledSet, Stage};
use crate::predicate::{Interner, Predicates, Slot};
use crate::program::{Clause, Rule};

mod dense;
mod hash;
mod held;
mod lookup;
mod names;
mod nets;
mod peers;
mod search;
mod select;
mod templates;
mod texts;
mod tokens;
mod trie;

use dense::Dense;
use lookup::Lookup;
pub(crate) use lookup::takes;
use names::Names;
pub(crate) use search::Search;
use select::Postings;

/// Sets with no more rules, and no clause of more values, are tried rule by rule.
const FEW_RULES: usize = 16;

/// Clauses with more values are decided by a look-up, others by testing each value unless the attribute is looked up
/// anyway.
const FEW_VALUES: usize = 4;

/// Attributes with few values, named by many rules: looked up rather than compared again and again.
const fn is_cheap(slot: &Slot) -> bool {
    matches!(slot, Slot::Method | Slot::DestinationPort)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Index {
    /// By the number of the slot; only those that are ever needed.
    lookups: Box<[Option<Arc<Lookup>>]>,
    /// Slots by whose values rules are filed.
    filed_by: Box<[u32]>,
    /// More such slots, for headers: too many to look each up in every request.
    names: Names,
    /// Slots that are looked up as soon as a clause is about them, one bit each.
    cheap: u64,
    postings: Postings,
    dense: Dense,
    /// Where the rules of each stage end.
    ends: [u32; Stage::COUNT],
}

/// Look-ups of an earlier set of the same compiler; one stands as long as no predicate is added to its slot.
#[derive(Debug, Default)]
pub(crate) struct Cache(Vec<Option<(usize, Arc<Lookup>)>>);

impl Cache {
    fn lookup(&mut self, slot: u32, interner: &Interner, predicates: &Predicates) -> Option<Arc<Lookup>> {
        let at = usize::try_from(slot).ok()?;
        let members = interner.members(slot);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        let kept = self.0.get_mut(at)?;
        if let Some((_, lookup)) = kept.as_ref().filter(|(count, _)| *count == members.len()) {
            return Some(Arc::clone(lookup));
        }
        let lookup = Arc::new(Lookup::new(interner.slots().get(at)?, members, predicates));
        *kept = Some((members.len(), Arc::clone(&lookup)));
        Some(lookup)
    }
}

impl Index {
    /// `None` where trying the rules one by one is as good.
    pub(crate) fn new(set: &CompiledSet, interner: &Interner, cache: &mut Cache) -> Option<Self> {
        let rules: Vec<Rule<'_>> = (0..).zip(set.policies.iter()).filter_map(|(number, _)| set.rule(number)).collect();
        let long = |clause: Clause<'_>| clause.any.len() > FEW_RULES;
        if rules.len() <= FEW_RULES && !rules.iter().any(|rule| rule.clauses().any(long)) {
            return None;
        }
        let ends = set.stages.clone().map(|stage| stage.rules.end);
        let mut plan = select::plan(&rules, interner);
        let dense = Dense::new(&rules, &mut plan, ends);
        let mut needed = vec![false; interner.slots().len()];
        let many = |clause: &Clause<'_>| clause.found() && clause.any.len() > FEW_VALUES;
        let asked = rules.iter().flat_map(|rule| rule.clauses()).filter(many).map(|clause| clause.slot);
        let cheap = (0..).zip(interner.slots()).filter(|(_, slot)| is_cheap(slot)).map(|(number, _)| number);
        for slot in asked.chain(plan.slots.iter().copied()).chain(dense.slots()).chain(cheap) {
            let needed = usize::try_from(slot).ok().and_then(|slot| needed.get_mut(slot));
            needed.into_iter().for_each(|needed| *needed = true);
        }
        let needed = (0..).zip(needed);
        let lookups: Box<[Option<Arc<Lookup>>]> = needed
            .map(|(slot, needed)| if needed { cache.lookup(slot, interner, &set.predicates) } else { None })
            .collect();
        let names = Names::among(&mut plan.slots, interner.slots());
        Some(Self {
            names,
            lookups,
            postings: Postings::new(&plan.filed, interner.len()),
            filed_by: plan.slots.into(),
            cheap: (0..64).zip(interner.slots()).fold(0, |bits, (at, slot)| bits | u64::from(is_cheap(slot)) << at),
            dense,
            ends,
        })
    }

    fn lookup(&self, slot: u32) -> Option<&Lookup> {
        self.lookups.get(usize::try_from(slot).ok()?)?.as_deref()
    }
}
