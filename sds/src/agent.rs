//! The agent itself: holds the identity, keeps it fresh, hands it out.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use palisade_identity::{Clock, Identity, SvidSource, TrustBundles, X509Svid, error_chain};
use palisade_wire::channel::ChannelError;
use palisade_wire::serve::UnixSocket;
use prometheus_client::registry::Registry;
use rustls_pki_types::UnixTime;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

pub use health::{Health, IdentityState};
pub use renew::RenewError;

use crate::admin::{self, NodeService};
use crate::attest::Attestor;
use crate::config::{AgentConfig, CheckConfigError};
use crate::files::{self, FilesConfig};
use crate::metrics::Metrics;
use crate::roster::Roster;
use crate::secrets::Feed;
use crate::serve::{self, ServeError};
use crate::storage::{DecodeIdentityError, LoadIdentityError, OpenStorageError, Storage};
use crate::tokens::Tokens;
use holder::Holder;

mod follow;
mod health;
mod holder;
mod plan;
mod renew;
mod supply;

/// The node agent. Clones are handles of the same agent.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

type Bind = fn(&Path) -> Result<UnixSocket, ServeError>;

/// What every handle shares.
struct Inner {
    config: AgentConfig,
    clock: Arc<dyn Clock>,
    storage: Storage,
    metrics: Metrics,
    holder: Holder,
    /// Held from reading the identity to replacing it, the disk in between: a renewal and a new state of the server may come at the
    /// same time, and neither may undo the other.
    changing: tokio::sync::Mutex<()>,
    /// What the server gives to this agent besides.
    roster: Arc<Roster>,
    /// To the server, with the agent's certificate of the moment; unset before the agent runs.
    channel: Mutex<Option<Channel>>,
    /// The agent itself, for what outlives a borrow of it.
    weak: Weak<Inner>,
    /// The server is followed at this moment, so that its last state is the newest word.
    following: AtomicBool,
    /// The epoch of taints in which the certificate in hand was asked for.
    own_epoch: AtomicU64,
    renew_now: Notify,
    running: AtomicBool,
    socket: Mutex<Option<UnixSocket>>,
    admin_socket: Mutex<Option<UnixSocket>>,
}

/// The agent cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NewAgentError {
    /// The configuration contradicts itself.
    #[error("the agent's configuration cannot work")]
    Config(#[source] CheckConfigError),
    /// The state directory cannot be used.
    #[error("the agent cannot keep its identity")]
    Storage(#[source] OpenStorageError),
    /// The stored identity is one that must not be overwritten: newer than this agent, or unreadable.
    #[error("the stored identity is left alone")]
    Stored(#[source] LoadIdentityError),
}

/// Why [`Agent::run`] ended other than by its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another handle runs the agent already.
    #[error("the agent runs already")]
    AlreadyRunning,
    /// The workload socket could not be opened or served.
    #[error("the workload socket cannot be served")]
    Serve(#[source] ServeError),
    /// The server's address or name cannot be one.
    #[error("the server cannot be called")]
    Channel(#[source] ChannelError),
}

impl Agent {
    /// Checks the configuration, opens the state directory and loads the last identity from it. Nothing is sent yet.
    ///
    /// A stored identity that is damaged, or of another trust domain, is logged and replaced at the next issuance.
    ///
    /// # Errors
    /// [`NewAgentError`], for what only the operator can put right.
    pub fn new(config: AgentConfig, clock: Arc<dyn Clock>, registry: &mut Registry) -> Result<Self, NewAgentError> {
        let checked = config.check();
        let unpinned = matches!(checked, Err(CheckConfigError::NoJoinToken));
        if !unpinned {
            checked.map_err(NewAgentError::Config)?;
        }
        let storage = Storage::open(&config.state_dir).map_err(NewAgentError::Storage)?;
        let metrics = Metrics::register(registry);
        let (holder, roster) = (Holder::new(metrics.clone()), Roster::default());
        if let Some(mut identity) = load(&storage, &config)? {
            restore(&storage, &config, &mut identity, &roster);
            metrics.not_after.set(i64::try_from(identity.svid.not_after().as_secs()).unwrap_or(i64::MAX));
            holder.install(Arc::new(identity), clock.now());
        } else if unpinned {
            // Only an agent that holds an identity can do without the means to get its first.
            return Err(NewAgentError::Config(CheckConfigError::NoJoinToken));
        }
        holder.refresh(clock.now());
        Ok(Self {
            inner: Arc::new_cyclic(|weak| Inner {
                weak: Weak::clone(weak),
                channel: Mutex::new(None),
                config,
                clock,
                storage,
                metrics,
                holder,
                changing: tokio::sync::Mutex::default(),
                roster: Arc::new(roster),
                following: AtomicBool::new(false),
                own_epoch: AtomicU64::new(0),
                renew_now: Notify::new(),
                running: AtomicBool::new(false),
                socket: Mutex::new(None),
                admin_socket: Mutex::new(None),
            }),
        })
    }

    /// True while peers would accept the identity; flips at its expiry and its revocation too.
    pub fn readiness(&self) -> watch::Receiver<bool> {
        self.inner.holder.readiness()
    }

    /// The state of the identity by the clock of this moment, and the last failure since the last success.
    pub fn health(&self) -> Health {
        self.inner.holder.health(self.inner.clock.now())
    }

    /// Asks for a new certificate at once, whatever the schedule says. Returns immediately; success shows as a change.
    pub fn renew_now(&self) {
        self.inner.renew_now.notify_one();
    }

    /// Opens the sockets that are configured, so that a path that cannot be used shows at start. Nothing is served
    /// before [`Agent::run`], which opens them otherwise. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ServeError`] names the path.
    pub fn open_socket(&self) -> Result<(), ServeError> {
        let config = &self.inner.config;
        let open = |place: &Mutex<Option<UnixSocket>>, path: &Option<PathBuf>, bind: Bind| {
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            if let (None, Some(path)) = (&*place, path) {
                *place = Some(bind(path)?);
            }
            Ok(())
        };
        open(&self.inner.socket, &config.socket, serve::bind)?;
        open(&self.inner.admin_socket, &config.admin_socket, serve::bind_admin)
    }

    /// Renews the identity and serves the socket, if one is configured, until `shutdown`.
    ///
    /// # Errors
    /// [`RunError`]; an authority that is away or says no is no error here but a state ([`Agent::health`]).
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        if self.inner.running.swap(true, Ordering::AcqRel) {
            return Err(RunError::AlreadyRunning);
        }
        let _running = RunGuard(&self.inner.running);
        self.inner.reconnect().map_err(RunError::Channel)?;
        self.open_socket().map_err(RunError::Serve)?;
        let feed = self.feed();
        let serving = self.serve(&feed, &shutdown);
        let working = async {
            tokio::join!(
                renew::run(&self.inner, shutdown.clone()),
                follow::run(&self.inner, shutdown.clone()),
                supply::run(&self.inner, shutdown.clone()),
                self.keep_files(&shutdown),
            );
        };
        tokio::join!(serving, working);
        Ok(())
    }

    /// Serves the sockets that are open.
    async fn serve(&self, feed: &Feed, shutdown: &CancellationToken) {
        let take = |place: &Mutex<Option<UnixSocket>>| place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (socket, admin) = (take(&self.inner.socket), take(&self.inner.admin_socket));
        let attestor = Attestor::new();
        let workloads = async {
            if let Some(socket) = socket {
                let inner = Arc::clone(&self.inner);
                let tokens = Arc::new(Tokens::new(move || inner.channel(), Arc::clone(&self.inner.clock)));
                let (feed, attestor, metrics) = (feed.clone(), attestor.clone(), self.inner.metrics.clone());
                let service = serve::Service { feed, attestor, tokens, metrics };
                serve::serve(service, socket, shutdown.clone()).await;
            }
        };
        let operator = async {
            if let Some(socket) = admin {
                let (agent, feed, attestor) = (self.clone(), feed.clone(), attestor.clone());
                serve::serve_admin(NodeService { agent, feed, attestor }, socket, shutdown.clone()).await;
            }
        };
        tokio::join!(workloads, operator);
    }

    /// Keeps every directory of the configuration up to date.
    async fn keep_files(&self, shutdown: &CancellationToken) {
        let inner = &self.inner;
        let keep = |config| {
            let identity = move || inner.identity_of(config);
            files::keep(config, identity, &inner.roster, shutdown)
        };
        futures_util::future::join_all(inner.config.files.iter().map(keep)).await;
    }

    fn feed(&self) -> Feed {
        let Inner { roster, clock, config, .. } = &*self.inner;
        Feed::new(Arc::new(self.clone()), Arc::clone(roster), Arc::clone(clock), &config.allowed_uids)
    }
}

impl Inner {
    /// A channel that shows the newest certificate.
    fn channel(&self) -> Result<Channel, Status> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone();
        channel.ok_or_else(|| Status::unavailable("the agent does not run"))
    }

    /// Lets calls that begin from now on use another connection. Those under way keep theirs.
    fn reconnect(&self) -> Result<(), ChannelError> {
        let fresh = follow::connect(self)?;
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(())
    }

    /// What belongs into these files now, if it may be used.
    fn identity_of(&self, config: &FilesConfig) -> Option<(Arc<X509Svid>, Arc<TrustBundles>)> {
        let own = self.holder.current()?;
        let svid = match &config.spiffe_id {
            Some(id) if id != own.svid.id() => {
                let state = self.roster.now();
                let entry = state.entries.as_ref()?.iter().find(|entry| entry.spiffe_id == *id)?;
                Arc::clone(&state.svids.get(&entry.id)?.svid)
            }
            _ => Arc::clone(&own.svid),
        };
        svid.usable(&own.bundles, self.clock.now()).ok()?;
        Some((svid, Arc::clone(&own.bundles)))
    }
}

impl admin::Agent for Agent {
    fn last_error(&self) -> Option<String> {
        self.health().last_error
    }

    fn following(&self) -> bool {
        self.inner.following.load(Ordering::Acquire)
    }
}

/// Lets the agent run again, however the run ended.
struct RunGuard<'a>(&'a AtomicBool);

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl SvidSource for Agent {
    /// The newest identity installed. It may have expired: whoever shows it to a peer is told so by the peer, and
    /// [`Agent::health`] names it.
    fn current(&self) -> Option<Arc<Identity>> {
        self.inner.holder.current()
    }

    fn on_change(&self, callback: Box<dyn Fn() + Send + Sync>) {
        self.inner.holder.on_change(callback);
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let now: UnixTime = self.inner.clock.now();
        f.debug_struct("Agent")
            .field("server", &self.inner.config.server)
            .field("health", &self.inner.holder.health(now))
            .finish_non_exhaustive()
    }
}

/// The stored identity, if it is ours.
fn load(storage: &Storage, config: &AgentConfig) -> Result<Option<Identity>, NewAgentError> {
    let identity = match storage.load(&config.trust_domain) {
        Ok(Some(identity)) => identity,
        Ok(None) => return Ok(None),
        Err(
            error @ (LoadIdentityError::Unreadable { .. }
            | LoadIdentityError::Content { source: DecodeIdentityError::Newer { .. }, .. }),
        ) => return Err(NewAgentError::Stored(error)),
        Err(error) => {
            tracing::warn!(error = %error_chain(&error), "the stored identity is not used; a new one is asked for");
            return Ok(None);
        }
    };
    let stored = identity.svid.id();
    if let Some(expected) = config.expected_id.as_ref().filter(|expected| *expected != stored) {
        tracing::warn!(%stored, %expected, "the stored identity is not the one expected; a new one is asked for");
        return Ok(None);
    }
    Ok(Some(identity))
}

/// What the server said last before the agent was stopped.
fn restore(storage: &Storage, config: &AgentConfig, identity: &mut Identity, roster: &Roster) {
    let Some(stored) = storage.load_state(&config.trust_domain) else { return };
    let mut bundles = identity.bundles.as_ref().clone();
    bundles.with_denied(stored.denied.into_iter().collect());
    identity.bundles = Arc::new(bundles);
    let svids = storage.load_svids(&stored.entries, &config.trust_domain);
    roster.update(|state| {
        state.entries = Some(Arc::new(stored.entries));
        state.svids = Arc::new(svids);
        state.jwks = Arc::new(stored.jwks);
    });
}

#[cfg(test)]
mod tests;
