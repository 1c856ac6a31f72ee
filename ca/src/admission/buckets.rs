//! A budget for each key: tokens that come back with time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Keys that are remembered; a full bucket is the same as none, and goes first.
const MAX_KEYS: usize = 65_536;
/// What those share that come when no more are remembered.
const OTHERS: &str = "";

#[derive(Debug)]
pub(super) struct Buckets {
    rate: f64,
    burst: f64,
    held: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Buckets {
    /// `rate` tokens a second, `burst` at most; zero counts as one.
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        Self { rate: f64::from(rate.max(1)), burst: f64::from(burst.max(1)), held: Mutex::default() }
    }

    /// Takes `cost` tokens if there is one, or says after how long there will be one. What there is may be overdrawn: what can only
    /// be had as a whole would never be served by a smaller bucket, and whoever takes it waits the longer for the next.
    pub(super) fn take(&self, key: &str, cost: u32, now: Instant) -> Result<(), Duration> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if held.len() < MAX_KEYS || held.contains_key(key) { key } else { self.room(&mut held, key, now) };
        let bucket = held.get(key).map_or(Bucket { tokens: self.burst, at: now }, |bucket| self.filled(*bucket, now));
        let left = self.judge(bucket);
        let tokens = if left.is_ok() { bucket.tokens - f64::from(cost) } else { bucket.tokens };
        held.insert(key.to_owned(), Bucket { tokens, ..bucket });
        left
    }

    /// Whether there is a token, without taking it.
    pub(super) fn check(&self, key: &str, now: Instant) -> Result<(), Duration> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(key).map_or(Ok(()), |bucket| self.judge(self.filled(*bucket, now)))
    }

    fn judge(&self, bucket: Bucket) -> Result<(), Duration> {
        if bucket.tokens >= 1.0 {
            return Ok(());
        }
        // A millisecond more: who comes back exactly then must find it.
        Err(Duration::from_secs_f64((1.0 - bucket.tokens) / self.rate) + Duration::from_millis(1))
    }

    fn filled(&self, bucket: Bucket, now: Instant) -> Bucket {
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * self.rate;
        Bucket { tokens: (bucket.tokens + gained).min(self.burst), at: now }
    }

    fn room<'k>(&self, held: &mut HashMap<String, Bucket>, key: &'k str, now: Instant) -> &'k str {
        held.retain(|_, bucket| self.filled(*bucket, now).tokens < self.burst);
        if held.len() < MAX_KEYS { key } else { OTHERS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_comes_back() {
        let (buckets, start) = (Buckets::new(10, 3), Instant::now());
        for _ in 0..3 {
            buckets.take("a", 1, start).unwrap();
        }
        let wait = buckets.take("a", 1, start).unwrap_err();
        assert!((100..=102).contains(&wait.as_millis()), "{wait:?}");
        buckets.take("b", 1, start).expect("another key has its own");
        buckets.take("a", 1, start + wait).expect("who comes back when told is served");
        assert!(buckets.take("a", 1, start + wait).is_err());
        for _ in 0..3 {
            buckets.take("a", 1, start + Duration::from_secs(3_600)).unwrap();
        }
        assert!(buckets.take("a", 1, start + Duration::from_secs(3_600)).is_err(), "never more than the burst");
        assert!(buckets.check("c", start).is_ok() && buckets.check("a", start + Duration::from_secs(3_600)).is_err());
    }

    #[test]
    fn what_is_taken_at_once_is_paid_for_before_the_next() {
        let (buckets, start) = (Buckets::new(10, 20), Instant::now());
        buckets.take("a", 500, start).expect("a batch larger than the bucket is served once");
        let wait = buckets.take("a", 1, start).unwrap_err();
        assert!((48_100..=48_102).contains(&wait.as_millis()), "480 tokens are owed: {wait:?}");
        assert!(buckets.take("a", 1, start + wait / 2).is_err());
        buckets.take("a", 500, start + wait).expect("who comes back when told is served");
        buckets.take("a", 1, start + wait * 2).unwrap_err();
    }

    #[test]
    fn keys_are_bounded_and_idle_ones_make_room() {
        let (buckets, start) = (Buckets::new(1, 2), Instant::now());
        for key in 0..MAX_KEYS + 10 {
            let _ = buckets.take(&key.to_string(), 1, start);
        }
        assert!(buckets.held.lock().unwrap().len() <= MAX_KEYS + 1);
        assert!(buckets.take("late", 1, start).is_err(), "latecomers share one budget");
        buckets.take("late", 1, start + Duration::from_secs(10)).unwrap();
        assert_eq!(buckets.held.lock().unwrap().len(), 1, "what is full again is forgotten");
    }
}
