//! Which predicates hold for one request: what has been looked up so far, in memory of fixed size on the stack.

use std::ops::Range;

use crate::index::lookup::Lookup;
use crate::predicate::Predicates;
use crate::request::Request;

/// Predicates kept of one request.
const ROOM: usize = 96;
/// Slots with higher numbers are not kept.
pub(super) const SLOTS: usize = 48;

/// See the module. All of it is zero at first, which is cheap to make.
pub(super) struct Held {
    ids: [u32; ROOM],
    length: usize,
    slots: [Looked; SLOTS],
}

/// What is known about one slot: nothing yet (0), that its predicates found no room, or where they begin and end, one
/// byte each, plus one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looked(u16);

impl Looked {
    const NOT_YET: Self = Self(0);
    const FULL: Self = Self(u16::MAX);

    fn at(start: usize, end: usize) -> Self {
        match (u8::try_from(start), u8::try_from(end)) {
            (Ok(start), Ok(end)) => Self((u16::from(start) << 8 | u16::from(end)) + 1),
            _ => Self::FULL,
        }
    }

    fn place(self) -> Option<Range<usize>> {
        let bytes = self.0.checked_sub(1).filter(|_| self != Self::FULL)?;
        Some(usize::from(bytes >> 8)..usize::from(bytes & 0xff))
    }
}

impl Held {
    pub(super) const fn new() -> Self {
        Self { ids: [0; ROOM], length: 0, slots: [Looked::NOT_YET; SLOTS] }
    }

    fn looked(&self, slot: u32) -> Looked {
        let looked = usize::try_from(slot).ok().and_then(|slot| self.slots.get(slot));
        looked.copied().unwrap_or(Looked::FULL)
    }

    /// The predicates of the slot that hold; `None` if that is not known.
    pub(super) fn get(&self, slot: u32) -> Option<&[u32]> {
        self.ids.get(self.looked(slot).place()?)
    }

    /// Whether looking the slot up could tell more.
    pub(super) fn is_open(&self, slot: u32) -> bool {
        self.looked(slot) == Looked::NOT_YET
    }

    /// One of the kept predicates.
    pub(super) fn at(&self, place: usize) -> Option<u32> {
        self.ids.get(place).copied()
    }

    /// Looks the slot up, unless that has been done. Returns where its predicates are kept, and whether some found no
    /// room.
    pub(super) fn look_up(
        &mut self,
        slot: u32,
        lookup: Option<&Lookup>,
        request: &Request<'_>,
        predicates: &Predicates,
    ) -> (Range<usize>, bool) {
        let looked = self.looked(slot);
        if let Some(place) = looked.place() {
            return (place, false);
        }
        if looked == Looked::FULL {
            return (0..0, true);
        }
        let start = self.length;
        let (ids, length) = (&mut self.ids, &mut self.length);
        let mut full = false;
        if let Some(lookup) = lookup {
            lookup.find(request, predicates, &mut |id| match ids.get_mut(*length) {
                Some(free) => {
                    *free = id;
                    *length += 1;
                }
                None => full = true,
            });
        }
        let looked = if full { Looked::FULL } else { Looked::at(start, self.length) };
        let slot = usize::try_from(slot).ok().and_then(|slot| self.slots.get_mut(slot));
        slot.into_iter().for_each(|slot| *slot = looked);
        (start..self.length, full)
    }
}
