//! One proxy under test with its identity, policies and records.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_authz::{DecisionRecord, DecisionSink};
use palisade_identity::{Clock, UnixTime};
use palisade_policies::{AppProtocol, SourceText, Workload};
use palisade_proxy::config::{InboundConfig, OutboundConfig};
use palisade_proxy::control_client::RawSnapshot;
use palisade_proxy::{Proxy, ProxyConfig, Snapshots, StatusHandle};
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::certificates::{Authority, Source, until};

#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }
}

/// Keeps every record.
#[derive(Default)]
pub(crate) struct Records {
    kept: Mutex<Vec<DecisionRecord>>,
    /// No room while set.
    pub(crate) full: AtomicBool,
    pub(crate) freed: Notify,
}

impl DecisionSink for Records {
    fn has_room(&self) -> bool {
        !self.full.load(Ordering::SeqCst)
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            while !self.has_room() {
                self.freed.notified().await;
            }
        })
    }

    fn record(&self, record: DecisionRecord) {
        self.kept.lock().unwrap().push(record);
    }
}

impl Records {
    pub(crate) fn all(&self) -> Vec<DecisionRecord> {
        self.kept.lock().unwrap().clone()
    }

    /// Waits until there are so many.
    pub(crate) async fn wait(&self, n: usize) -> Vec<DecisionRecord> {
        until("records", || {
            let all = self.all();
            if all.len() >= n { Ok(all) } else { Err(format!("{} of {n}: {all:#?}", all.len())) }
        })
        .await
    }
}

/// A running proxy.
pub(crate) struct World {
    pub(crate) records: Arc<Records>,
    pub(crate) source: Arc<Source>,
    pub(crate) registry: Registry,
    pub(crate) status: StatusHandle,
    pub(crate) ready: watch::Receiver<bool>,
    snapshots: Snapshots,
    addresses: Vec<SocketAddr>,
    shutdown: CancellationToken,
    running: Option<tokio::task::JoinHandle<Result<(), palisade_proxy::ProxyError>>>,
}

pub(crate) fn workload() -> Workload {
    let labels = [("app".to_owned(), "cart".to_owned())].into();
    Workload { namespace: "shop".into(), name: "cart-0".into(), labels }
}

pub(crate) fn inbound_to(app: SocketAddr, protocol: Option<AppProtocol>) -> ProxyConfig {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = ProxyConfig::of(workload(), vec![InboundConfig { listen, forward: app, protocol }], vec![]);
    config.limits.drain_timeout = Duration::from_millis(500);
    config
}

pub(crate) fn outbound_to(host: &str, port: u16) -> ProxyConfig {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = ProxyConfig::of(workload(), vec![], vec![OutboundConfig { listen, host: host.into(), port }]);
    config.limits.drain_timeout = Duration::from_millis(500);
    config
}

impl World {
    /// Starts a proxy with these policies; none means that no snapshot came yet.
    pub(crate) fn start(config: &ProxyConfig, source: Arc<Source>, policies: Option<&str>) -> World {
        World::start_meshed(config, source, policies, None)
    }

    /// The same with a mesh configuration.
    pub(crate) fn start_meshed(
        config: &ProxyConfig,
        source: Arc<Source>,
        policies: Option<&str>,
        mesh: Option<&str>,
    ) -> World {
        let snapshots = Snapshots::new(config);
        if let Some(text) = policies {
            snapshots.apply(&raw(text, mesh)).unwrap();
        }
        let (records, mut registry) = (Arc::new(Records::default()), Registry::default());
        let proxy = Proxy::new(
            config,
            source.clone(),
            records.clone(),
            snapshots.subscribe(),
            Arc::new(SystemClock),
            &mut registry,
        )
        .unwrap();
        let addresses = proxy.bound().iter().map(|bound| bound.address).collect();
        let (status, ready, shutdown) = (proxy.status_handle(), proxy.readiness(), CancellationToken::new());
        let running = Some(tokio::spawn(proxy.run(shutdown.clone())));
        World { records, source, registry, status, ready, snapshots, addresses, shutdown, running }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// New policies.
    pub(crate) fn apply(&self, policies: &str) {
        self.apply_meshed(policies, None);
    }

    /// New policies and a new mesh configuration.
    fn apply_meshed(&self, policies: &str, mesh: Option<&str>) {
        self.snapshots.apply(&raw(policies, mesh)).unwrap();
    }

    /// The same; returns when they are in use.
    pub(crate) async fn switch(&self, policies: &str, mesh: Option<&str>) {
        self.apply_meshed(policies, mesh);
        let expected = raw(policies, mesh).revision;
        until("the revision to be in use", || {
            let revision = self.status.status()["revision"].clone();
            if revision == expected.as_str() { Ok(()) } else { Err(revision.to_string()) }
        })
        .await;
    }

    /// What the metrics endpoint would show.
    pub(crate) fn metrics(&self) -> String {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.registry).unwrap();
        out
    }

    /// Stops as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        self.running.take().unwrap().await.unwrap().unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn raw(text: &str, mesh: Option<&str>) -> RawSnapshot {
    let source = |file: &str, text: &str| SourceText { file: file.into(), first_line: 1, text: text.into() };
    RawSnapshot::new(vec![source("policies.yaml", text)], mesh.map(|mesh| source("mesh.yaml", mesh)))
}

/// A trust domain with the usual cast.
pub(crate) struct Cast {
    pub(crate) authority: Authority,
}

impl Cast {
    pub(crate) fn new() -> Cast {
        Cast { authority: Authority::new("cluster.local") }
    }

    /// The proxy's own identity: `shop/cart`.
    pub(crate) fn cart(&self) -> Arc<Source> {
        Source::of(self.authority.identity("shop", "cart", 3600, &[]))
    }
}

/// Reading for everybody who proved to be `shop/web`, nothing else; one path closed to all.
pub(crate) const WEB_READS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web-reads, namespace: shop}
spec:
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
    to: [{operation: {methods: [GET, HEAD, PUT]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin*]}}]
";

/// Everybody may do everything.
pub(crate) const OPEN: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: PERMISSIVE}}
";

/// Nobody may do anything.
pub(crate) const CLOSED: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing, namespace: shop}
spec: {}
";

/// PeerAuthentication of a mode, nothing denied.
pub(crate) fn mode(mode: &str) -> String {
    OPEN.replace("PERMISSIVE", mode)
}
