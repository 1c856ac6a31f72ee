//! The authority: its signing certificates, what it records, and its own identity on the wire.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use palisade_identity::{BundleError, Clock, Identity, SpiffeId, TrustBundle, TrustBundles, TrustDomain};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::attest::certificate::CurrentCertificate;
use crate::attest::join_token::{self, JoinToken, JoinTokenError, JoinTokens};
use crate::attest::{Attested, Attestor};
use crate::config::{CaConfig, ConfigError};
use crate::csr::{Csr, ExtraKeys};
use crate::directory::{Directory, DirectoryError};
use crate::leaf::{self, Leaf, LeafError, LeafSpec, Lifetimes};
use crate::metrics::Metrics;
use crate::signer::{Kind, Signer, SignerError, certificate_pem, hex, sha256};
use crate::store::{IssuanceRow, Store, StoreError};

mod server;

pub use server::ServerIdentityError;
use server::Serving;

/// Name of the database in the authority's directory.
pub const DATABASE: &str = "ca.db";
/// Dates are compared with the wall clock this often: timers alone are wrong after a suspend.
const TICK: Duration = Duration::from_secs(10);

/// Why an authority cannot be opened. The cause names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings.
    #[error("the certificate authority's settings are refused")]
    Config(#[from] ConfigError),
    /// The directory or a file in it.
    #[error("the certificate authority's directory cannot be used")]
    Directory(#[from] DirectoryError),
    /// A signing certificate.
    #[error("the signing certificates cannot be used")]
    Signer(#[from] SignerError),
    /// The root breaks a rule for signing certificates.
    #[error("the root is not accepted as a trust anchor")]
    Bundle(#[from] BundleError),
    /// The database.
    #[error("the issuance records cannot be opened")]
    Store(#[from] StoreError),
    /// The server's own certificate.
    #[error("the server's own certificate cannot be issued")]
    Server(#[from] ServerIdentityError),
}

/// Why a certificate is not issued after attestation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    #[error("no leaf can be signed")]
    Leaf(#[from] LeafError),
    #[error("the issuance cannot be recorded")]
    Store(#[from] StoreError),
}

/// What one request asks for, once it is known who asks.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) attested: &'a Attested,
    pub(crate) csr: &'a Csr,
    /// What a registration entry grants.
    pub(crate) dns_names: &'a [String],
    /// Seconds; 0 or less means the default.
    pub(crate) ttl: i64,
    pub(crate) caller: String,
}

/// A leaf that is recorded, and the certificate it hangs on.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) leaf: Leaf,
    pub(crate) intermediate_pem: String,
}

/// A certificate authority for one trust domain, open for business.
#[derive(Debug)]
pub struct Authority {
    config: CaConfig,
    clock: Arc<dyn Clock>,
    directory: Directory,
    root: Signer,
    bundle: Arc<TrustBundle>,
    bundles: Arc<TrustBundles>,
    intermediate: ArcSwap<Signer>,
    server: ArcSwap<Serving>,
    store: Store,
    attestors: Vec<Box<dyn Attestor>>,
    metrics: Metrics,
    ready: watch::Sender<bool>,
}

impl Authority {
    /// Opens the authority in `config.dir`, making root, intermediate and database on first start.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`]; its sources name the file that is wrong and what to do about it.
    pub async fn open(config: CaConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenError> {
        config.check()?;
        let (now, metrics) = (clock.now().as_secs(), Metrics::default());
        let directory = Directory::open(&config.dir)?;
        let root = open_root(&directory, &config, now)?;
        let bundle = TrustBundle::new(config.trust_domain.clone(), vec![root.certificate().clone()])?;
        let bundles = Arc::new(TrustBundles::from_iter([bundle.clone()]));
        let intermediate = open_intermediate(&directory, &config, &root, now)?;
        directory.create(DATABASE, b"")?;
        let store = Store::open(directory.join(DATABASE), metrics.clone()).await?;
        let parts = server::Parts { config: &config, root: &root, signer: &intermediate, bundles: &bundles };
        let serving = server::issue(&parts, &store, &clock).await?;
        let attestors: Vec<Box<dyn Attestor>> = vec![
            Box::new(CurrentCertificate::new(config.trust_domain.clone())),
            Box::new(JoinTokens::new(store.clone())),
        ];
        let authority = Self {
            bundle: Arc::new(bundle),
            intermediate: ArcSwap::from_pointee(intermediate),
            server: ArcSwap::from_pointee(serving),
            ready: watch::Sender::new(true),
            config,
            clock,
            directory,
            root,
            bundles,
            store,
            attestors,
            metrics,
        };
        authority.show_dates();
        Ok(Arc::new(authority))
    }

    /// Adds the authority's metrics to `registry`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Whether certificates can be issued just now; false while records cannot be written or no signing
    /// certificate is valid. Kept current by [`run`](Self::run).
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// The trust domain's roots, as peers must know them.
    #[must_use]
    pub fn bundle(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.bundle)
    }

    /// What the server authenticates with on its own port: its SPIFFE ID, its DNS names and addresses. The
    /// chain ends with the root, by whose hash a join token's holder recognises the server.
    #[must_use]
    pub fn server_identity(&self) -> Arc<Identity> {
        self.server.load().identity()
    }

    /// Makes a token with which one agent can get a certificate for `id`, once, within `ttl`; zero means
    /// ten minutes.
    ///
    /// # Errors
    /// [`JoinTokenError`] if the ID is foreign or reserved, the life too long, or the store down.
    pub async fn create_join_token(&self, id: &SpiffeId, ttl: Duration) -> Result<JoinToken, JoinTokenError> {
        let ttl = if ttl.is_zero() { join_token::DEFAULT_TTL } else { ttl };
        if id.trust_domain() != self.config.trust_domain {
            let domain = self.config.trust_domain.as_str().to_owned();
            return Err(JoinTokenError::Foreign { id: id.clone(), domain });
        }
        if id.path().is_empty() || id == self.server_identity().svid.id() {
            return Err(JoinTokenError::Reserved(id.clone()));
        }
        if ttl > join_token::MAX_TTL {
            return Err(JoinTokenError::TooLong(ttl));
        }
        let root = sha256(self.root.certificate());
        let (token, row) = join_token::make(id, &root, self.now(), ttl)?;
        self.store.add_token(row).await?;
        tracing::info!(%id, expires = token.expires.as_secs(), "join token created");
        Ok(token)
    }

    /// The newest issuances for `id`, at most `limit`, newest first.
    ///
    /// # Errors
    /// [`StoreError`] if the records cannot be read.
    pub async fn issuances(&self, id: &SpiffeId, limit: u32) -> Result<Vec<IssuanceRow>, StoreError> {
        self.store.issuances(id.as_str(), limit).await
    }

    /// Renews the intermediate and the server's certificate in time, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
            self.maintain().await;
        }
    }

    /// Renews what is due by the clock. [`run`](Self::run) calls it every ten seconds; a failure is logged,
    /// counted and tried again, and what is in use stays in use.
    pub async fn maintain(&self) {
        let now = self.now();
        if self.intermediate.load().due(now) {
            let renewed = make_intermediate(&self.directory, &self.config, &self.root, now);
            self.swap("intermediate", renewed, |signer| self.intermediate.store(signer));
        }
        if self.server.load().due(now) {
            let signer = self.intermediate.load_full();
            let parts =
                server::Parts { config: &self.config, root: &self.root, signer: &signer, bundles: &self.bundles };
            let renewed = server::issue(&parts, &self.store, &self.clock).await;
            self.swap("server", renewed, |serving| self.server.store(serving));
        }
        self.show_dates();
        self.ready.send_replace(!self.store.failing() && self.intermediate.load().valid(self.now()));
    }

    fn swap<T, E: std::error::Error + 'static>(
        &self,
        what: &'static str,
        renewed: Result<T, E>,
        store: impl FnOnce(Arc<T>),
    ) {
        match renewed {
            Ok(renewed) => {
                store(Arc::new(renewed));
                tracing::info!(what, "certificate renewed");
            }
            Err(error) => {
                self.metrics.maintenance_failed();
                let error: &dyn std::error::Error = &error;
                tracing::error!(what, error, "certificate not renewed, the present one stays");
            }
        }
    }

    /// Signs, verifies and records. The answer may go out once this returns: the row is durable.
    pub(crate) async fn issue(&self, order: Order<'_>) -> Result<Issued, IssueError> {
        let (now, signer) = (self.now(), self.intermediate.load_full());
        let lifetimes = Lifetimes { default: self.config.leaf_ttl.as_secs(), maximum: self.config.max_ttl.as_secs() };
        let dates = (signer.not_before, signer.not_after);
        let lifetime = lifetimes.dates(order.ttl, now, dates).ok_or(LeafError::SignerDates)?;
        let id = &order.attested.id;
        let spec = LeafSpec { id, dns_names: order.dns_names, addresses: &[], lifetime };
        let leaf = leaf::issue(&spec, order.csr.key(), &signer, &self.bundles)?;
        let row = row(
            id,
            &leaf,
            now,
            RowFacts {
                caller: order.caller,
                attestor: order.attested.attestor,
                requested_ttl: order.ttl,
                key_sha256: hex(&order.csr.key_sha256()),
            },
        );
        let token = order.attested.redeem.as_ref().map(|redeem| redeem.secret_sha256.clone());
        self.store.record(row, token).await?;
        self.metrics.issued(order.attested.attestor, lifetime.shortened);
        Ok(Issued { leaf, intermediate_pem: certificate_pem(signer.certificate()) })
    }

    pub(crate) fn attestors(&self) -> &[Box<dyn Attestor>] {
        &self.attestors
    }

    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.config.trust_domain
    }

    pub(crate) fn extra_keys(&self) -> ExtraKeys {
        self.config.extra_keys
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now().as_secs()
    }

    fn show_dates(&self) {
        self.metrics.not_after("root", self.root.not_after);
        self.metrics.not_after("intermediate", self.intermediate.load().not_after);
        self.metrics.not_after("server", self.server_identity().svid.not_after().as_secs());
    }
}

/// What a row says beyond the leaf itself.
struct RowFacts {
    caller: String,
    attestor: &'static str,
    requested_ttl: i64,
    key_sha256: String,
}

fn row(id: &SpiffeId, leaf: &Leaf, now: u64, facts: RowFacts) -> IssuanceRow {
    let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    IssuanceRow {
        serial: leaf.serial.clone(),
        spiffe_id: id.as_str().to_owned(),
        caller: facts.caller,
        attestor: facts.attestor.to_owned(),
        not_before: signed(leaf.lifetime.not_before),
        not_after: signed(leaf.lifetime.not_after),
        requested_ttl: facts.requested_ttl,
        shortened: leaf.lifetime.shortened,
        key_sha256: facts.key_sha256,
        issued_at: signed(now),
    }
}

/// Reads the root; makes it if there is none. Whoever else makes one at the same moment, all read
/// back the one that was first.
fn open_root(directory: &Directory, config: &CaConfig, now: u64) -> Result<Signer, OpenError> {
    let (name, domain) = (Kind::Root.file(), &config.trust_domain);
    if directory.read_secret(name)?.is_none() {
        if directory.read_secret(Kind::Intermediate.file())?.is_some() {
            return Err(SignerError::RootMissing(directory.join(name)).into());
        }
        directory.create(name, Signer::root(domain, now)?.to_file().as_bytes())?;
        tracing::info!(path = %directory.join(name).display(), trust_domain = domain.as_str(), "root created");
    }
    let path = directory.join(name);
    let text = directory.read_secret(name)?.ok_or_else(|| SignerError::Layout(path.clone()))?;
    let root = Signer::from_file(&text, Kind::Root, domain, path.clone())?;
    if !root.valid(now) {
        let (not_before, not_after) = (root.not_before, root.not_after);
        return Err(SignerError::Dates { path, not_before, not_after }.into());
    }
    Ok(root)
}

fn open_intermediate(directory: &Directory, config: &CaConfig, root: &Signer, now: u64) -> Result<Signer, OpenError> {
    let name = Kind::Intermediate.file();
    if let Some(text) = directory.read_secret(name)? {
        let found = Signer::from_file(&text, Kind::Intermediate, &config.trust_domain, directory.join(name))?;
        if root.signed(&found) && !found.due(now) {
            return Ok(found);
        }
        tracing::info!("the intermediate is replaced: it is due, or of another root");
    }
    make_intermediate(directory, config, root, now)
}

/// Makes an intermediate and puts it in the place of the present one. Leaves carry their intermediate
/// with them, so nobody has to learn of it first.
fn make_intermediate(directory: &Directory, config: &CaConfig, root: &Signer, now: u64) -> Result<Signer, OpenError> {
    let made = root.intermediate(&config.trust_domain, now)?;
    directory.replace(Kind::Intermediate.file(), made.to_file().as_bytes())?;
    Ok(made)
}
