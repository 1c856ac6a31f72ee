//! Headers by name, for sets whose rules are filed by very many of them.

use crate::index::hash::{Table, hash};
use crate::index::texts::ROOM;
use crate::predicate::{HeaderKey, Slot};

/// So many headers are looked up one by one.
const FEW: usize = 8;

/// The slots of headers, by lower-case name.
#[derive(Debug, Default)]
pub(super) struct Names(Table);

impl Names {
    /// Takes the slots of headers that are matched one instance at a time out of `filed_by`, if there are many.
    pub(super) fn among(filed_by: &mut Vec<u32>, slots: &[Slot]) -> Self {
        let name = |slot: u32| match usize::try_from(slot).ok().and_then(|at| slots.get(at)) {
            Some(Slot::Header(HeaderKey::Single(name))) if name.len() <= ROOM => Some(name.as_bytes()),
            _ => None,
        };
        let named: Vec<(u32, &[u8])> = filed_by.iter().filter_map(|slot| Some((*slot, name(*slot)?))).collect();
        if named.len() <= FEW {
            return Self::default();
        }
        filed_by.retain(|slot| name(*slot).is_none());
        Self(Table::new(named.iter().map(|(slot, name)| (hash(0, name), *name, *slot))))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls `found` with the slot of a header, in any letter case.
    pub(super) fn find(&self, name: &str, found: &mut dyn FnMut(u32)) {
        let mut lower = [0; ROOM];
        if let Some(lower) = lower.get_mut(..name.len()) {
            lower.copy_from_slice(name.as_bytes());
            lower.make_ascii_lowercase();
            self.0.get(lower, found);
        }
    }
}
