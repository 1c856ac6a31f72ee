//! Predicates by number, shared between the sets of one compiler: a changed policy copies at most one chunk.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::predicate::{Predicate, Slot};
use crate::program::PredicateId;

/// Predicates in one shared piece.
const CHUNK: usize = 256;

/// All predicates of a set.
#[derive(Clone, Default)]
pub(crate) struct Predicates {
    chunks: Vec<Arc<[Predicate]>>,
}

impl Predicates {
    pub(crate) fn get(&self, id: u32) -> Option<&Predicate> {
        let at = usize::try_from(id).ok()?;
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    pub(crate) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }
}

/// Numbers predicates and the attributes they are about, each once.
#[derive(Default)]
pub(crate) struct Interner {
    full: Vec<Arc<[Predicate]>>,
    tail: Vec<Predicate>,
    /// Open addressing over the numbers plus one; zero is free.
    table: Vec<u32>,
    /// Slot of each predicate.
    slot_of: Vec<u32>,
    slots: Vec<Slot>,
    /// Predicates of each slot.
    members: Vec<Vec<u32>>,
    slot_numbers: HashMap<Slot, u32>,
    hasher: RandomState,
}

impl Interner {
    /// The number of `predicate`, and of its slot.
    pub(crate) fn intern(&mut self, predicate: Predicate) -> PredicateId {
        if (self.len() + 1) * 2 > self.table.len() {
            self.grow();
        }
        let free = match self.find(&predicate) {
            Ok(id) => return PredicateId(id),
            Err(free) => free,
        };
        let id = u32::try_from(self.len()).unwrap_or(u32::MAX - 1);
        let slot = self.slot(&predicate);
        self.slot_of.push(slot);
        if let Some(members) = usize::try_from(slot).ok().and_then(|slot| self.members.get_mut(slot)) {
            members.push(id);
        }
        if let Some(entry) = self.table.get_mut(free) {
            *entry = id + 1;
        }
        self.tail.push(predicate);
        if self.tail.len() == CHUNK {
            self.full.push(std::mem::take(&mut self.tail).into());
        }
        PredicateId(id)
    }

    /// The attribute that a predicate is about.
    pub(crate) fn slot_of(&self, id: PredicateId) -> u32 {
        usize::try_from(id.0).ok().and_then(|at| self.slot_of.get(at)).copied().unwrap_or_default()
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The predicates of a slot, ascending.
    pub(crate) fn members(&self, slot: u32) -> &[u32] {
        usize::try_from(slot).ok().and_then(|slot| self.members.get(slot)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn len(&self) -> usize {
        self.slot_of.len()
    }

    /// What is interned so far.
    pub(crate) fn predicates(&self) -> Predicates {
        let tail = (!self.tail.is_empty()).then(|| Arc::from(self.tail.as_slice()));
        Predicates { chunks: self.full.iter().cloned().chain(tail).collect() }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Predicate> {
        let at = usize::try_from(id).ok()?;
        self.full.get(at / CHUNK).map_or(self.tail.as_slice(), |chunk| chunk).get(at % CHUNK)
    }

    /// The number, or the place for a new one.
    fn find(&self, predicate: &Predicate) -> Result<u32, usize> {
        let mask = self.table.len().wrapping_sub(1);
        let mut at = usize::try_from(self.hasher.hash_one(predicate) & 0xffff_ffff).unwrap_or(0) & mask;
        loop {
            match self.table.get(at).copied() {
                None | Some(0) => return Err(at),
                Some(id) if self.get(id - 1) == Some(predicate) => return Ok(id - 1),
                Some(_) => at = (at + 1) & mask,
            }
        }
    }

    fn grow(&mut self) {
        self.table = vec![0; (self.table.len() * 2).max(64)];
        for id in 0..u32::try_from(self.len()).unwrap_or(u32::MAX) {
            let free = self.get(id).map(|predicate| self.find(predicate));
            if let Some(entry) = free.and_then(Result::err).and_then(|free| self.table.get_mut(free)) {
                *entry = id + 1;
            }
        }
    }

    fn slot(&mut self, predicate: &Predicate) -> u32 {
        let slot = predicate.slot();
        if let Some(number) = self.slot_numbers.get(&slot) {
            return *number;
        }
        let number = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(slot.clone());
        self.members.push(Vec::new());
        self.slot_numbers.insert(slot, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_predicate_has_one_number() {
        let mut interner = Interner::default();
        let ids: Vec<_> = (0..700).map(|port| interner.intern(Predicate::DestinationPort(port))).collect();
        assert!((0..700).all(|port| interner.intern(Predicate::DestinationPort(port)) == ids[usize::from(port)]));
        let predicates = interner.predicates();
        assert_eq!((predicates.len(), interner.len()), (700, 700));
        assert!((0..700).all(|id| predicates.get(id) == interner.get(id)));
        assert_eq!(predicates.get(512), Some(&Predicate::DestinationPort(512)));
        assert_eq!(interner.slots(), [Slot::DestinationPort]);
        assert_eq!(interner.members(0).len(), 700);
    }
}
