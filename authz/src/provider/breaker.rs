//! The circuit breaker: callers of a provider that is down learn so at once, and the provider is not run over while it
//! comes back.
//!
//! Only what says that the provider is away counts: connections that do not come about. What follows a question (an
//! end without an answer, a long silence) may be that question's doing, and one caller does not close a provider to all.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Limits;

/// Closed while there are connections; open after a row of failures to get one; then one check tries, and another
/// each time the first one took as long as the circuit had been open: nobody holds it open by being slow.
pub(super) struct Breaker {
    state: Mutex<State>,
    failures: u32,
    open_for: Duration,
    open_for_max: Duration,
    now: fn() -> Instant,
}

enum State {
    Closed { failures: u32 },
    Open { until: Instant, waited: Duration },
    Trying { until: Instant, waited: Duration },
}

/// Leave to ask. Says how it went by [`Ticket::reached`] or [`Ticket::failed`]; one that is dropped says nothing.
pub(super) struct Ticket<'a> {
    breaker: &'a Breaker,
    trial: bool,
    said: bool,
}

impl Breaker {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            state: Mutex::new(State::Closed { failures: 0 }),
            failures: limits.failures.max(1),
            open_for: limits.open_for,
            open_for_max: limits.open_for_max,
            now: limits.now,
        }
    }

    /// None while the circuit is open.
    pub(super) fn admit(&self) -> Option<Ticket<'_>> {
        let mut state = self.lock();
        let trial = match *state {
            State::Closed { .. } => false,
            State::Open { until, waited } | State::Trying { until, waited } if (self.now)() >= until => {
                *state = State::Trying { until: (self.now)() + waited, waited };
                true
            }
            State::Open { .. } | State::Trying { .. } => return None,
        };
        Some(Ticket { breaker: self, trial, said: false })
    }

    /// A connection came about: the provider is there, whatever becomes of the question.
    pub(super) fn connected(&self) {
        *self.lock() = State::Closed { failures: 0 };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment: a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket<'_> {
    /// The provider answered, whatever it said.
    pub(super) fn reached(mut self) {
        self.said = true;
        let mut state = self.breaker.lock();
        // The late answer of a check from before the circuit opened closes nothing.
        if self.trial || matches!(*state, State::Closed { .. }) {
            *state = State::Closed { failures: 0 };
        }
    }

    /// No connection came about.
    pub(super) fn failed(mut self) {
        self.said = true;
        let breaker = self.breaker;
        let mut state = breaker.lock();
        let waited = match *state {
            State::Closed { failures } if failures.saturating_add(1) < breaker.failures => {
                *state = State::Closed { failures: failures.saturating_add(1) };
                return;
            }
            State::Closed { .. } => breaker.open_for,
            State::Trying { waited, .. } if self.trial => waited.saturating_mul(2).min(breaker.open_for_max),
            State::Open { .. } | State::Trying { .. } => return,
        };
        *state = State::Open { until: (breaker.now)() + waited, waited };
    }
}

impl Drop for Ticket<'_> {
    /// Whoever tried went away before the answer: the next one tries.
    fn drop(&mut self) {
        if self.trial && !self.said {
            let mut state = self.breaker.lock();
            if let State::Trying { waited, .. } = *state {
                *state = State::Open { until: (self.breaker.now)(), waited };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static LATER: Cell<(Option<Instant>, Duration)> = const { Cell::new((None, Duration::ZERO)) };
    }

    fn now() -> Instant {
        let (base, later) = LATER.get();
        let base = base.unwrap_or_else(Instant::now);
        LATER.set((Some(base), later));
        base + later
    }

    fn pass(seconds: u64) {
        let (base, later) = LATER.get();
        LATER.set((base, later + Duration::from_secs(seconds)));
    }

    fn breaker() -> Breaker {
        let limits = Limits {
            failures: 3,
            open_for: Duration::from_secs(1),
            open_for_max: Duration::from_secs(3),
            now,
            ..Limits::default()
        };
        Breaker::new(&limits)
    }

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.admit().unwrap().failed();
        }
    }

    #[test]
    fn a_row_of_failures_opens_and_an_answer_ends_the_row() {
        let breaker = breaker();
        fail(&breaker, 2);
        breaker.admit().unwrap().reached();
        fail(&breaker, 2);
        drop(breaker.admit().unwrap());
        assert!(breaker.admit().is_some());
        fail(&breaker, 1);
        assert!(breaker.admit().is_none());
    }

    #[test]
    fn one_tries_after_a_while_and_waits_grow_to_the_limit() {
        let breaker = breaker();
        fail(&breaker, 3);
        for wait in [1, 2, 3, 3] {
            pass(wait - 1);
            assert!(wait == 1 || breaker.admit().is_none(), "{wait}");
            pass(1);
            let trial = breaker.admit().unwrap();
            assert!(breaker.admit().is_none(), "one at a time");
            trial.failed();
            assert!(breaker.admit().is_none());
        }
        pass(3);
        breaker.admit().unwrap().reached();
        fail(&breaker, 2);
        assert!(breaker.admit().is_some(), "closed, and the row begins anew");
    }

    #[test]
    fn a_trial_that_is_given_up_lets_the_next_one_try() {
        let breaker = breaker();
        fail(&breaker, 3);
        pass(1);
        drop(breaker.admit().unwrap());
        breaker.admit().unwrap().reached();
        assert!(breaker.admit().is_some());
    }

    #[test]
    fn a_slow_trial_keeps_nobody_else_from_trying_and_a_connection_ends_it() {
        let breaker = breaker();
        fail(&breaker, 3);
        pass(1);
        let slow = breaker.admit().unwrap();
        assert!(breaker.admit().is_none());
        pass(1);
        let other = breaker.admit().unwrap();
        assert!(breaker.admit().is_none());
        breaker.connected();
        assert!(breaker.admit().is_some(), "while both still wait for their answers");
        drop((slow, other));
        assert!(breaker.admit().is_some());
    }

    #[test]
    fn late_news_from_before_it_opened_change_nothing() {
        let breaker = breaker();
        let (late, later) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        fail(&breaker, 3);
        late.reached();
        later.failed();
        assert!(breaker.admit().is_none());
        pass(1);
        assert!(breaker.admit().is_some(), "and it opened for no longer");
    }
}
