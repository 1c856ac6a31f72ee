//! One request against the index: the first rule of each stage that matches.

use std::ops::Range;

use crate::compiled::{CompiledSet, Match, Stage};
use crate::index::held::Held;
use crate::index::{FEW_VALUES, Index};
use crate::predicate::Tri;
use crate::program::Clause;
use crate::request::Request;

/// A search under way; all attributes of its request are known.
pub(crate) struct Search<'a> {
    set: &'a CompiledSet,
    index: &'a Index,
    request: &'a Request<'a>,
    held: Held,
    /// The first rule found so far, by stage.
    first: [u32; Stage::COUNT],
    /// What is filed under single clauses has been tried.
    filed: bool,
}

/// No rule.
const NONE: u32 = u32::MAX;

impl<'a> Search<'a> {
    pub(crate) const fn new(set: &'a CompiledSet, index: &'a Index, request: &'a Request<'a>) -> Self {
        Self { set, index, request, held: Held::new(), first: [NONE; Stage::COUNT], filed: false }
    }

    /// The first rule of the stage that matches.
    pub(crate) fn find(&mut self, stage: Stage) -> Match {
        if !self.filed {
            self.filed = true;
            self.try_filed();
        }
        let filed = self.first.get(stage as usize).copied().unwrap_or(NONE);
        match self.dense(stage, filed).unwrap_or(filed) {
            NONE => Match::NONE,
            number => Match { result: Tri::Yes, rule: Some(number) },
        }
    }

    fn try_filed(&mut self) {
        let index = self.index;
        index.filed_by.iter().for_each(|slot| self.try_slot(*slot));
        if let Some(http) = self.request.http.filter(|_| !index.names.is_empty()) {
            http.headers.visit(&mut |name, value| {
                index.names.find(name, &mut |slot| {
                    let lookup = index.lookup(slot);
                    lookup.into_iter().for_each(|one| one.find_instance(value, &mut |id| self.try_rules(id)));
                });
            });
        }
    }

    /// Tries the rules filed under the values of one attribute.
    fn try_slot(&mut self, slot: u32) {
        let (kept, spilled) = self.look_up(slot);
        for place in kept {
            if let Some(id) = self.held.at(place) {
                self.try_rules(id);
            }
        }
        if spilled && let Some(lookup) = self.index.lookup(slot) {
            lookup.find(self.request, &self.set.predicates, &mut |id| self.try_rules(id));
        }
    }

    fn look_up(&mut self, slot: u32) -> (Range<usize>, bool) {
        self.held.look_up(slot, self.index.lookup(slot), self.request, &self.set.predicates)
    }

    /// Tries the rules filed under a predicate that holds.
    fn try_rules(&mut self, id: u32) {
        let index = self.index;
        for number in index.postings.of(id) {
            let stage = index.ends.iter().position(|end| number < end).unwrap_or_default();
            let best = self.first.get(stage).copied().unwrap_or_default();
            if *number < best && self.matches(*number) {
                self.first.get_mut(stage).into_iter().for_each(|best| *best = *number);
            }
        }
    }

    fn matches(&mut self, number: u32) -> bool {
        let set = self.set;
        set.rule(number).is_some_and(|rule| rule.holds(|clause| self.holds(clause)))
    }

    fn holds(&mut self, clause: &Clause<'_>) -> bool {
        let many = clause.any.len() > FEW_VALUES;
        let worth = many || self.index.cheap.checked_shr(clause.slot).unwrap_or_default() & 1 == 1;
        if worth && clause.found() && self.held.is_open(clause.slot) {
            self.look_up(clause.slot);
        }
        let hit = match self.held.get(clause.slot) {
            Some(held) if clause.found() && many => held.iter().any(|id| clause.any.binary_search(id).is_ok()),
            Some(held) if clause.found() => held.iter().any(|id| clause.any.contains(id)),
            _ => clause.any.iter().any(|id| self.set.predicate_holds(*id, self.request)),
        };
        hit != clause.negated()
    }

    /// The first rule of the stage in the dense part, if it stands before `limit`.
    fn dense(&mut self, stage: Stage, limit: u32) -> Option<u32> {
        let index = self.index;
        if index.dense.is_empty(stage) {
            return None;
        }
        for slot in index.dense.slots() {
            self.look_up(slot);
        }
        let lanes = index.dense.lanes(&self.held);
        index.dense.first(stage, &lanes, |number| {
            if number >= limit { Some(None) } else { self.matches(number).then_some(Some(number)) }
        })?
    }
}
