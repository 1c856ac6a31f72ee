//! Rules whose clauses all have common values: one bit each, in sets that are intersected.
//!
//! A rule with alternatives takes several rows, one for each combination. For each attribute (a lane) and each common
//! value there is the set of rows that ask for it; a row passes a lane if it asks for nothing there or for a value that
//! holds. Values that are rare among the rows have no set: the rule is filed under them, besides.

use std::collections::HashMap;
use std::ops::Range;

use crate::compiled::Stage;
use crate::index::held::{Held, SLOTS};
use crate::index::select::Plan;
use crate::program::{Clause, Clauses, Rule};

/// Words that are looked at together.
const WORDS: usize = 8;
/// Rows of one block.
const BLOCK: usize = WORDS * 64;
type Block = [u64; WORDS];

/// Attributes that are intersected.
const LANES: usize = 16;
/// Rows that one rule may take; of one with more combinations some alternatives are left to be tried.
const ROWS: usize = 16;
/// Values of so few rows at least have no set of their own.
const RARE: u32 = 32;
/// Sets that one request may touch.
const TOUCHED: usize = 96;

/// No rule: rows at the end of a stage.
const NONE: u32 = u32::MAX;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Dense {
    /// Rules by row; each stage begins with a block.
    rows: Box<[u32]>,
    /// Rows that stand for a rule.
    size: u32,
    /// Blocks of each stage.
    stages: [Range<usize>; Stage::COUNT],
    lanes: Vec<Lane>,
    /// Sets, one after the other.
    bits: Box<[Block]>,
}

#[derive(Debug)]
struct Lane {
    slot: u32,
    /// Rows that ask for something.
    asking: Set,
    /// Rows that ask for a value, by predicate, ascending.
    wanted: Vec<(u32, Set)>,
    /// Rows that refuse a value, by predicate, ascending.
    refused: Vec<(u32, Set)>,
}

/// A set of rows: where its blocks begin, and its size.
#[derive(Debug, Clone, Copy, Default)]
struct Set {
    at: usize,
    size: u32,
}

/// What a request means for the lanes, the most telling first.
pub(super) struct Lanes {
    lanes: [Pass; LANES],
    count: usize,
    touched: [usize; TOUCHED],
    used: usize,
}

/// Which sets of one lane count.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    /// Unless all rows ask for something.
    asking: Option<usize>,
    /// Places in `touched`: sets that let pass, then sets that hold back.
    wanted: (usize, usize),
    refused: (usize, usize),
    /// How many rows are let through, about.
    through: u32,
}

impl Dense {
    /// Lays out the rules that `plan` left over, and files them under their rare values there.
    pub(super) fn new(rules: &[Rule<'_>], plan: &mut Plan, ends: [u32; Stage::COUNT]) -> Self {
        let mut draft = Draft::default();
        let mut numbers = std::mem::take(&mut plan.dense).into_iter().peekable();
        let stages = ends.map(|end| {
            let start = draft.rows.len() / BLOCK;
            while let Some(number) = numbers.next_if(|number| *number < end) {
                let rule = usize::try_from(number).ok().and_then(|at| rules.get(at));
                rule.into_iter().for_each(|rule| draft.add(number, rule));
            }
            let full = draft.rows.len().next_multiple_of(BLOCK);
            draft.rows.resize_with(full, || (NONE, Vec::new()));
            start..full / BLOCK
        });
        draft.finish(stages, plan)
    }

    pub(super) fn is_empty(&self, stage: Stage) -> bool {
        self.stages.get(stage as usize).is_none_or(Range::is_empty)
    }

    /// The attributes that are intersected.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        self.lanes.iter().map(|lane| lane.slot)
    }

    /// Which sets count for a request. A lane that is not known lets everything pass.
    pub(super) fn lanes(&self, held: &Held) -> Lanes {
        let mut lanes = Lanes { lanes: [Pass::default(); LANES], count: 0, touched: [0; TOUCHED], used: 0 };
        for lane in &self.lanes {
            if let Some(held) = held.get(lane.slot) {
                lanes.add(lane, held, self.size);
            }
        }
        let used = lanes.lanes.get_mut(..lanes.count).unwrap_or_default();
        used.sort_unstable_by_key(|lane| lane.through);
        lanes
    }

    /// Calls `tried` with the rule of each row of the stage that passes all lanes, in order, until it returns something.
    pub(super) fn first<T>(&self, stage: Stage, lanes: &Lanes, mut tried: impl FnMut(u32) -> Option<T>) -> Option<T> {
        for block in self.stages.get(stage as usize)?.clone() {
            for (word, at) in self.block(block, lanes).into_iter().zip(0..) {
                let mut left = word;
                while left != 0 {
                    let bit = usize::try_from(left.trailing_zeros()).unwrap_or_default();
                    left &= left - 1;
                    let rule = self.rows.get(block * BLOCK + at * 64 + bit).copied().unwrap_or(NONE);
                    if rule != NONE
                        && let Some(found) = tried(rule)
                    {
                        return Some(found);
                    }
                }
            }
        }
        None
    }

    /// The rows of a block that pass all lanes.
    fn block(&self, block: usize, lanes: &Lanes) -> Block {
        let set = |at: usize| self.bits.get(at + block);
        let mut rows = [u64::MAX; WORDS];
        for lane in lanes.lanes.iter().take(lanes.count) {
            let mut pass = [0; WORDS];
            if let Some(asking) = lane.asking.and_then(set) {
                join(&mut pass, asking, |_, asking| !asking);
            }
            for at in lanes.touched(lane.wanted) {
                set(*at).into_iter().for_each(|wanted| join(&mut pass, wanted, |pass, wanted| pass | wanted));
            }
            for at in lanes.touched(lane.refused) {
                set(*at).into_iter().for_each(|refused| join(&mut pass, refused, |pass, refused| pass & !refused));
            }
            join(&mut rows, &pass, |rows, pass| rows & pass);
            if rows.iter().fold(0, |all, word| all | word) == 0 {
                break;
            }
        }
        rows
    }
}

fn join(to: &mut Block, from: &Block, op: impl Fn(u64, u64) -> u64) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = op(*to, *from));
}

impl Lanes {
    fn add(&mut self, lane: &Lane, held: &[u32], rows: u32) {
        let before = self.used;
        let mut through = rows.saturating_sub(lane.asking.size);
        let asking = (through > 0).then_some(lane.asking.at);
        for set in held.iter().filter_map(|id| find(&lane.wanted, *id)) {
            if !self.touch(set) {
                // Without all of them the lane would hold back too much; without it nothing is lost but time.
                self.used = before;
                return;
            }
            through = through.saturating_add(set.size);
        }
        let between = self.used;
        for set in held.iter().filter_map(|id| find(&lane.refused, *id)) {
            if self.touch(set) {
                through = through.saturating_sub(set.size);
            }
        }
        let pass = Pass { asking, wanted: (before, between), refused: (between, self.used), through };
        if let Some(free) = self.lanes.get_mut(self.count) {
            *free = pass;
            self.count += 1;
        }
    }

    fn touch(&mut self, set: Set) -> bool {
        let Some(free) = self.touched.get_mut(self.used) else {
            return false;
        };
        *free = set.at;
        self.used += 1;
        true
    }

    fn touched(&self, (start, end): (usize, usize)) -> &[usize] {
        self.touched.get(start..end).unwrap_or_default()
    }
}

fn find(sets: &[(u32, Set)], id: u32) -> Option<Set> {
    let at = sets.binary_search_by_key(&id, |(id, _)| *id).ok()?;
    sets.get(at).map(|(_, set)| *set)
}

/// Rows while they are laid out.
#[derive(Default)]
struct Draft<'a> {
    rows: Vec<(u32, Vec<Clause<'a>>)>,
    blocks: usize,
    bits: Vec<Block>,
}

impl<'a> Draft<'a> {
    /// The rows of one rule.
    fn add(&mut self, number: u32, rule: &Rule<'a>) {
        let [from, to] = rule.sides.map(|side| {
            let alternatives: Vec<Clauses<'a>> = side.collect();
            if alternatives.is_empty() || alternatives.len() > ROWS { vec![None] } else { to_some(alternatives) }
        });
        let to = if from.len() * to.len() > ROWS { vec![None] } else { to };
        for source in &from {
            for operation in &to {
                let sides = [source, operation].into_iter().flatten().copied();
                self.rows.push((number, rule.when.chain(sides.flatten()).collect()));
            }
        }
    }

    fn finish(mut self, stages: [Range<usize>; Stage::COUNT], plan: &mut Plan) -> Dense {
        let rows = std::mem::take(&mut self.rows);
        self.blocks = rows.len() / BLOCK;
        let lanes = chosen(&rows).into_iter().map(|slot| self.lane(slot, &rows, plan)).collect();
        let size = rows.iter().filter(|(rule, _)| *rule != NONE).count();
        Dense {
            rows: rows.iter().map(|(rule, _)| *rule).collect(),
            size: u32::try_from(size).unwrap_or(u32::MAX),
            stages,
            lanes,
            bits: self.bits.into(),
        }
    }

    fn lane(&mut self, slot: u32, rows: &[(u32, Vec<Clause<'a>>)], plan: &mut Plan) -> Lane {
        let of_slot = |(row, (rule, clauses)): (usize, &'_ (u32, Vec<Clause<'a>>))| {
            let own: Vec<_> = clauses.iter().filter(|clause| clause.slot == slot).copied().collect();
            (row, *rule, own)
        };
        let own: Vec<_> = rows.iter().enumerate().map(of_slot).filter(|(.., own)| !own.is_empty()).collect();
        let rare = u32::try_from(rows.len() / 256).unwrap_or(u32::MAX).max(RARE);
        let mut counts: HashMap<(bool, u32), u32> = HashMap::new();
        for clause in own.iter().flat_map(|(.., clauses)| clauses) {
            clause.any.iter().for_each(|id| *counts.entry((clause.negated(), *id)).or_default() += 1);
        }
        let mut sets: HashMap<(bool, u32), Set> = HashMap::new();
        let mut asking = self.set();
        for (row, rule, clauses) in own {
            if clauses.iter().any(asks) {
                self.insert(&mut asking, row);
            }
            for clause in clauses.iter().filter(|clause| clause.negated() || asks(clause)) {
                for id in clause.any {
                    let key = (clause.negated(), *id);
                    if counts.get(&key).is_some_and(|count| *count > rare) {
                        let mut set = sets.get(&key).copied().unwrap_or_else(|| self.set());
                        self.insert(&mut set, row);
                        sets.insert(key, set);
                    } else if !clause.negated() {
                        plan.filed.push((*id, rule));
                        plan.add_slot(slot);
                    }
                }
            }
        }
        let of = |negated| {
            let mut chosen: Vec<_> =
                sets.iter().filter(|((n, _), _)| *n == negated).map(|((_, id), set)| (*id, *set)).collect();
            chosen.sort_unstable_by_key(|(id, _)| *id);
            chosen
        };
        Lane { slot, asking, wanted: of(false), refused: of(true) }
    }

    /// An empty set.
    fn set(&mut self) -> Set {
        let at = self.bits.len();
        self.bits.resize(at + self.blocks, [0; WORDS]);
        Set { at, size: 0 }
    }

    fn insert(&mut self, set: &mut Set, row: usize) {
        let word = self.bits.get_mut(set.at + row / BLOCK).and_then(|block| block.get_mut(row % BLOCK / 64));
        if let Some(word) = word {
            let bit = 1 << (row % 64);
            set.size += u32::from(*word & bit == 0);
            *word |= bit;
        }
    }
}

fn to_some<T>(items: Vec<T>) -> Vec<Option<T>> {
    items.into_iter().map(Some).collect()
}

/// Whether a clause can hold a row back: its values are all found by looking them up.
const fn asks(clause: &Clause<'_>) -> bool {
    clause.found() && !clause.negated()
}

/// The attributes that most rows are about.
fn chosen(rows: &[(u32, Vec<Clause<'_>>)]) -> Vec<u32> {
    let mut usage: HashMap<u32, usize> = HashMap::new();
    let useful = |clause: &&Clause<'_>| clause.negated() || asks(clause);
    for clause in rows.iter().flat_map(|(_, clauses)| clauses).filter(useful) {
        *usage.entry(clause.slot).or_default() += 1;
    }
    let kept = |slot: &u32| usize::try_from(*slot).is_ok_and(|slot| slot < SLOTS);
    let mut ranked: Vec<(usize, u32)> =
        usage.into_iter().filter(|(slot, _)| kept(slot)).map(|(slot, count)| (count, slot)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.into_iter().take(LANES).map(|(_, slot)| slot).collect()
}
