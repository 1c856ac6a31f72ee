//! When to renew, and when to try again.
//!
//! Everything here is arithmetic on arguments: the wall clock, the monotonic clock and the random draw are the
//! caller's, so a test owns all three. Certificate dates are wall-clock dates, and machines sleep and step their
//! clocks, so the caller asks again at least once a minute instead of trusting one long timer.

use std::time::Duration;

use rustls_pki_types::UnixTime;

/// The longest the agent sleeps before it looks at the wall clock again.
pub const REEVALUATE: Duration = Duration::from_secs(60);
/// First delay after a failure.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Longest delay after a failure.
pub const BACKOFF_LAST: Duration = Duration::from_secs(60);
/// Half of the width of the renewal window, as a share of the lifetime.
const SPREAD: f64 = 0.1;
/// Resolution of [`UnixTime`]; nearer than this the agent polls.
const TICK: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(100);

/// A number drawn uniformly from `[0, 1)`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Draw(f64);

impl Draw {
    /// The draw that 32 random bits stand for.
    pub fn from_bits(bits: u32) -> Self {
        Self(f64::from(bits) / (f64::from(u32::MAX) + 1.0))
    }

    /// Spread over `[-1, 1)`.
    fn signed(self) -> f64 {
        self.0.mul_add(2.0, -1.0)
    }
}

/// The dates of a certificate in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second at which it is valid.
    pub not_before: UnixTime,
    /// Last second at which it is valid.
    pub not_after: UnixTime,
    /// When it was received.
    pub received: UnixTime,
}

impl Validity {
    /// Whole seconds between the two dates.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.not_after.as_secs().saturating_sub(self.not_before.as_secs()))
    }

    /// Is `now` within the dates?
    pub fn contains(&self, now: UnixTime) -> bool {
        self.not_before.as_secs() <= now.as_secs() && now.as_secs() <= self.not_after.as_secs()
    }
}

/// When to renew: the middle of the dates, spread uniformly over ±10 % of the lifetime.
///
/// An authority that backdates by as much as it grants would put the middle into the past, and a client that obeys
/// would spin; so a quarter of what was left at receipt always passes first.
pub fn renew_at(validity: &Validity, draw: Draw) -> UnixTime {
    let lifetime = validity.lifetime().as_secs_f64();
    let middle = lifetime.mul_add(SPREAD * draw.signed(), lifetime / 2.0);
    let wanted = validity.not_before.as_secs().saturating_add(whole(middle));
    let left = validity.not_after.as_secs().saturating_sub(validity.received.as_secs());
    let earliest = validity.received.as_secs().saturating_add((left / 4).max(1));
    UnixTime::since_unix_epoch(Duration::from_secs(wanted.max(earliest)))
}

/// How long to sleep before looking again whether `due` has come.
///
/// At most [`REEVALUATE`]; the last second is polled, because the wall clock is read in whole seconds.
pub fn wait(now: UnixTime, due: UnixTime) -> Duration {
    let left = Duration::from_secs(due.as_secs().saturating_sub(now.as_secs()));
    if left.is_zero() {
        Duration::ZERO
    } else if left <= TICK {
        POLL
    } else {
        (left - TICK).min(REEVALUATE)
    }
}

/// The delay before attempt number `failures + 1`, after `failures` failures in a row.
///
/// Doubles from 0.5 s to 60 s, spread by ±20 %. Where a certificate of a shorter life is at stake the ceiling is a
/// tenth of that life, so that short-lived identities do not lapse while the agent waits.
pub fn retry_after(failures: u32, lifetime: Option<Duration>, draw: Draw) -> Duration {
    let ceiling = lifetime.map_or(BACKOFF_LAST, |life| (life / 10).clamp(BACKOFF_FIRST, BACKOFF_LAST));
    let doublings = failures.saturating_sub(1).min(16);
    let nominal = BACKOFF_FIRST.saturating_mul(1 << doublings).min(ceiling);
    nominal.mul_f64(draw.signed().mul_add(0.2, 1.0))
}

/// The delay after the authority said no: asking again at once cannot help, and a crowd of callers who do is an
/// attack. Spread by ±20 % around the longest back-off.
pub fn retry_after_refusal(draw: Draw) -> Duration {
    BACKOFF_LAST.mul_f64(draw.signed().mul_add(0.2, 1.0))
}

/// Seconds, rounded down; never negative.
fn whole(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds.max(0.0)).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: Draw = Draw(0.0);
    const MIDDLE: Draw = Draw(0.5);
    const HIGH: Draw = Draw(0.999_999);

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn validity(not_before: u64, not_after: u64, received: u64) -> Validity {
        Validity { not_before: at(not_before), not_after: at(not_after), received: at(received) }
    }

    #[test]
    fn trap_30_an_hour_is_renewed_in_the_middle_spread_over_a_fifth() {
        let hour = validity(10_000, 13_600, 10_060);
        assert_eq!(renew_at(&hour, MIDDLE), at(11_800));
        assert_eq!(renew_at(&hour, LOW), at(11_440));
        assert_eq!(renew_at(&hour, HIGH), at(12_159));
    }

    #[test]
    fn the_spread_is_uniform() {
        let day = validity(0, 86_400, 60);
        let mut buckets = [0_u32; 4];
        for step in 0..400_u32 {
            let due = renew_at(&day, Draw(f64::from(step) / 400.0)).as_secs();
            let bucket = (due - 34_560) * 4 / 17_280;
            buckets[usize::try_from(bucket).unwrap()] += 1;
        }
        assert_eq!(buckets, [100; 4]);
    }

    #[test]
    fn seconds_of_life_are_enough() {
        for life in 2..20 {
            let short = validity(100, 100 + life, 100);
            for draw in [LOW, MIDDLE, HIGH] {
                let due = renew_at(&short, draw);
                assert!(due > at(100) && due < at(100 + life), "life {life}: due {due:?}");
            }
        }
    }

    #[test]
    fn trap_20_heavy_backdating_does_not_spin() {
        // Granted 10 s, backdated by 60 s: the middle of the dates was 25 s ago.
        let odd = validity(1_000, 1_070, 1_060);
        assert!(renew_at(&odd, LOW) > at(1_060));
        // Received after its end: still not at once.
        assert!(renew_at(&validity(0, 10, 50), LOW) > at(50));
    }

    #[test]
    fn trap_29_the_wall_clock_is_looked_at_every_minute() {
        assert_eq!(wait(at(0), at(86_400)), REEVALUATE);
        assert_eq!(wait(at(0), at(30)), Duration::from_secs(29));
        assert_eq!(wait(at(0), at(1)), POLL);
        assert_eq!(wait(at(5), at(5)), Duration::ZERO);
        assert_eq!(wait(at(6), at(5)), Duration::ZERO, "a suspended machine wakes late");
    }

    #[test]
    fn back_off_doubles_to_a_minute() {
        let delays: Vec<u64> =
            (1..=9).map(|n| u64::try_from(retry_after(n, None, MIDDLE).as_millis()).unwrap()).collect();
        assert_eq!(delays, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(retry_after(u32::MAX, None, MIDDLE), BACKOFF_LAST);
        assert_eq!(retry_after(1, None, LOW), Duration::from_millis(400));
        assert!(retry_after(1, None, HIGH) > Duration::from_millis(599));
    }

    #[test]
    fn back_off_is_shorter_where_the_life_is_short() {
        let life = Some(Duration::from_secs(20));
        assert_eq!(retry_after(9, life, MIDDLE), Duration::from_secs(2));
        assert_eq!(retry_after(9, Some(Duration::from_secs(1)), MIDDLE), BACKOFF_FIRST);
        assert_eq!(retry_after(9, Some(Duration::from_secs(86_400)), MIDDLE), BACKOFF_LAST);
    }

    #[test]
    fn a_refusal_waits_about_a_minute() {
        assert!(retry_after_refusal(LOW) >= Duration::from_secs(48));
        assert!(retry_after_refusal(HIGH) <= Duration::from_secs(72));
    }

    #[test]
    fn dates_include_both_ends() {
        let v = validity(10, 20, 10);
        assert!(!v.contains(at(9)) && v.contains(at(10)) && v.contains(at(20)) && !v.contains(at(21)));
    }

    #[test]
    fn bits_cover_the_range() {
        assert_eq!(Draw::from_bits(0), Draw(0.0));
        assert!(Draw::from_bits(u32::MAX).0 < 1.0);
    }
}
