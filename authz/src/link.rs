//! From compiled policies to one set: rules in the order in which they are reported, laid out side by side.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::compile::{Compiled, Providers, Setting, Unit, provider};
use crate::compiled::{CompiledSet, Engine, Stage};
use crate::evaluation::PolicyRef;
use crate::index::{Cache, Index};
use crate::predicate::{Interner, Slot};
use crate::program::Rule;

/// Stages in the order of [`CompiledSet::stages`].
const STAGES: [Stage; Stage::COUNT] = [
    Stage::CustomDeny,
    Stage::CustomAsk,
    Stage::Audit,
    Stage::Deny,
    Stage::Allow,
    Stage::ShadowDeny,
    Stage::ShadowAllow,
];

/// Lays out the rules of `units`. Returns with the set where the last rule of each unit stands.
pub(crate) fn link(
    units: &[&Unit],
    setting: &Setting,
    interner: &Interner,
    cache: &mut Cache,
) -> (CompiledSet, Vec<u32>) {
    let mut layout = Layout::default();
    let mut ranks = vec![0; units.len()];
    let stages = STAGES.map(|stage| {
        let of_stage = || (0..).zip(units).filter(|(_, unit)| unit.stage == stage);
        let mut rules: Vec<(usize, &Compiled)> =
            of_stage().flat_map(|(at, unit)| unit.rules.iter().map(move |rule| (at, rule))).collect();
        sort(&mut rules, stage);
        let start = layout.len();
        for (unit, rule) in rules {
            ranks.get_mut(unit).into_iter().for_each(|rank| *rank = layout.len());
            layout.push(rule);
        }
        Engine { attached: of_stage().next().is_some(), rules: start..layout.len() }
    });
    let slots = interner.slots();
    let mut set = CompiledSet {
        predicates: interner.predicates(),
        slots: slots.into(),
        headers: layout.headers(slots),
        provider: match &setting.providers {
            Providers::Ask(name) => Some(Arc::clone(name)),
            Providers::None | Providers::Bad => None,
        },
        policies: layout.policies.into(),
        starts: layout.starts.into(),
        words: layout.words.into(),
        stages,
        index: None,
    };
    set.index = Index::new(&set, interner, cache);
    (set, ranks)
}

/// By id; where several providers deny, the filters of Envoy stand in the order of their names.
fn sort(rules: &mut [(usize, &Compiled)], stage: Stage) {
    if stage == Stage::CustomDeny {
        rules.sort_by_key(|(_, rule)| (provider(rule.policy.policy()), rule.policy.id()));
    } else {
        rules.sort_by_key(|(_, rule)| rule.policy.id());
    }
}

#[derive(Default)]
struct Layout {
    policies: Vec<PolicyRef>,
    starts: Vec<u32>,
    words: Vec<u32>,
}

impl Layout {
    fn len(&self) -> u32 {
        word(self.policies.len())
    }

    fn push(&mut self, rule: &Compiled) {
        self.starts.push(word(self.words.len()));
        self.words.extend_from_slice(&rule.words);
        self.policies.push(rule.policy.clone());
    }

    /// Names of the headers that the rules read.
    fn headers(&self, slots: &[Slot]) -> Box<[String]> {
        let mut read = vec![false; slots.len()];
        let words = |start: &u32| self.words.get(usize::try_from(*start).ok()?..);
        for clause in self.starts.iter().filter_map(words).filter_map(Rule::read).flat_map(Rule::clauses) {
            let slot = usize::try_from(clause.slot).ok().and_then(|slot| read.get_mut(slot));
            slot.into_iter().for_each(|read| *read = true);
        }
        let named = slots.iter().zip(read).filter(|(_, read)| *read).filter_map(|(slot, _)| match slot {
            Slot::Header(key) => key.name().map(str::to_owned),
            _ => None,
        });
        named.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn word(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
