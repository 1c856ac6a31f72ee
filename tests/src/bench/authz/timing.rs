//! Timing calls that take less than reading the clock twice.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one row may take.
const BUDGET: Duration = Duration::from_millis(600);
/// Calls timed at most.
const CALLS: usize = 200_000;

/// Median and 99th percentile of single calls over `items` in turn, in nanoseconds. The first tenth warms up.
pub fn many<T, R>(items: &[T], mut call: impl FnMut(&T) -> R) -> (u64, u64) {
    let overhead = overhead();
    let begin = Instant::now();
    let mut times = Vec::with_capacity(CALLS);
    for item in items.iter().cycle().take(CALLS / 10) {
        black_box(call(black_box(item)));
        if begin.elapsed() > BUDGET / 10 {
            break;
        }
    }
    for item in items.iter().cycle().take(CALLS) {
        let start = Instant::now();
        black_box(call(black_box(item)));
        let end = Instant::now();
        times.push((end - start).saturating_sub(overhead));
        if end - begin > BUDGET {
            break;
        }
    }
    percentiles(times)
}

/// The same of calls that take long: 3 to 21 of them. What a call returns is dropped off the clock.
pub fn few<R>(mut call: impl FnMut() -> R) -> (u64, u64) {
    few_prepared(|| (), |&()| call())
}

/// The same, each call with something that is made and dropped off the clock.
pub fn few_prepared<T, R>(mut prepare: impl FnMut() -> T, mut call: impl FnMut(&T) -> R) -> (u64, u64) {
    let begin = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || (times.len() < 21 && begin.elapsed() < BUDGET) {
        let prepared = prepare();
        let start = Instant::now();
        let result = black_box(call(&prepared));
        times.push(start.elapsed());
        drop((prepared, result));
    }
    percentiles(times)
}

/// What two readings of the clock cost by themselves.
fn overhead() -> Duration {
    let mut pairs: Vec<Duration> = (0..10_001)
        .map(|_| {
            let start = Instant::now();
            Instant::now() - start
        })
        .collect();
    pairs.sort_unstable();
    pairs.get(pairs.len() / 2).copied().unwrap_or_default()
}

/// Median and 99th percentile in nanoseconds; zeros of nothing.
pub fn percentiles(mut times: Vec<Duration>) -> (u64, u64) {
    times.sort_unstable();
    let at = |share: usize| {
        let index = (times.len() * share / 100).min(times.len().saturating_sub(1));
        times.get(index).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    };
    (at(50), at(99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_hundred() {
        let times = (1..=100).rev().map(Duration::from_nanos).collect();
        assert_eq!(percentiles(times), (51, 100));
        assert_eq!(percentiles(Vec::new()), (0, 0));
    }
}
