//! Delays between connections: short at first, because most failures are a restart; spread, so that the proxies of a server
//! that comes back do not come all at once.

use std::time::Duration;

use aws_lc_rs::rand;

/// Doubling delays with jitter.
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// Starts again from the shortest delay.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }

    /// The next delay: between half of the present step and all of it.
    pub(super) fn next_delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        step.mul_f64(0.5 + fraction() / 2.0)
    }
}

/// Uniform in 0..1. Without randomness the middle does: the delay matters more than its spread.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_limit_and_starts_again() {
        let (min, max) = (Duration::from_millis(10), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max);
        let mut step = min;
        for _ in 0..20 {
            let delay = backoff.next_delay();
            assert!(delay >= step / 2 && delay <= step, "{delay:?} outside the half of {step:?}");
            step = (step * 2).min(max);
        }
        assert_eq!(step, max);
        backoff.reset();
        assert!(backoff.next_delay() <= min);
    }
}
