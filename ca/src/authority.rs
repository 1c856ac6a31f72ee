//! The authority: its signing certificates, what it records, and its own identity on the wire.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use palisade_identity::{BundleError, Clock, Identity, SpiffeId, TrustBundle, TrustDomain};
use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, Notify, watch};

use crate::agents::followers::Followers;
use crate::attest::Attestor;
use crate::attest::certificate::CurrentCertificate;
use crate::attest::join_token::{self, JoinToken, JoinTokenError, JoinTokens};
use crate::cacerts::CacertsError;
use crate::config::{CaConfig, ConfigError};
use crate::csr::ExtraKeys;
use crate::custody::CustodyError;
use crate::custody::file::FileCustody;
use crate::directory::{Directory, DirectoryError};
use crate::document::{Content, Documents};
use crate::journal::{Journal, JournalError, State};
use crate::jwt::{Ring, RingError};
use crate::metrics::Metrics;
use crate::signer::SignerError;
use crate::store::{Store, StoreError};

mod hands;
mod issue;
mod issued;
mod realm;
mod revoke;
mod rotate;
mod server;
mod status;

use hands::Hands;
pub(crate) use issue::{IssueError, Order, TokenError, TokenOrder};
pub(crate) use realm::Realm;
pub use revoke::RevokeError;
pub use rotate::RotateError;
pub use server::ServerIdentityError;
use server::Serving;
pub use status::{AuthorityStatus, FollowerStatus, Status};

/// Name of the database in the authority's directory.
pub const DATABASE: &str = "ca.db";

/// Why an authority cannot be opened. The cause names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings.
    #[error("the certificate authority's settings are refused")]
    Config(#[from] ConfigError),
    /// The directory or a file in it.
    #[error("the certificate authority's directory cannot be used")]
    Directory(#[from] DirectoryError),
    /// The list of authorities.
    #[error("the certificate authority's directory cannot be used")]
    Journal(#[from] JournalError),
    /// A key.
    #[error("the signing keys cannot be used")]
    Custody(#[from] CustodyError),
    /// The operator's files.
    #[error("the signing certificate in --cacerts is refused")]
    Cacerts(#[source] Box<CacertsError>),
    /// A signing certificate.
    #[error("the signing certificates cannot be used")]
    Signer(#[from] SignerError),
    /// A key that the list of authorities names is not there.
    #[error("`{}` is missing, a key of an authority: restore it from a backup, or name an empty directory to begin anew", .0.display())]
    KeyMissing(PathBuf),
    /// The active authority was plugged in, and is not any more.
    #[error(
        "the active authority {0} came from --cacerts and its key is not there: give --cacerts again, with that key or its successor"
    )]
    KeyGone(String),
    /// A root outside its dates: it is never replaced in silence.
    #[error(
        "the root of authority {id} is not valid now (from {not_before} to {not_after}, unix seconds): check the clock; if it is right, the trust domain has ended, name an empty directory to begin anew"
    )]
    RootDates {
        /// Which authority.
        id: String,
        /// Its beginning.
        not_before: u64,
        /// Its end.
        not_after: u64,
    },
    /// A root breaks a rule for signing certificates.
    #[error("a root is not accepted as a trust anchor")]
    Bundle(#[from] BundleError),
    /// The keys that sign tokens.
    #[error("the keys for tokens cannot be used")]
    Ring(#[from] RingError),
    /// The database.
    #[error("the issuance records cannot be opened")]
    Store(#[from] StoreError),
    /// The server's own certificate.
    #[error("the server's own certificate cannot be issued")]
    Server(#[from] ServerIdentityError),
}

impl From<CacertsError> for OpenError {
    fn from(error: CacertsError) -> Self {
        Self::Cacerts(Box::new(error))
    }
}

/// A certificate authority for one trust domain, open for business.
#[derive(Debug)]
pub struct Authority {
    config: CaConfig,
    clock: Arc<dyn Clock>,
    /// When this process began with it, unix seconds.
    opened_at: u64,
    /// The keys. Whoever changes anything holds them, so that changes come one after the other.
    hands: Mutex<Hands>,
    realm: ArcSwap<Realm>,
    /// Says that the realm was replaced.
    changes: watch::Sender<()>,
    server: ArcSwap<Serving>,
    store: Store,
    attestors: Vec<Box<dyn Attestor>>,
    followers: Followers,
    /// Asks for maintenance before its time.
    hurry: Notify,
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
        let (directory, version) = Directory::open(&config.dir)?;
        let custody = FileCustody::new(directory.clone(), config.passphrase.clone());
        let ring = Ring::open(&directory, &config.jwt, now)?;
        let mut hands = Hands::new(directory.clone(), custody, ring);
        let journal = hands.open(&config, version, now)?;
        directory.create(DATABASE, b"")?;
        let store = Store::open(directory.join(DATABASE), metrics.clone()).await?;
        let denied = store.revocations(signed(now)).await?.into_iter().map(|revoked| revoked.serial).collect();
        let realm = realm_of(journal, &hands, &config, denied, now)?;
        let parts = server::Parts { config: &config, realm: &realm, crosses: server::crosses(&realm, &hands, now) };
        let serving = server::issue(parts, &store, &clock).await?;
        let attestors: Vec<Box<dyn Attestor>> = vec![
            Box::new(CurrentCertificate::new(config.trust_domain.clone())),
            Box::new(JoinTokens::new(store.clone())),
        ];
        let authority = Self {
            hands: Mutex::new(hands),
            realm: ArcSwap::from_pointee(realm),
            changes: watch::Sender::new(()),
            server: ArcSwap::from_pointee(serving),
            ready: watch::Sender::new(true),
            followers: Followers::default(),
            hurry: Notify::new(),
            opened_at: now,
            config,
            clock,
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

    /// The trust domain's roots, as peers must know them at this moment.
    #[must_use]
    pub fn bundle(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.realm.load().bundle)
    }

    /// The public keys of this moment as documents: SPIFFE's bundle, JWK sets, discovery.
    #[must_use]
    pub fn documents(&self) -> Arc<Documents> {
        Arc::clone(&self.realm.load().documents)
    }

    /// What the server authenticates with on its own port: its SPIFFE ID, its DNS names and addresses. The
    /// chain holds every root that leads to it, by whose hash a join token's holder recognises the server.
    #[must_use]
    pub fn server_identity(&self) -> Arc<Identity> {
        self.server.load().identity()
    }

    /// Makes a token with which one agent can get a certificate for `id`, once, within `ttl`; zero means
    /// ten minutes. It is good as long as the root that is active now stays in the bundle.
    ///
    /// # Errors
    /// [`JoinTokenError`] if the ID is foreign or reserved, the life too long, or the store down.
    pub async fn create_join_token(&self, id: &SpiffeId, ttl: Duration) -> Result<JoinToken, JoinTokenError> {
        let ttl = if ttl.is_zero() { join_token::DEFAULT_TTL } else { ttl };
        if id.trust_domain() != self.config.trust_domain {
            let domain = self.config.trust_domain.as_str().to_owned();
            return Err(JoinTokenError::Foreign { id: id.clone(), domain });
        }
        if id.path().is_empty() || self.reserved(id, &[]).is_some() {
            return Err(JoinTokenError::Reserved(id.clone()));
        }
        if ttl > join_token::MAX_TTL {
            return Err(JoinTokenError::TooLong(ttl));
        }
        let root = self.server.load().pin();
        let (token, row) = join_token::make(id, &root, self.now(), ttl)?;
        self.store.add_token(row).await?;
        tracing::info!(%id, expires = token.expires.as_secs(), "join token created");
        Ok(token)
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

    pub(crate) fn config(&self) -> &CaConfig {
        &self.config
    }

    pub(crate) fn followers(&self) -> &Followers {
        &self.followers
    }

    pub(crate) fn realm(&self) -> Arc<Realm> {
        self.realm.load_full()
    }

    /// Changes whenever [`realm`](Self::realm) does.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Looks at what is due before the next tick.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now().as_secs()
    }

    fn show_dates(&self) {
        let realm = self.realm.load();
        let root = crate::signer::Found::read(&realm.anchor);
        self.metrics.not_after("root", root.map_or(0, |root| root.not_after));
        self.metrics.not_after("intermediate", realm.signer.not_after);
        self.metrics.not_after("server", self.server_identity().svid.not_after().as_secs());
    }
}

/// The state that a journal and the keys at hand make.
fn realm_of(
    journal: Journal,
    hands: &Hands,
    config: &CaConfig,
    denied: BTreeSet<String>,
    now: u64,
) -> Result<Realm, OpenError> {
    let active = journal.of(State::Active).map(|record| record.id.clone()).unwrap_or_default();
    let signer = hands.signer(&active).ok_or(OpenError::KeyGone(active))?;
    let documents = |x509: &TrustBundle, ring: &Ring| {
        let (jwt, issuer) = (|usage: &str| ring.jwks(usage), config.jwt.issuer.as_deref());
        let content = Content { x509, jwt: &jwt, issuer, refresh_hint: config.jwt.refresh_hint };
        Documents::write(&content, &hands.directory, now)
    };
    Realm::new(journal, signer, &config.trust_domain, denied, hands.ring.clone(), documents)
}

pub(crate) fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
