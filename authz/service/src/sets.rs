//! What decides for one workload, made when it is first asked about and kept as long as the configuration stands.
//!
//! Whoever asks can name workloads of the registry only, so there are never more sets than the registry has workloads; beyond
//! a bound the oldest make room.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_authz::gate::Gate;
use palisade_authz::provider::{Dial, Providers};
use palisade_authz::{Authenticator, Compiler, JwksCache, JwksConfig, Semantics, is_joined_header, recorded_headers};
use palisade_policies::{RequestAuthentication, Workload, WorkloadEntry, select};
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
    /// What compiled the sets of this configuration, or of the one before: what did not change is taken over. One is not
    /// here while it compiles.
    compilers: HashMap<Key, Compiler>,
    /// Token rules of the configuration before: their keys stay fetched until the new rules have been asked for.
    before: Vec<Arc<Authenticator>>,
}

/// One configuration's means.
struct Means {
    key: Key,
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
            compilers: HashMap::new(),
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
            let kept = self.lock().compilers.remove(&means.key);
            let compile = move || {
                let mut compiler = kept.unwrap_or_else(|| Compiler::new(semantics));
                let prepared = Prepared::new(&mut compiler, &snapshot, &workload, providers, keys);
                (prepared, compiler)
            };
            match tokio::task::spawn_blocking(compile).await {
                Ok((prepared, compiler)) => {
                    self.keep(means.key.clone(), compiler);
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

    /// For the next configuration, if somebody still asks about the workload.
    fn keep(&self, key: Key, compiler: Compiler) {
        let mut inner = self.lock();
        if inner.cells.contains_key(&key) {
            inner.compilers.insert(key, compiler);
        }
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
                    inner.compilers.remove(&oldest);
                }
                let cell = Cell::default();
                inner.cells.insert(key.clone(), Arc::clone(&cell));
                inner.order.push_back(key.clone());
                cell
            }
        };
        self.metrics.compiled.set(i64::try_from(inner.cells.len()).unwrap_or(i64::MAX));
        Means { key, cell, providers: Arc::clone(&inner.providers), keys: Arc::clone(&inner.keys) }
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
        let asked = std::mem::take(&mut inner.cells);
        inner.compilers.retain(|key, _| asked.contains_key(key));
        inner.order.clear();
        inner.snapshot = Some(Arc::clone(snapshot));
    }
}

impl Prepared {
    fn new(
        compiler: &mut Compiler,
        snapshot: &PolicySnapshot,
        workload: &Workload,
        providers: Arc<Providers>,
        keys: Arc<JwksCache>,
    ) -> Self {
        let policies = select::authorization_policies(snapshot.resources(), snapshot.mesh(), workload);
        let set = Arc::new(compiler.compile(&policies, snapshot.mesh()));
        let rules = select::request_authentications(snapshot.resources(), snapshot.mesh(), workload);
        let authenticator = Arc::new(Authenticator::compile(&rules));
        let headers = recorded_headers(set.headers_read(), &rules);
        let token_headers = token_headers(&rules);
        let gate = Gate::new(set, Arc::clone(&authenticator), providers, keys);
        Self { gate, headers, token_headers, authenticator }
    }
}

/// Where several fields of a name may hold several tokens. `authorization`, the default, is one field to Envoy.
fn token_headers(rules: &[Arc<RequestAuthentication>]) -> Vec<String> {
    let rules = || rules.iter().flat_map(|one| &one.rules);
    let sources = rules().flat_map(|rule| &rule.from_headers).map(|from| from.name.to_ascii_lowercase());
    let cookie = rules().any(|rule| !rule.from_cookies.is_empty()).then(|| "cookie".to_owned());
    sources.chain(cookie).filter(|name| !is_joined_header(name)).collect()
}

#[cfg(test)]
mod tests {
    use palisade_authz::provider::TcpDial;
    use palisade_policies::{MeshConfig, SourceText, load};

    use super::*;

    /// `shop/cart` with one policy on each of these paths.
    fn snapshot(paths: &[&str]) -> Arc<PolicySnapshot> {
        let mut text =
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: cart, namespace: shop}\n\
                        spec: {address: 10.0.0.9, serviceAccount: cart}\n"
                .to_owned();
        for path in paths {
            text.push_str(&format!(
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: {path}, namespace: shop}}\nspec: {{rules: [{{to: [{{operation: {{paths: [/{path}]}}}}]}}]}}\n"
            ));
        }
        let loaded = load(&[SourceText::new("policies.yaml", text.as_str())], "default");
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        Arc::new(PolicySnapshot::new(text, Arc::new(loaded.resources), MeshConfig::default()))
    }

    #[tokio::test]
    async fn what_did_not_change_is_taken_over_while_somebody_asks() {
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let sets = Sets::new(JwksConfig::default(), Arc::new(TcpDial::default()), metrics);
        let rules = async |paths: &[&str]| {
            let snapshot = snapshot(paths);
            let entry = Arc::clone(snapshot.registry().workload("shop", "cart").unwrap());
            let prepared = sets.of(&snapshot, &entry, Semantics::Http).await.unwrap();
            prepared.gate.policies().explain(&palisade_authz::Request::default(), palisade_authz::Known::ALL).phases[3]
                .rules
        };
        let kept = || sets.lock().compilers.values().map(|one| format!("{one:?}")).collect::<Vec<_>>().concat();
        assert_eq!(rules(&["a", "b"]).await, 2);
        assert!(kept().contains("policies: 2, predicates: 2,"), "{}", kept());
        assert_eq!(rules(&["b", "c"]).await, 2);
        assert!(kept().contains("policies: 2, predicates: 3,"), "the one of `b` stands: {}", kept());
        // Two configurations in which nobody asks.
        sets.renew(&mut sets.lock(), &snapshot(&["d"]));
        assert!(!kept().is_empty());
        sets.renew(&mut sets.lock(), &snapshot(&["e"]));
        assert!(kept().is_empty(), "{}", kept());
    }
}
