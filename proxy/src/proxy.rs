//! The proxy as a service: bind, serve, follow identity and policy, drain.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use palisade_authz::DecisionSink;
use palisade_identity::{Clock, SvidSource};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::certs::Certs;
use crate::config::ProxyConfig;
use crate::core::Core;
use crate::inbound::{self, InboundPort};
use crate::listener::{self, BindError};
use crate::metrics::{Direction, Helpers, Metrics};
use crate::outbound::{self, OutboundPort};
use crate::snapshot::ProxySnapshot;
use crate::status::{self, Bound};

/// A task of the proxy ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("a task of the proxy ended unexpectedly")]
pub struct ProxyError(#[source] tokio::task::JoinError);

/// A proxy with its ports open.
#[derive(Debug)]
pub struct Proxy {
    core: Arc<Core>,
    snapshots: watch::Receiver<Option<Arc<ProxySnapshot>>>,
    inbound: Vec<(TcpListener, Arc<InboundPort>)>,
    outbound: Vec<(TcpListener, Arc<OutboundPort>)>,
    bound: Arc<[Bound]>,
    ready: watch::Sender<bool>,
}

/// Reads the status of a proxy, also while it runs.
#[derive(Debug, Clone)]
pub struct StatusHandle {
    core: Arc<Core>,
    bound: Arc<[Bound]>,
}

impl StatusHandle {
    /// Listeners, revision, certificate, connections and plaintext callers as JSON.
    #[must_use]
    pub fn status(&self) -> serde_json::Value {
        status::status(&self.core, &self.bound)
    }
}

impl Proxy {
    /// Opens the ports. Nobody is served before [`Proxy::run`].
    ///
    /// # Errors
    /// A port cannot be opened; the error names it and what to do.
    pub fn new(
        config: &ProxyConfig,
        identity: Arc<dyn SvidSource>,
        sink: Arc<dyn DecisionSink>,
        snapshots: watch::Receiver<Option<Arc<ProxySnapshot>>>,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Proxy, BindError> {
        let core = Arc::new(Core {
            workload: config.workload.clone(),
            limits: config.limits.clone(),
            certs: Certs::new(identity),
            snapshot: ArcSwapOption::from(snapshots.borrow().clone()),
            sink,
            clock,
            metrics: Metrics::register(registry),
            live: Arc::default(),
            upstreams: Arc::default(),
            endpoints: crate::endpoint::Endpoints::default(),
            callers: crate::callers::Callers::default(),
            accepted: AtomicUsize::new(0),
            tick: AtomicU64::new(1),
            draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
        });
        registry.register_collector(Box::new(Helpers(Arc::downgrade(&core))));
        follow_identity(&core);
        if let Some(snapshot) = &*core.snapshot.load() {
            snapshot.used_by(&core);
        }
        let mut proxy = Proxy {
            core,
            snapshots,
            inbound: Vec::new(),
            outbound: Vec::new(),
            bound: Arc::new([]),
            ready: watch::Sender::new(false),
        };
        proxy.bind(config)?;
        Ok(proxy)
    }

    fn bind(&mut self, config: &ProxyConfig) -> Result<(), BindError> {
        let mut bound = Vec::new();
        for (index, one) in config.inbound.iter().enumerate() {
            let listener = listener::bind(one.listen, &format!("inbound[{index}]"))?;
            let address = listener.local_addr().unwrap_or(one.listen);
            bound.push(Bound { role: format!("inbound/{index}"), address, to: one.forward.to_string() });
            self.inbound.push((listener, Arc::new(InboundPort::new(&self.core, one))));
        }
        for (index, one) in config.outbound.iter().enumerate() {
            let listener = listener::bind(one.listen, &format!("outbound[{index}]"))?;
            let address = listener.local_addr().unwrap_or(one.listen);
            bound.push(Bound { role: format!("outbound/{index}"), address, to: format!("{}:{}", one.host, one.port) });
            self.outbound.push((listener, Arc::new(OutboundPort::new(one))));
        }
        self.bound = bound.into();
        Ok(())
    }

    /// Where the ports really are, in the order of the configuration: inbound, then outbound.
    #[must_use]
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// True while there are a certificate that peers would accept and a snapshot; false again while draining.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Reads the status while the proxy runs.
    #[must_use]
    pub fn status_handle(&self) -> StatusHandle {
        StatusHandle { core: self.core.clone(), bound: self.bound.clone() }
    }

    /// Serves until `shutdown`, then drains: no new connections, what is under way is finished, and what is not finished
    /// in time is cut.
    ///
    /// # Errors
    /// An accept loop panicked.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ProxyError> {
        let Proxy { core, snapshots, inbound, outbound, ready, .. } = self;
        let mut tasks = JoinSet::new();
        for (listener, port) in inbound {
            let of = core.clone();
            let serve = move |tcp, from| inbound::serve(of.clone(), port.clone(), tcp, from);
            tasks.spawn(listener::run(core.clone(), listener, Direction::Inbound, shutdown.clone(), serve));
        }
        for (listener, port) in outbound {
            let of = core.clone();
            let serve = move |tcp, from| outbound::serve(of.clone(), port.clone(), tcp, from);
            tasks.spawn(listener::run(core.clone(), listener, Direction::Outbound, shutdown.clone(), serve));
        }
        let follower = tokio::spawn(follow(core.clone(), snapshots, ready.clone()));
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                shutdown.cancel();
                result = Err(ProxyError(error));
            }
        }
        ready.send_replace(false);
        drain(&core).await;
        follower.abort();
        result
    }
}

/// Certificates: a change is taken up at once; the source may outlive the proxy.
fn follow_identity(core: &Arc<Core>) {
    let weak: Weak<Core> = Arc::downgrade(core);
    core.certs.source().on_change(Box::new(move || {
        if let Some(core) = weak.upgrade() {
            core.take_identity();
        }
    }));
    // What changed between the first reading and the subscription is not missed.
    core.take_identity();
}

/// Snapshots, and the once-a-second sweep.
async fn follow(
    core: Arc<Core>,
    mut snapshots: watch::Receiver<Option<Arc<ProxySnapshot>>>,
    ready: watch::Sender<bool>,
) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut source_alive = true;
    loop {
        tokio::select! {
            changed = snapshots.changed(), if source_alive => match changed {
                Ok(()) => {
                    let newest = snapshots.borrow_and_update().clone();
                    core.swap(newest);
                }
                // The last good snapshot stays.
                Err(_) => source_alive = false,
            },
            _ = seconds.tick() => core.sweep(),
        }
        let is_ready = core.snapshot.load().is_some() && core.has_usable_identity() && !core.is_draining();
        ready.send_if_modified(|now| std::mem::replace(now, is_ready) != is_ready);
    }
}

/// Finishes what is under way, then cuts.
async fn drain(core: &Core) {
    core.begin_drain();
    let deadline = Instant::now() + core.limits.drain_timeout;
    while core.live.len() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    core.cut_all();
    // Cut connections need one turn of their tasks to close.
    let closed = async {
        while core.live.len() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    if timeout(Duration::from_millis(500), closed).await.is_err() {
        tracing::warn!(left = core.live.len(), "connections left at the end of the drain");
    }
}
