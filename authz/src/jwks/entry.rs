//! One source of keys and the task that keeps it fresh.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use palisade_identity::error_chain;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::cache::{JwksConfig, JwksState};
use super::fetch::{FetchError, Fetcher, Source};
use super::key_set::KeySet;

pub(super) struct Entry {
    source: Source,
    /// The last good set; a failed fetch leaves it.
    keys: ArcSwapOption<KeySet>,
    outcome: watch::Sender<Outcome>,
    hurry: Notify,
    followers: Mutex<Followers>,
}

#[derive(Default)]
struct Outcome {
    /// Whether a fetch has ended yet, well or badly.
    known: bool,
    error: Option<String>,
}

struct Followers {
    leases: Vec<Weak<()>>,
    /// The longest of all rules that name the source.
    timeout: Duration,
}

impl Entry {
    pub(super) fn new(source: Source, timeout: Duration) -> Self {
        Self {
            source,
            keys: ArcSwapOption::empty(),
            outcome: watch::Sender::default(),
            hurry: Notify::new(),
            followers: Mutex::new(Followers { leases: Vec::new(), timeout }),
        }
    }

    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    pub(super) fn follow(&self, lease: &Arc<()>, timeout: Duration) {
        let mut followers = self.followers();
        followers.timeout = followers.timeout.max(timeout);
        let lease = Arc::downgrade(lease);
        if !followers.leases.iter().any(|known| known.ptr_eq(&lease)) {
            followers.leases.push(lease);
        }
    }

    pub(super) fn is_followed(&self) -> bool {
        let mut followers = self.followers();
        followers.leases.retain(|lease| lease.strong_count() > 0);
        !followers.leases.is_empty()
    }

    /// `None` once an outcome is known. Does not need the runtime that fetches.
    pub(super) fn first_outcome(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let mut outcome = self.outcome.subscribe();
        if outcome.borrow().known {
            return None;
        }
        Some(async move {
            // An error means that the cache is gone: there is nothing left to wait for.
            let _ = outcome.wait_for(|outcome| outcome.known).await;
        })
    }

    pub(super) fn state(&self) -> JwksState {
        let (Source::Uri(source) | Source::Issuer(source)) = self.source.clone();
        let keys = self.keys.load().as_ref().map(|set| set.len());
        JwksState { source, keys, error: self.outcome.borrow().error.clone() }
    }

    /// Fetches for as long as somebody follows.
    pub(super) async fn run(self: Arc<Self>, fetcher: Arc<Fetcher>, config: JwksConfig) {
        let mut failures = 0_u32;
        while self.is_followed() {
            let started = Instant::now();
            let limit = self.followers().timeout;
            let fetched = timeout(limit, fetcher.key_set(&self.source)).await;
            let wait = match fetched.unwrap_or(Err(FetchError::Timeout)) {
                Ok(set) => {
                    failures = 0;
                    self.succeeded(set);
                    config.refresh
                }
                Err(error) => {
                    self.failed(&error);
                    failures = failures.saturating_add(1);
                    back_off(&config, failures)
                }
            };
            self.rest(started, wait, config.early.min(wait)).await;
        }
    }

    /// Until `wait` is over, or somebody hurries; not before `soonest`.
    async fn rest(&self, started: Instant, wait: Duration, soonest: Duration) {
        let hurried = async {
            self.hurry.notified().await;
            sleep_until(started + soonest).await;
        };
        tokio::select! {
            () = sleep_until(started + wait) => {}
            () = hurried => {}
        }
    }

    fn succeeded(&self, set: KeySet) {
        self.keys.store(Some(Arc::new(set)));
        self.outcome.send_replace(Outcome { known: true, error: None });
    }

    /// Logged when the trouble changes, not at each attempt.
    fn failed(&self, error: &FetchError) {
        let text = error_chain(error);
        let (Source::Uri(source) | Source::Issuer(source)) = &self.source;
        if self.outcome.borrow().error.as_deref() != Some(text.as_str()) {
            let kept = self.keys.load().is_some();
            tracing::warn!(%source, error = %text, kept, "cannot fetch the keys of an issuer");
        }
        self.outcome.send_replace(Outcome { known: true, error: Some(text) });
    }

    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn back_off(config: &JwksConfig, failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    config.negative_ttl.saturating_mul(doubled).min(config.refresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry::new(Source::Uri("http://keys.example".to_owned()), Duration::from_secs(5))
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_fetch_comes_when_its_time_is_over() {
        let (entry, started) = (entry(), Instant::now());
        entry.rest(started, Duration::from_secs(300), Duration::from_secs(30)).await;
        assert_eq!(started.elapsed().as_secs(), 300);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_hurry_there_is_one_fetch_in_the_shortest_time() {
        let (entry, started) = (entry(), Instant::now());
        for round in 1..=3 {
            for _ in 0..1000 {
                entry.hurry();
            }
            entry.rest(Instant::now(), Duration::from_secs(300), Duration::from_secs(30)).await;
            assert_eq!(started.elapsed().as_secs(), 30 * round);
        }
        entry.rest(Instant::now(), Duration::from_secs(300), Duration::from_secs(30)).await;
        assert_eq!(started.elapsed().as_secs(), 390, "a hurry counts once");
    }

    #[test]
    fn the_longest_timeout_of_all_followers_counts_and_leases_end() {
        let entry = entry();
        let (one, two) = (Arc::new(()), Arc::new(()));
        assert!(!entry.is_followed());
        entry.follow(&one, Duration::from_secs(9));
        entry.follow(&two, Duration::from_secs(7));
        entry.follow(&two, Duration::from_secs(7));
        let (timeout, leases) = {
            let followers = entry.followers();
            (followers.timeout.as_secs(), followers.leases.len())
        };
        assert_eq!((timeout, leases), (9, 2));
        drop(one);
        assert!(entry.is_followed());
        drop(two);
        assert!(!entry.is_followed());
    }

    #[test]
    fn waits_double_up_to_the_refresh_interval() {
        let config = JwksConfig::default();
        let waits: Vec<_> = [1, 2, 3, 5, 6, 99, u32::MAX].map(|n| back_off(&config, n).as_secs()).to_vec();
        assert_eq!(waits, [10, 20, 40, 160, 300, 300, 300]);
    }
}
