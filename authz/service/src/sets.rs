//! What decides for one workload, made when it is first asked about and kept as long as the configuration stands.
//!
//! Whoever asks can name workloads of the registry only, so there are never more sets than the registry has workloads; beyond
//! a bound the oldest make room.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_authz::gate::Gate;
use palisade_authz::provider::{Dial, Providers};
use palisade_authz::{
    Authenticator, CompiledSet, JwksCache, JwksConfig, Semantics, is_joined_header, recorded_headers,
};
use palisade_policies::{RequestAuthentication, WorkloadEntry, select};
use tokio::sync::OnceCell;

use crate::metrics::Metrics;
use crate::source::{PolicySnapshot, workload};

/// Workloads whose policies are kept compiled.
const MOST: usize = 4_096;

/// Namespace, name, and whether it is HTTP.
type Key = (String, String, bool);
type Cell = Arc<OnceCell<Option<Arc<Prepared>>>>;

/// What decides for one workload.
pub(crate) struct Prepared {
    pub(crate) gate: Gate,
    /// Lower-case names of headers that a record has to keep: those that policies read, credentials left out.
    pub(crate) headers: Vec<String>,
    /// Lower-case names of headers in which tokens are looked for, as far as repeated ones stay apart.
    pub(crate) token_headers: Vec<String>,
    authenticator: Arc<Authenticator>,
}

/// The sets of the newest configuration.
pub(crate) struct Sets {
    inner: Mutex<Inner>,
    jwks: JwksConfig,
    dial: Arc<dyn Dial>,
    metrics: Metrics,
}

struct Inner {
    snapshot: Option<Arc<PolicySnapshot>>,
    providers: Arc<Providers>,
    keys: Arc<JwksCache>,
    cells: HashMap<Key, Cell>,
    order: VecDeque<Key>,
    /// Token rules of the configuration before: their keys stay fetched until the new rules have been asked for.
    before: Vec<Arc<Authenticator>>,
}

/// One configuration's means.
struct Means {
    cell: Cell,
    providers: Arc<Providers>,
    keys: Arc<JwksCache>,
}

impl Sets {
    pub(crate) fn new(jwks: JwksConfig, dial: Arc<dyn Dial>, metrics: Metrics) -> Self {
        let inner = Inner {
            snapshot: None,
            providers: Arc::new(Providers::none()),
            keys: Arc::new(JwksCache::new(jwks.clone())),
            cells: HashMap::new(),
            order: VecDeque::new(),
            before: Vec::new(),
        };
        Self { inner: Mutex::new(inner), jwks, dial, metrics }
    }

    /// What decides for `entry` under `snapshot`; compiled off the runtime's threads, once for all who wait. `None` if
    /// compiling itself failed: a defect of this program, and no leave for anybody.
    pub(crate) async fn of(
        &self,
        snapshot: &Arc<PolicySnapshot>,
        entry: &WorkloadEntry,
        semantics: Semantics,
    ) -> Option<Arc<Prepared>> {
        let means = self.means(snapshot, entry, semantics);
        let made = means.cell.get_or_init(|| async {
            let (snapshot, workload) = (Arc::clone(snapshot), workload(entry));
            let (providers, keys) = (Arc::clone(&means.providers), Arc::clone(&means.keys));
            let compile = move || {
                let policies = select::authorization_policies(snapshot.resources(), snapshot.mesh(), &workload);
                let set = Arc::new(CompiledSet::compile(&policies, snapshot.mesh(), semantics));
                let rules = select::request_authentications(snapshot.resources(), snapshot.mesh(), &workload);
                let authenticator = Arc::new(Authenticator::compile(&rules));
                let headers = recorded_headers(set.headers_read(), &rules);
                let token_headers = token_headers(&rules);
                let gate = Gate::new(set, Arc::clone(&authenticator), providers, keys);
                Prepared { gate, headers, token_headers, authenticator }
            };
            match tokio::task::spawn_blocking(compile).await {
                Ok(prepared) => {
                    means.keys.follow(&prepared.authenticator);
                    Some(Arc::new(prepared))
                }
                Err(error) => {
                    tracing::error!(workload = %entry.meta, %error, "policies cannot be compiled");
                    None
                }
            }
        });
        made.await.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn means(&self, snapshot: &Arc<PolicySnapshot>, entry: &WorkloadEntry, semantics: Semantics) -> Means {
        let mut inner = self.lock();
        if inner.snapshot.as_ref().is_none_or(|held| held.revision() != snapshot.revision()) {
            self.renew(&mut inner, snapshot);
        }
        let key = (entry.meta.namespace.clone(), entry.meta.name.clone(), semantics == Semantics::Http);
        let cell = match inner.cells.get(&key) {
            Some(cell) => Arc::clone(cell),
            None => {
                if inner.order.len() >= MOST
                    && let Some(oldest) = inner.order.pop_front()
                {
                    inner.cells.remove(&oldest);
                }
                let cell = Cell::default();
                inner.cells.insert(key.clone(), Arc::clone(&cell));
                inner.order.push_back(key);
                cell
            }
        };
        self.metrics.compiled.set(i64::try_from(inner.cells.len()).unwrap_or(i64::MAX));
        Means { cell, providers: Arc::clone(&inner.providers), keys: Arc::clone(&inner.keys) }
    }

    /// Another configuration: what was compiled goes, providers and keys that did not change stay.
    fn renew(&self, inner: &mut Inner, snapshot: &Arc<PolicySnapshot>) {
        let mesh = snapshot.mesh();
        inner.providers = Arc::new(match &inner.snapshot {
            Some(_) => inner.providers.renewed(mesh),
            None => Providers::new(mesh, Arc::clone(&self.dial)),
        });
        let allowed = inner.snapshot.as_ref().map(|held| &held.mesh().jwks_allow);
        if allowed != Some(&mesh.jwks_allow) {
            let config = JwksConfig { allow: mesh.jwks_allow.clone(), ..self.jwks.clone() };
            inner.keys = Arc::new(JwksCache::new(config));
        }
        let made = inner.cells.values().filter_map(|cell| Some(Arc::clone(&cell.get()?.as_ref()?.authenticator)));
        inner.before = made.filter(|rules| !rules.is_empty()).collect();
        inner.cells.clear();
        inner.order.clear();
        inner.snapshot = Some(Arc::clone(snapshot));
    }
}

/// Where several fields of a name may hold several tokens. `authorization`, the default, is one field to Envoy.
fn token_headers(rules: &[Arc<RequestAuthentication>]) -> Vec<String> {
    let rules = || rules.iter().flat_map(|one| &one.rules);
    let sources = rules().flat_map(|rule| &rule.from_headers).map(|from| from.name.to_ascii_lowercase());
    let cookie = rules().any(|rule| !rule.from_cookies.is_empty()).then(|| "cookie".to_owned());
    sources.chain(cookie).filter(|name| !is_joined_header(name)).collect()
}
