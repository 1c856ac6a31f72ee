//! Compiled rules as one stream of words: compact, copied as it is from one set to the next, read in one pass.
//!
//! A rule is `when AND (any of from) AND (any of to)`. Its words: the conjunction (its length, then its clauses), then,
//! if there are any, for `from` and for `to` the number of alternatives, each again a length and clauses. A side with a
//! single alternative is part of the conjunction; a side without any imposes nothing.

use crate::predicate::Tri;

/// The number of an interned predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PredicateId(pub(crate) u32);

/// Where in a rule a clause was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    When,
    Principals,
    RequestPrincipals,
    ServiceAccounts,
    TrustDomains,
    Namespaces,
    RemoteIpBlocks,
    IpBlocks,
    Hosts,
    Methods,
    Paths,
    Ports,
}

impl Field {
    const ALL: [Self; 12] = [
        Self::When,
        Self::Principals,
        Self::RequestPrincipals,
        Self::ServiceAccounts,
        Self::TrustDomains,
        Self::Namespaces,
        Self::RemoteIpBlocks,
        Self::IpBlocks,
        Self::Hosts,
        Self::Methods,
        Self::Paths,
        Self::Ports,
    ];

    /// Cheap and telling tests first: the order in which a conjunction is tried.
    const fn rank(self) -> u8 {
        match self {
            Self::Methods | Self::Ports => 0,
            Self::Paths => 1,
            Self::Hosts | Self::Namespaces | Self::Principals => 2,
            Self::ServiceAccounts | Self::TrustDomains | Self::IpBlocks | Self::RemoteIpBlocks => 3,
            Self::When => 4,
            Self::RequestPrincipals => 5,
        }
    }
}

/// A clause as it is compiled: any of the predicates, or none of them.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) field: Field,
    /// Which alternative of its side, or which condition.
    pub(crate) index: u32,
    pub(crate) negated: bool,
    /// The attribute that all of the predicates are about.
    pub(crate) slot: u32,
    /// All of the predicates are found by a look-up of the attribute.
    pub(crate) found: bool,
    pub(crate) any: Vec<PredicateId>,
}

/// The three conjuncts of a rule as it is compiled.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) when: Vec<Draft>,
    pub(crate) from: Vec<Vec<Draft>>,
    pub(crate) to: Vec<Vec<Draft>>,
}

impl Parts {
    /// The words of the rule.
    pub(crate) fn encode(mut self) -> Box<[u32]> {
        for side in [&mut self.from, &mut self.to] {
            if let [_] = side.as_slice() {
                self.when.extend(side.drain(..).flatten());
            }
        }
        let mut out = Vec::new();
        conjunction(&mut self.when, &mut out);
        if self.from.is_empty() && self.to.is_empty() {
            return out.into();
        }
        out.first_mut().into_iter().for_each(|length| *length |= SIDES);
        for side in [&mut self.from, &mut self.to] {
            out.push(word(side.len()));
            for alternative in side {
                conjunction(alternative, &mut out);
            }
        }
        out.into()
    }
}

/// Set in the length of a rule's conjunction: alternatives follow.
const SIDES: u32 = 1 << 31;

fn word(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn conjunction(clauses: &mut [Draft], out: &mut Vec<u32>) {
    clauses.sort_by_key(|clause| clause.field.rank());
    for clause in clauses.iter_mut() {
        clause.any.sort_unstable();
        clause.any.dedup();
    }
    out.push(word(clauses.iter().map(|clause| HEAD + clause.any.len()).sum()));
    for clause in clauses {
        let flags = u32::from(clause.negated) | u32::from(clause.found) << 1;
        out.extend([clause.field as u32 | flags << 8, clause.index, clause.slot]);
        out.push(word(clause.any.len()));
        out.extend(clause.any.iter().map(|id| id.0));
    }
}

/// Words of a clause before its predicates.
const HEAD: usize = 4;

/// A clause that is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clause<'a> {
    head: u32,
    /// Which alternative of its side, or which condition.
    pub(crate) index: u32,
    /// The attribute that all of the predicates are about.
    pub(crate) slot: u32,
    /// The numbers of the predicates, ascending, never empty.
    pub(crate) any: &'a [u32],
}

impl Clause<'_> {
    /// None of the predicates may hold, instead of any.
    pub(crate) const fn negated(&self) -> bool {
        self.head >> 8 & 1 == 1
    }

    /// All of the predicates are found by a look-up of the attribute.
    pub(crate) const fn found(&self) -> bool {
        self.head >> 9 & 1 == 1
    }

    /// Where it was written.
    pub(crate) fn field(&self) -> Field {
        let number = usize::try_from(self.head & 0xff).unwrap_or_default();
        Field::ALL.get(number).copied().unwrap_or(Field::When)
    }
}

/// A conjunction: all of these hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clauses<'a>(&'a [u32]);

impl<'a> Iterator for Clauses<'a> {
    type Item = Clause<'a>;

    fn next(&mut self) -> Option<Clause<'a>> {
        let ([head, index, slot, length], rest) = self.0.split_first_chunk::<HEAD>()?;
        let (any, rest) = rest.split_at_checked(length_of(*length))?;
        self.0 = rest;
        Some(Clause { head: *head, index: *index, slot: *slot, any })
    }
}

/// Alternatives: any of these conjunctions holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a>(&'a [u32]);

impl Side<'_> {
    /// Nothing is imposed.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Iterator for Side<'a> {
    type Item = Clauses<'a>;

    fn next(&mut self) -> Option<Clauses<'a>> {
        let (length, rest) = self.0.split_first()?;
        let (clauses, rest) = rest.split_at_checked(length_of(*length))?;
        self.0 = rest;
        Some(Clauses(clauses))
    }
}

fn length_of(word: u32) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

/// A rule that is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule<'a> {
    pub(crate) when: Clauses<'a>,
    pub(crate) sides: [Side<'a>; 2],
}

impl<'a> Rule<'a> {
    /// Reads the rule that begins `words`; `None` for what [`Parts::encode`] never wrote.
    pub(crate) fn read(words: &'a [u32]) -> Option<Self> {
        let (length, rest) = words.split_first()?;
        let (when, rest) = rest.split_at_checked(length_of(*length & !SIDES))?;
        let mut rule = Self { when: Clauses(when), sides: [Side(&[]); 2] };
        if *length & SIDES != 0 {
            let (from, rest) = side(rest)?;
            let (to, _) = side(rest)?;
            rule.sides = [from, to];
        }
        Some(rule)
    }

    /// Every clause, wherever it stands.
    pub(crate) fn clauses(self) -> impl Iterator<Item = Clause<'a>> {
        self.when.chain(self.sides.into_iter().flatten().flatten())
    }

    /// Whether the rule matches, given which clauses hold.
    pub(crate) fn holds(&self, mut clause: impl FnMut(&Clause<'_>) -> bool) -> bool {
        for one in self.when {
            if !clause(&one) {
                return false;
            }
        }
        self.sides.iter().all(|side| {
            side.is_empty() || Iterator::any(&mut { *side }, |mut alternative| alternative.all(|one| clause(&one)))
        })
    }

    /// The same with clauses that may be unknown.
    pub(crate) fn test(&self, mut clause: impl FnMut(&Clause<'_>) -> Tri) -> Tri {
        let mut result = all(self.when, &mut clause);
        for side in self.sides {
            if result == Tri::No {
                break;
            }
            if !side.is_empty() {
                result = result.min(any(side, |alternative| all(alternative, &mut clause)));
            }
        }
        result
    }
}

fn side(words: &[u32]) -> Option<(Side<'_>, &[u32])> {
    let (count, words) = words.split_first()?;
    let mut end = 0;
    for _ in 0..*count {
        end += 1 + length_of(*words.get(end)?);
    }
    let (side, rest) = words.split_at_checked(end)?;
    Some((Side(side), rest))
}

/// The least of the answers, up to the first no.
pub(crate) fn all<T>(items: impl Iterator<Item = T>, mut test: impl FnMut(&T) -> Tri) -> Tri {
    let mut result = Tri::Yes;
    for item in items {
        result = result.min(test(&item));
        if result == Tri::No {
            break;
        }
    }
    result
}

/// The greatest of the answers, up to the first yes.
pub(crate) fn any<T>(items: impl IntoIterator<Item = T>, mut test: impl FnMut(T) -> Tri) -> Tri {
    let mut result = Tri::No;
    for item in items {
        result = result.max(test(item));
        if result == Tri::Yes {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(field: Field, any: &[u32]) -> Draft {
        let any = any.iter().map(|id| PredicateId(*id)).collect();
        Draft { field, index: 3, negated: field == Field::Hosts, slot: 7, found: true, any }
    }

    fn holds(words: &[u32], held: &[u32]) -> bool {
        let hit = |clause: &Clause<'_>| clause.any.iter().any(|id| held.contains(id)) != clause.negated();
        let rule = Rule::read(words).unwrap();
        assert_eq!(rule.test(|clause| Tri::from(hit(clause))) == Tri::Yes, rule.holds(hit));
        rule.holds(hit)
    }

    #[test]
    fn what_is_written_is_read() {
        let parts = Parts {
            when: vec![draft(Field::When, &[1]), draft(Field::Hosts, &[9, 8, 9])],
            from: vec![
                vec![draft(Field::Principals, &[2])],
                vec![draft(Field::Namespaces, &[3]), draft(Field::IpBlocks, &[4])],
            ],
            to: vec![vec![draft(Field::Methods, &[5])]],
        };
        let words = parts.encode();
        let fields: Vec<_> =
            Rule::read(&words).unwrap().when.map(|one| (one.field(), one.index, one.slot, one.any)).collect();
        assert_eq!(fields[0], (Field::Methods, 3, 7, &[5][..]), "the cheap test moves to the front");
        assert_eq!(fields[1].2, 7);
        assert_eq!(fields[1].3, [8, 9]);
        assert!(holds(&words, &[1, 2, 5]) && holds(&words, &[1, 3, 4, 5]));
        for held in [&[1, 2][..], &[2, 5], &[1, 5], &[1, 3, 5], &[1, 2, 5, 8]] {
            assert!(!holds(&words, held), "{held:?}");
        }
        assert!(holds(&Parts::default().encode(), &[]));
        assert!(Rule::read(&[]).is_none() && Rule::read(&[5, 1]).is_none());
    }
}
