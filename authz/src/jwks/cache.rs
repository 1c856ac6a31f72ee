//! Key sets of issuers, fetched in the background. Requests never wait here: they see the last good set, or none.
//!
//! One task per source fetches, waits, and fetches again; it ends when nobody follows the source any more, or with
//! the cache.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use palisade_policies::{JwksSource, JwtRule};
use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::entry::Entry;
use super::fetch::{Fetcher, Source};
use super::guard::Guard;
use super::{KeySet, KeySource};
use crate::Authenticator;

/// A fetch that began with the wait ends within this time after its own timeout.
const GRACE: Duration = Duration::from_millis(250);

/// How key sets are fetched.
#[derive(Debug, Clone)]
pub struct JwksConfig {
    /// Private and special addresses that may be reached all the same (`palisade.jwksAllow`).
    pub allow: Vec<IpNet>,
    /// Time from one good fetch to the next.
    pub refresh: Duration,
    /// Time from a failed fetch to the next; it doubles with each failure, up to `refresh`.
    pub negative_ttl: Duration,
    /// At most one fetch in this time, however many tokens name unknown keys.
    pub early: Duration,
    /// The longest answer, in bytes.
    pub max_bytes: usize,
    /// Certificate authorities that are trusted beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for JwksConfig {
    /// 5 minutes, as Envoy's remote key sets; 10 s after a failure; 30 s between early fetches; 1 MiB.
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            refresh: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(10),
            early: Duration::from_secs(30),
            max_bytes: 1 << 20,
            extra_roots: Vec::new(),
        }
    }
}

/// The [`KeySource`] of a running process.
pub struct JwksCache {
    config: JwksConfig,
    fetcher: Arc<Fetcher>,
    /// Who follows, under a lock; read by nobody on the way of a request.
    running: Mutex<HashMap<Source, Running>>,
    view: ArcSwap<View>,
}

/// What is known about one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksState {
    /// The `jwksUri`, or the issuer whose OpenID configuration names it.
    pub source: String,
    /// Number of keys of the last good set.
    pub keys: Option<usize>,
    /// What went wrong in the last fetch, with its causes.
    pub error: Option<String>,
}

struct Running {
    entry: Arc<Entry>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The entries by what a rule says, so that a look-up borrows.
#[derive(Default)]
struct View {
    uris: HashMap<String, Arc<Entry>>,
    issuers: HashMap<String, Arc<Entry>>,
}

impl View {
    fn find(&self, rule: &JwtRule) -> Option<&Arc<Entry>> {
        match &rule.jwks {
            JwksSource::Inline(_) => None,
            JwksSource::Uri(uri) => self.uris.get(uri),
            JwksSource::Discovery => self.issuers.get(&rule.issuer),
        }
    }
}

impl JwksCache {
    /// An empty cache; nothing is fetched yet.
    #[must_use]
    pub fn new(config: JwksConfig) -> Self {
        let fetcher = Fetcher::new(Guard::new(&config.allow), config.max_bytes, config.extra_roots.clone());
        let (running, view) = (Mutex::default(), ArcSwap::default());
        Self { config, fetcher: Arc::new(fetcher), running, view }
    }

    /// Fetches what the authenticator's rules name from now on, for as long as the authenticator lives. The Tokio
    /// runtime on which this is called does the work; elsewhere nothing is fetched, and the log says so. Sources that
    /// nobody follows any more are forgotten.
    pub fn follow(&self, authenticator: &Authenticator) {
        let Ok(runtime) = Handle::try_current() else {
            return tracing::error!("the keys of issuers cannot be fetched outside of a Tokio runtime");
        };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, running| running.entry.is_followed() && !running.task.is_finished());
        for rule in authenticator.remote_rules() {
            let Some(source) = source(rule) else { continue };
            // Followed before its task begins, which would end at once otherwise.
            match running.get(&source) {
                Some(running) => running.entry.follow(authenticator.lease(), rule.timeout),
                None => {
                    let entry = Arc::new(Entry::new(source.clone(), rule.timeout));
                    entry.follow(authenticator.lease(), rule.timeout);
                    running.insert(source, self.start(&runtime, entry));
                }
            }
        }
        let mut view = View::default();
        for (source, running) in running.iter() {
            let (map, name) = match source {
                Source::Uri(uri) => (&mut view.uris, uri),
                Source::Issuer(issuer) => (&mut view.issuers, issuer),
            };
            map.insert(name.clone(), Arc::clone(&running.entry));
        }
        self.view.store(Arc::new(view));
    }

    /// Follows the authenticator and resolves once each of its key sets was fetched or could not be: at the latest
    /// after the longest timeout of its rules.
    pub async fn settle(&self, authenticator: &Authenticator) {
        self.follow(authenticator);
        for rule in authenticator.remote_rules() {
            if let Some(outcome) = self.first_outcome(rule) {
                outcome.await;
            }
        }
    }

    /// Every source that is followed, in the order of its name.
    #[must_use]
    pub fn states(&self) -> Vec<JwksState> {
        let view = self.view.load();
        let mut states: Vec<_> = view.uris.values().chain(view.issuers.values()).map(|entry| entry.state()).collect();
        states.sort_by(|one, other| one.source.cmp(&other.source));
        states
    }

    fn start(&self, runtime: &Handle, entry: Arc<Entry>) -> Running {
        let work = Arc::clone(&entry).run(Arc::clone(&self.fetcher), self.config.clone());
        Running { entry, task: runtime.spawn(work).abort_handle() }
    }
}

impl KeySource for JwksCache {
    /// Keys that stand in the rule itself are read at each call: [`Authenticator`] does not ask for those.
    fn keys(&self, rule: &JwtRule) -> Option<Arc<KeySet>> {
        match &rule.jwks {
            JwksSource::Inline(text) => KeySet::parse(text).ok().map(Arc::new),
            JwksSource::Uri(_) | JwksSource::Discovery => self.view.load().find(rule)?.keys(),
        }
    }

    fn unknown_key(&self, rule: &JwtRule) {
        if let Some(entry) = self.view.load().find(rule) {
            entry.hurry();
        }
    }

    fn first_outcome<'a>(&'a self, rule: &'a JwtRule) -> Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>> {
        let entry = Arc::clone(self.view.load().find(rule)?);
        let wait = entry.first_outcome()?;
        Some(Box::pin(async move {
            // Without an answer in time there are no keys: that is an outcome, too. The fetch itself ends a moment
            // after `timeout`, which lets those who wait see why.
            let _ = tokio::time::timeout(rule.timeout.saturating_add(GRACE), wait).await;
        }))
    }
}

impl fmt::Debug for JwksCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.states()).finish()
    }
}

fn source(rule: &JwtRule) -> Option<Source> {
    match &rule.jwks {
        JwksSource::Inline(_) => None,
        JwksSource::Uri(uri) => Some(Source::Uri(uri.clone())),
        JwksSource::Discovery => Some(Source::Issuer(rule.issuer.clone())),
    }
}
