//! Where the issuer's keys come from, and how they stay fresh: a file is looked at every second by its path (a mounted volume
//! swaps a symlink, and no notification of the old file tells), a URL is fetched in the background. What cannot be read leaves
//! the keys as they were.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use palisade_identity::error_chain;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::fetch::{self, FetchError};
use super::jwk::KeySet;

/// The longest key set read.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// A request that names an unknown key waits so long for a newer set.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file, looked at every second.
    File(PathBuf),
    /// An `http` or `https` URL, fetched every five minutes, and when a token names an unknown key, at most every ten seconds.
    Url(String),
}

impl KeySource {
    fn interval(&self) -> Duration {
        match self {
            Self::File(_) => Duration::from_secs(1),
            Self::Url(_) => Duration::from_secs(300),
        }
    }

    /// At most one reading in this time, however many tokens name unknown keys.
    fn shortest(&self) -> Duration {
        match self {
            Self::File(_) => Duration::from_millis(100),
            Self::Url(_) => Duration::from_secs(10),
        }
    }

    async fn read(&self) -> Result<Vec<u8>, FetchError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || fetch::file(&path)).await;
                read.unwrap_or_else(|error| Err(FetchError::File("reading".into(), std::io::Error::other(error))))
            }
            Self::Url(url) => fetch::url(url).await,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(url) => url.clone(),
        }
    }
}

/// The keys of one source, followed while this lives.
#[derive(Debug)]
pub(super) struct Keys {
    followed: Arc<Followed>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Followed {
    source: KeySource,
    current: ArcSwapOption<KeySet>,
    /// Counts readings, good and bad.
    readings: watch::Sender<u64>,
    hurry: Notify,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    started: Option<Instant>,
    text: Vec<u8>,
    error: Option<String>,
    failures: u32,
}

impl Keys {
    pub(super) async fn start(source: KeySource) -> Arc<Self> {
        let followed = Arc::new(Followed {
            source,
            current: ArcSwapOption::empty(),
            readings: watch::Sender::new(0),
            hurry: Notify::new(),
            seen: Mutex::default(),
        });
        // A first try before anybody asks; a server that does not answer must not hold up the start.
        let first = matches!(followed.source, KeySource::File(_));
        if first {
            followed.read().await;
        }
        let task = tokio::spawn(Arc::clone(&followed).follow(first)).abort_handle();
        Arc::new(Self { followed, task })
    }

    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.followed.current.load_full()
    }

    /// Asks for a newer set and waits for it a moment; whether a reading has ended since.
    pub(super) async fn refresh(&self) -> bool {
        let followed = &self.followed;
        let started = followed.seen().started;
        if started.is_some_and(|started| started.elapsed() < followed.source.shortest()) {
            return false;
        }
        let mut readings = followed.readings.subscribe();
        followed.hurry.notify_one();
        timeout(PATIENCE, readings.changed()).await.is_ok()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(self: Arc<Self>, mut read: bool) {
        loop {
            if !std::mem::replace(&mut read, false) {
                self.read().await;
            }
            let failures = self.seen().failures;
            let wait = match failures {
                0 => self.source.interval(),
                _ => Duration::from_secs(2_u64.saturating_pow(failures.min(6))).min(self.source.interval()),
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.hurry.notified() => {}
            }
        }
    }

    async fn read(&self) {
        self.seen().started = Some(Instant::now());
        let outcome = self.source.read().await;
        match outcome {
            Ok(text) => self.adopt(text),
            Err(error) => self.failed(error_chain(&error)),
        }
        self.readings.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn adopt(&self, text: Vec<u8>) {
        if self.seen().text == text && self.current.load().is_some() {
            self.seen().failures = 0;
            return;
        }
        match KeySet::parse(&text) {
            Ok(set) => {
                self.say(set.len());
                self.current.store(Some(Arc::new(set)));
                let mut seen = self.seen();
                *seen = Seen { started: seen.started, text, error: None, failures: 0 };
            }
            Err(error) => self.failed(error.to_string()),
        }
    }

    fn say(&self, keys: usize) {
        let source = self.source.name();
        if keys == 0 {
            tracing::error!(
                source,
                "the token issuer has no key that could verify a token: RSA from 2048 bits, P-256, P-384 and P-521 \
                can; every token is refused"
            );
        } else {
            tracing::info!(source, keys, "keys of the token issuer read");
        }
    }

    /// Logged when the trouble changes, not at each attempt.
    fn failed(&self, error: String) {
        let mut seen = self.seen();
        seen.failures = seen.failures.saturating_add(1);
        if seen.error.as_ref() != Some(&error) {
            let kept = self.current.load().is_some();
            tracing::error!(source = self.source.name(), error, kept, "keys of the token issuer cannot be used");
            seen.error = Some(error);
        }
    }
}
