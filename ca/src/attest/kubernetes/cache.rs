//! A short memory for reviewers that ask somebody else: a pod that asks for ten certificates is one question, and a stranger
//! who sends the same bad token for ever is one, too.
//!
//! Good and bad answers are kept apart, each bounded, so that a flood of bad tokens cannot push good ones out. Only hashes of
//! tokens are kept. Questions in flight are bounded as well: more wait.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{Holder, Review, ReviewError, TokenReviewer};
use crate::signer::sha256;

/// How much is remembered, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// Answers of each kind, good and bad.
    pub entries: usize,
    /// A good answer counts for so long, and never beyond the token's end.
    pub good: Duration,
    /// A bad answer counts for so long.
    pub bad: Duration,
    /// Questions at once.
    pub in_flight: usize,
}

impl Default for CacheLimits {
    /// 4,096 answers of each kind; a minute for good ones, ten seconds for bad ones; 16 questions at once.
    fn default() -> Self {
        Self { entries: 4_096, good: Duration::from_secs(60), bad: Duration::from_secs(10), in_flight: 16 }
    }
}

/// A reviewer that remembers the answers of another one.
#[derive(Debug)]
pub struct CachedReviewer<R> {
    reviewer: R,
    limits: CacheLimits,
    good: Mutex<Memory<Holder>>,
    bad: Mutex<Memory<&'static str>>,
    asking: Semaphore,
}

type Memory<T> = HashMap<[u8; 32], (u64, T)>;

impl<R: TokenReviewer> CachedReviewer<R> {
    /// Remembers what `reviewer` says.
    #[must_use]
    pub fn new(reviewer: R, limits: CacheLimits) -> Self {
        let asking = Semaphore::new(limits.in_flight);
        Self { reviewer, limits, good: Mutex::default(), bad: Mutex::default(), asking }
    }

    async fn judge(&self, token: &str, now: u64) -> Result<Holder, ReviewError> {
        let hash = sha256(token.as_bytes());
        if let Some(known) = self.known(&hash, now) {
            return known;
        }
        let closed = ReviewError::Unavailable("review-closed");
        let _asking = self.asking.acquire().await.map_err(|_| closed)?;
        // Somebody else may have asked the same while this one waited.
        if let Some(known) = self.known(&hash, now) {
            return known;
        }
        let answer = self.reviewer.review(token, now).await;
        match &answer {
            Ok(holder) => {
                let until = now.saturating_add(self.limits.good.as_secs()).min(holder.expires);
                keep(&self.good, self.limits.entries, hash, now, (until, holder.clone()));
            }
            Err(ReviewError::Refused(code)) => {
                let until = now.saturating_add(self.limits.bad.as_secs());
                keep(&self.bad, self.limits.entries, hash, now, (until, *code));
            }
            // Not an answer: the next one may ask again.
            Err(ReviewError::Unavailable(_)) => {}
        }
        answer
    }

    fn known(&self, hash: &[u8; 32], now: u64) -> Option<Result<Holder, ReviewError>> {
        let good = find(&self.good, hash, now).map(Ok);
        good.or_else(|| find(&self.bad, hash, now).map(|code| Err(ReviewError::Refused(code))))
    }
}

impl<R: TokenReviewer> TokenReviewer for CachedReviewer<R> {
    fn review<'a>(&'a self, token: &'a str, now: u64) -> Review<'a> {
        Box::pin(self.judge(token, now))
    }
}

fn find<T: Clone>(memory: &Mutex<Memory<T>>, hash: &[u8; 32], now: u64) -> Option<T> {
    let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    memory.get(hash).filter(|(until, _)| now < *until).map(|(_, answer)| answer.clone())
}

/// Makes room by forgetting what has ended; if nothing has, everything: the next minute asks again, which is bounded.
fn keep<T>(memory: &Mutex<Memory<T>>, entries: usize, hash: [u8; 32], now: u64, answer: (u64, T)) {
    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    if memory.len() >= entries {
        memory.retain(|_, (until, _)| now < *until);
    }
    if memory.len() >= entries {
        memory.clear();
    }
    memory.insert(hash, answer);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers by the token's first letter, and counts.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl TokenReviewer for Counting {
        fn review<'a>(&'a self, token: &'a str, now: u64) -> Review<'a> {
            Box::pin(async move {
                self.0.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                match token.chars().next() {
                    Some('g') => Ok(Holder {
                        namespace: "shop".into(),
                        service_account: token.into(),
                        pod: None,
                        node: None,
                        expires: now + 30,
                    }),
                    Some('b') => Err(ReviewError::Refused("token-expired")),
                    _ => Err(ReviewError::Unavailable("away")),
                }
            })
        }
    }

    fn cached(entries: usize) -> CachedReviewer<Counting> {
        CachedReviewer::new(Counting::default(), CacheLimits { entries, ..CacheLimits::default() })
    }

    impl CachedReviewer<Counting> {
        fn asked(&self) -> usize {
            self.reviewer.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn trap_40_answers_count_for_their_time_good_and_bad() {
        let cache = cached(8);
        for now in [100, 110, 129] {
            assert_eq!(cache.review("good", now).await.unwrap().expires, 130);
        }
        assert_eq!(cache.asked(), 1);
        cache.review("good", 130).await.unwrap();
        assert_eq!(cache.asked(), 2, "never beyond the token's end");
        for now in [200, 209, 210] {
            assert_eq!(cache.review("bad", now).await, Err(ReviewError::Refused("token-expired")));
        }
        assert_eq!(cache.asked(), 4);
        for _ in 0..2 {
            assert_eq!(cache.review("away", 300).await, Err(ReviewError::Unavailable("away")));
        }
        assert_eq!(cache.asked(), 6, "an outage is not remembered");
    }

    #[tokio::test]
    async fn trap_40_a_flood_of_bad_tokens_is_bounded_and_pushes_no_good_one_out() {
        let cache = cached(100);
        cache.review("good", 100).await.unwrap();
        for number in 0..10_000 {
            cache.review(&format!("bad {number}"), 100).await.unwrap_err();
        }
        assert!(cache.bad.lock().unwrap().len() <= 100);
        let asked = cache.asked();
        cache.review("good", 100).await.unwrap();
        assert_eq!(cache.asked(), asked);
    }

    #[tokio::test]
    async fn many_who_ask_the_same_at_once_are_one_question_with_one_slot() {
        let limits = CacheLimits { in_flight: 1, ..CacheLimits::default() };
        let cache = CachedReviewer::new(Counting::default(), limits);
        let all = futures_join(&cache).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(cache.asked(), 1);
    }

    async fn futures_join(cache: &CachedReviewer<Counting>) -> Vec<Result<Holder, ReviewError>> {
        let (a, b, c) = tokio::join!(cache.review("g", 1), cache.review("g", 1), cache.review("g", 1));
        vec![a, b, c]
    }
}
