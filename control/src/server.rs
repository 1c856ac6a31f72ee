//! The control plane as a service: the watched directory, the index made of it, and the doors to both.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use palisade_identity::{Clock, TrustDomain};
use palisade_watch::{Configuration, Directory, DirectoryConfig, Problem, State};
use palisade_wire::Caller;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::authorize::{Node, authorize};
use crate::index::Index;
use crate::metrics::Metrics;
use crate::proxies::{Proxies, ProxyStatus};
use crate::service::{DiscoveryServer, DiscoveryService, Shared};

/// Configuration of the control plane.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// The watched directory of Istio YAML.
    pub config_dir: PathBuf,
    /// The mesh configuration; `None` means `mesh.yaml` in the directory, if it is there.
    pub mesh_file: Option<PathBuf>,
    /// What the certificate authority issues in: a mesh configuration that says otherwise is refused, and proxies are told
    /// where there is none.
    pub trust_domain: Option<TrustDomain>,
    /// Open streams in all; more are refused with RESOURCE_EXHAUSTED.
    pub max_proxies: usize,
    /// How long a proxy may leave a snapshot unanswered before its stream is ended.
    pub ack_deadline: Duration,
}

impl ControlConfig {
    /// This directory with the defaults: 20,000 proxies, 30 s to answer a snapshot.
    pub fn new(config_dir: impl Into<PathBuf>) -> Self {
        Self {
            config_dir: config_dir.into(),
            mesh_file: None,
            trust_domain: None,
            max_proxies: 20_000,
            ack_deadline: Duration::from_secs(30),
        }
    }
}

/// The control plane. Made by [`Control::new`], driven by [`Control::run`], asked through [`Control::handle`].
#[derive(Debug)]
pub struct Control {
    directory: Directory,
    state: watch::Receiver<State>,
    index: watch::Sender<Option<Arc<Index>>>,
    ready: watch::Sender<bool>,
    handle: Handle,
}

/// What others may ask of the control plane while it runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    state: watch::Receiver<State>,
    ready: watch::Receiver<bool>,
    shared: Shared,
}

/// State of the control plane at one moment.
#[derive(Clone, Debug)]
pub struct ControlStatus {
    /// The configuration in force; `None` before the first good one: no proxy is served.
    pub configuration: Option<Arc<Configuration>>,
    /// Why the directory's present content is not in force; `None` while it is.
    pub problem: Option<Arc<Problem>>,
    /// Every connected proxy, by workload.
    pub proxies: Vec<ProxyStatus>,
}

impl Control {
    /// Reads the directory once (blocking) and registers the metrics. A directory that is broken or missing is no reason not
    /// to start: proxies keep what they have, readiness stays off and the status says why, until it is repaired.
    pub fn new(config: ControlConfig, clock: Arc<dyn Clock>, registry: &mut Registry) -> Self {
        let metrics = Metrics::register(registry);
        let directory = Directory::open(DirectoryConfig {
            mesh_file: config.mesh_file,
            trust_domain: config.trust_domain,
            ..DirectoryConfig::new(config.config_dir)
        });
        let (index, ready) = (watch::Sender::new(None), watch::Sender::new(false));
        let shared = Shared {
            index: index.subscribe(),
            proxies: Proxies::new(config.max_proxies, metrics.clone()),
            metrics,
            clock,
            closing: CancellationToken::new(),
            ack_deadline: config.ack_deadline,
        };
        let handle = Handle { state: directory.subscribe(), ready: ready.subscribe(), shared };
        let mut control = Self { state: directory.subscribe(), directory, index, ready, handle };
        control.handle.shared.take_over(&mut control.state, &control.index, &control.ready);
        control
    }

    /// The doors to this control plane.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Follows the directory until `shutdown`, then ends every stream.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { directory, mut state, index, ready, handle } = self;
        let following = directory.run(shutdown.clone());
        let indexing = async {
            while let Some(Ok(())) = shutdown.run_until_cancelled(state.changed()).await {
                handle.shared.take_over(&mut state, &index, &ready);
            }
            ready.send_replace(false);
            handle.shared.closing.cancel();
        };
        tokio::join!(following, indexing);
    }
}

impl Handle {
    /// The xDS service, to be mounted on the gRPC listener.
    pub fn service(&self) -> DiscoveryServer {
        DiscoveryService { shared: self.shared.clone() }.into_server()
    }

    /// True while a good configuration is in force and the control plane is not stopping.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// What is in force and what is wrong, now and after every change: for others in this process that decide by the same
    /// directory.
    pub fn states(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// What is in force, what is wrong, and who is connected.
    pub fn status(&self) -> ControlStatus {
        let State { good, problem } = self.state.borrow().clone();
        ControlStatus { configuration: good, problem, proxies: self.shared.proxies.list() }
    }

    /// The enforcer that `caller` may write audit events as: `claimed` itself (`<namespace>/<workload>`), if its SVID is that
    /// workload's.
    ///
    /// # Errors
    /// UNAUTHENTICATED without a client certificate, INVALID_ARGUMENT for a name of another form, NOT_FOUND for a workload
    /// that does not exist in the caller's namespace, UNAVAILABLE before the first good configuration, else PERMISSION_DENIED.
    pub fn enforcer_of(&self, caller: &Caller, claimed: &str) -> Result<String, Status> {
        let node = Node::parse(claimed)?;
        let index = self.shared.index.borrow().clone();
        authorize(index.as_deref(), caller, &node)?;
        Ok(node.to_string())
    }
}

impl Shared {
    /// Makes the directory's newest state the one that is served.
    fn take_over(
        &self,
        state: &mut watch::Receiver<State>,
        index: &watch::Sender<Option<Arc<Index>>>,
        ready: &watch::Sender<bool>,
    ) {
        let State { good, problem } = state.borrow_and_update().clone();
        let errors = problem.as_ref().map_or(0, |problem| problem.errors());
        self.metrics.errors.set(i64::try_from(errors).unwrap_or(i64::MAX));
        let Some(good) = good else { return };
        let before = index.borrow().as_ref().map(|index| index.revision().to_owned());
        if before.as_deref() != Some(good.revision.as_str()) {
            self.metrics.revisions.inc();
            index.send_replace(Some(Arc::new(Index::new(good))));
        }
        ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }
}

#[cfg(test)]
mod tests;
