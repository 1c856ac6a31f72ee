//! When the certificates given out come back: what is issued at once must not be renewed at once, half a life later and ever after.
//!
//! The agent would draw a moment of its own, blind to all others. Here it is known which seconds are taken already, so that
//! each certificate gets the emptiest second around the middle of its life. Nothing is kept over a restart: it is a wish.

use std::sync::{Mutex, PoisonError};

use crate::leaf::Lifetime;

/// Seconds ahead that are known, in a mebibyte: the window of certificates that live for longer than 30 hours ends later, and
/// their agents draw.
const SLOTS: usize = 65_536;
const AHEAD: u64 = SLOTS as u64;
/// Seconds looked at for one wish. A window that has more is looked at in steps, beginning a second later each time.
const LOOKED_AT: u64 = 64;
/// Of shorter lives, in seconds, the window is hardly longer than a second: their agents draw.
const SHORTEST: u64 = 60;

/// What was promised, by the second.
#[derive(Debug)]
pub(super) struct Renewals(Mutex<Promised>);

#[derive(Debug)]
struct Promised {
    /// A ring: the second `s` has slot `s % SLOTS`.
    slots: Box<[Slot]>,
    /// Wishes so far.
    given: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Which of the seconds that share the slot it speaks of: `s / AHEAD`. Of all others nothing is promised, so that time may go
    /// on, or step in either direction, without anything to be cleared.
    round: u64,
    renewals: u64,
}

impl Default for Renewals {
    fn default() -> Self {
        Self(Mutex::new(Promised { slots: vec![Slot::default(); SLOTS].into(), given: 0 }))
    }
}

impl Renewals {
    /// When a certificate that is issued `now` should be renewed, unix seconds: the emptiest second that is nearest to the
    /// middle of its dates, a tenth of its life away at most. It counts from now on. `None`: as the agent likes.
    pub(super) fn wish(&self, now: u64, dates: &Lifetime) -> Option<u64> {
        let life = dates.not_after.saturating_sub(dates.not_before);
        let (middle, reach) = (dates.not_before.saturating_add(life / 2), life / 10);
        let (first, last) = (middle.saturating_sub(reach).max(now.saturating_add(1)), middle.saturating_add(reach));
        if life < SHORTEST || first > last || last.saturating_sub(now) >= AHEAD {
            return None;
        }
        let mut promised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let step = (last - first + 1).div_ceil(LOOKED_AT);
        let begin = first + promised.given % step;
        let seconds = (0..LOOKED_AT).map(|index| begin + index * step).take_while(|second| *second <= last);
        let wish = seconds.min_by_key(|second| (promised.at(*second), second.abs_diff(middle)))?;
        promised.add(wish);
        Some(wish)
    }
}

impl Promised {
    fn at(&self, second: u64) -> u64 {
        let slot = usize::try_from(second % AHEAD).ok().and_then(|index| self.slots.get(index));
        slot.filter(|slot| slot.round == second / AHEAD).map_or(0, |slot| slot.renewals)
    }

    fn add(&mut self, second: u64) {
        let renewals = self.at(second).saturating_add(1);
        if let Some(slot) = usize::try_from(second % AHEAD).ok().and_then(|index| self.slots.get_mut(index)) {
            *slot = Slot { round: second / AHEAD, renewals };
        }
        self.given = self.given.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::leaf::Lifetimes;

    const NOW: u64 = 1_800_000_000;
    const HOUR: i64 = 3_600;

    fn dates(now: u64, life: i64) -> Lifetime {
        let lifetimes = Lifetimes { default: 3_600, maximum: 30 * 86_400 };
        lifetimes.dates(life, now, (now - 86_400, now + 90 * 86_400)).unwrap()
    }

    fn wish(renewals: &Renewals, now: u64, life: i64) -> Option<u64> {
        renewals.wish(now, &dates(now, life))
    }

    /// How many renewals fall into each second.
    fn counted(wishes: impl Iterator<Item = u64>) -> BTreeMap<u64, usize> {
        wishes.fold(BTreeMap::new(), |mut counts, second| {
            *counts.entry(second).or_default() += 1;
            counts
        })
    }

    #[test]
    fn a_herd_is_spread_over_the_whole_window_and_evenly() {
        let renewals = Renewals::default();
        let counts = counted((0..10_000).map(|_| wish(&renewals, NOW, HOUR).unwrap()));
        // A life of 3,660 s with what it is backdated by.
        let (middle, window) = (NOW - 60 + 1_830, 2 * 366 + 1);
        assert_eq!((counts.len(), counts.keys().next_back().unwrap() - middle), (window, 366));
        assert_eq!(middle - counts.keys().next().unwrap(), 366);
        let most = counts.values().max().unwrap();
        assert!(*most <= 10_000usize.div_ceil(window) + 2, "{most} in one second");
        // The same seconds are wanted by certificates of the next minute: what is taken stays so.
        let later = counted((0..10_000).map(|_| wish(&renewals, NOW + 60, HOUR).unwrap()));
        let beyond: usize = later.range(middle + 367..).map(|(_, count)| count).sum();
        assert!(beyond > 10_000 * 60 / window, "the seconds that were empty take more than their part: {beyond}");
    }

    #[test]
    fn who_comes_alone_renews_in_the_middle() {
        let renewals = Renewals::default();
        for hour in 0..50 {
            let now = NOW + hour * 3_600;
            let off = wish(&renewals, now, HOUR).unwrap().abs_diff(now - 60 + 1_830);
            assert!(off < 12, "{off} s off");
        }
    }

    #[test]
    fn the_window_lies_ahead_and_within_the_life() {
        for life in [60, 61, 90, 600, HOUR, 86_400, 30 * HOUR] {
            let (renewals, dates) = (Renewals::default(), dates(NOW, life));
            let whole = dates.not_after - dates.not_before;
            for _ in 0..1_000 {
                let wish = renewals.wish(NOW, &dates).unwrap();
                assert!(wish >= NOW + (dates.not_after - NOW) / 4, "{life}: a client must not spin");
                assert!((wish - dates.not_before).abs_diff(whole / 2) <= whole / 10, "{life}");
            }
        }
    }

    #[test]
    fn lives_of_seconds_and_of_weeks_get_no_wish() {
        let renewals = Renewals::default();
        for life in [1, 2, 10, 50, 86_400 * 2, 86_400 * 30] {
            assert_eq!(wish(&renewals, NOW, life), None, "{life}");
        }
        // Dates that no clock has.
        assert_eq!(renewals.wish(u64::MAX, &dates(NOW, HOUR)), None);
        let odd = Lifetime { not_before: 0, not_after: u64::MAX, shortened: false };
        assert_eq!(renewals.wish(NOW, &odd), None);
    }

    #[test]
    fn the_past_is_forgotten_whichever_way_the_clock_steps() {
        let renewals = Renewals::default();
        for now in [NOW, NOW + AHEAD, NOW + 7 * AHEAD, NOW - AHEAD] {
            let counts = counted((0..700).map(|_| wish(&renewals, now, HOUR).unwrap()));
            assert_eq!(counts.values().max(), Some(&1), "every second was empty");
        }
    }
}
