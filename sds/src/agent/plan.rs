//! What the renewal loop does next, as a function of the two clocks.

use std::time::Duration;

use rustls_pki_types::UnixTime;
use tokio::time::Instant;

use crate::schedule::{self, Draw, REEVALUATE, Validity};

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the authority.
    Attempt,
    /// Look again after this time.
    Sleep(Duration),
}

/// When the identity in hand is to be renewed, and when a failed attempt may be repeated.
///
/// The former is wall-clock time, as certificates are; the latter is monotonic, so that a stepped clock neither
/// repeats attempts at once nor holds them back.
#[derive(Debug)]
pub(super) struct Plan {
    validity: Option<Validity>,
    due: UnixTime,
    failures: u32,
    not_before: Option<Instant>,
}

impl Plan {
    /// With the identity that the agent starts with.
    pub(super) fn new(validity: Option<Validity>, draw: Draw) -> Self {
        let mut plan =
            Self { validity: None, due: UnixTime::since_unix_epoch(Duration::ZERO), failures: 0, not_before: None };
        if let Some(validity) = validity {
            plan.installed(validity, draw);
        }
        plan
    }

    /// A certificate was installed.
    pub(super) fn installed(&mut self, validity: Validity, draw: Draw) {
        *self =
            Self { due: schedule::renew_at(&validity, draw), validity: Some(validity), failures: 0, not_before: None };
    }

    /// An attempt failed in a way that may pass.
    pub(super) fn failed(&mut self, instant: Instant, draw: Draw) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let lifetime = self.validity.map(|validity| validity.lifetime());
        let delay = schedule::retry_after(self.failures, lifetime, draw);
        self.not_before = Some(instant + delay);
        delay
    }

    /// The authority is busy and wishes not to be asked before this time has passed.
    pub(super) fn pushed_back(&mut self, instant: Instant, wish: Duration) {
        self.not_before = self.not_before.max(Some(instant + wish));
    }

    /// The authority said no.
    pub(super) fn refused(&mut self, instant: Instant, draw: Draw) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let delay = schedule::retry_after_refusal(draw);
        self.not_before = Some(instant + delay);
        delay
    }

    /// The operator wants a new certificate now.
    pub(super) fn force(&mut self) {
        self.due = UnixTime::since_unix_epoch(Duration::ZERO);
        self.not_before = None;
    }

    /// When the certificate in hand is to be renewed.
    pub(super) fn due(&self) -> UnixTime {
        self.due
    }

    /// What to do now.
    pub(super) fn step(&self, now: UnixTime, instant: Instant) -> Step {
        let held_back = self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(instant));
        let valid = self.validity.is_some_and(|validity| validity.contains(now));
        if !valid || now.as_secs() >= self.due.as_secs() {
            if held_back.is_zero() {
                return Step::Attempt;
            }
            return Step::Sleep(held_back.min(self.until_expiry(now)).min(REEVALUATE));
        }
        Step::Sleep(schedule::wait(now, self.due).min(self.until_expiry(now)))
    }

    /// Readiness changes when the certificate expires, so the loop looks at it then.
    fn until_expiry(&self, now: UnixTime) -> Duration {
        match &self.validity {
            Some(validity) if validity.contains(now) => {
                let after = validity.not_after.as_secs().saturating_add(1);
                schedule::wait(now, UnixTime::since_unix_epoch(Duration::from_secs(after)))
            }
            _ => REEVALUATE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn hour(from: u64) -> Validity {
        Validity { not_before: at(from), not_after: at(from + 3600), received: at(from) }
    }

    fn draw() -> Draw {
        Draw::from_bits(u32::MAX / 2)
    }

    #[test]
    fn without_an_identity_it_asks_at_once() {
        assert_eq!(Plan::new(None, draw()).step(at(5), Instant::now()), Step::Attempt);
    }

    #[test]
    fn with_a_fresh_one_it_waits_for_the_middle_looking_up_each_minute() {
        let instant = Instant::now();
        let plan = Plan::new(Some(hour(1_000)), draw());
        assert_eq!(plan.step(at(1_000), instant), Step::Sleep(REEVALUATE));
        assert_eq!(plan.step(at(2_798), instant), Step::Sleep(Duration::from_millis(100)));
        assert_eq!(plan.step(plan.due(), instant), Step::Attempt);
        // A machine that slept for a day wakes up with an expired identity.
        assert_eq!(plan.step(at(90_000), instant), Step::Attempt);
        // A clock set back before the certificate's start: the identity is of no use now.
        assert_eq!(plan.step(at(10), instant), Step::Attempt);
    }

    #[test]
    fn failures_hold_it_back_on_the_monotonic_clock() {
        let start = Instant::now();
        let mut plan = Plan::new(None, draw());
        let first = plan.failed(start, draw());
        assert_eq!(plan.step(at(5), start), Step::Sleep(first));
        assert_eq!(plan.step(at(900_000), start), Step::Sleep(first), "a clock step does not shorten it");
        assert_eq!(plan.step(at(5), start + first), Step::Attempt);
        let second = plan.failed(start, draw());
        assert!(second > first);
        let refusal = plan.refused(start, draw());
        assert!(refusal > Duration::from_secs(40));
        assert_eq!(plan.step(at(5), start + Duration::from_secs(30)), Step::Sleep(refusal - Duration::from_secs(30)));
    }

    #[test]
    fn a_busy_authority_holds_it_back_longer_and_never_shorter() {
        let start = Instant::now();
        let mut plan = Plan::new(None, draw());
        let own = plan.failed(start, draw());
        plan.pushed_back(start, Duration::from_secs(9));
        assert_eq!(plan.step(at(5), start), Step::Sleep(Duration::from_secs(9)));
        plan.pushed_back(start, own / 2);
        assert_eq!(plan.step(at(5), start), Step::Sleep(Duration::from_secs(9)));
    }

    #[test]
    fn success_forgets_the_failures() {
        let start = Instant::now();
        let mut plan = Plan::new(None, draw());
        for _ in 0..9 {
            plan.failed(start, draw());
        }
        plan.installed(hour(1_000), draw());
        assert_eq!(plan.step(at(1_100), start), Step::Sleep(REEVALUATE));
        assert!(plan.failed(start, draw()) < Duration::from_secs(1));
    }

    #[test]
    fn an_operator_overrides_schedule_and_back_off() {
        let start = Instant::now();
        let mut plan = Plan::new(Some(hour(1_000)), draw());
        plan.force();
        assert_eq!(plan.step(at(1_001), start), Step::Attempt);
        plan.refused(start, draw());
        assert_ne!(plan.step(at(1_001), start), Step::Attempt);
        plan.force();
        assert_eq!(plan.step(at(1_001), start), Step::Attempt);
    }

    #[test]
    fn it_looks_up_when_the_identity_expires() {
        let start = Instant::now();
        let mut plan = Plan::new(Some(hour(1_000)), draw());
        plan.refused(start, draw());
        assert_eq!(plan.step(at(4_590), start), Step::Sleep(Duration::from_secs(10)));
    }
}
