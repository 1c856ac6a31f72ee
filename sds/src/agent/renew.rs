//! The renewal loop: asks, checks, installs, keeps; and waits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use palisade_identity::{BundleError, Clock, Identity, PrivateKey, SpiffeId, TrustBundle, error_chain, tls};
use rcgen::{CertificateParams, CertificateSigningRequest, DistinguishedName, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Inner;
use super::plan::{Plan, Step};
use crate::answer::{self, AnswerError, Expectation};
use crate::authority::{self, CallError};
use crate::config::{FirstTrust, JoinTokenSource};
use crate::metrics::Outcome;
use crate::schedule::{Draw, Validity};
use crate::token::{JoinToken, MAX_TOKEN_BYTES, ParseTokenError};

const ALPN: &[&[u8]] = &[b"h2"];
/// Bounds what is read from a bundle file.
const MAX_BUNDLE_BYTES: usize = 1024 * 1024;

/// Why an attempt gave no new identity. The old one stays.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// No valid certificate in hand and nothing else to show.
    #[error("there is no valid certificate and no join token to ask with")]
    NoCredential,
    /// The join token's file cannot be read.
    #[error("join token file `{}` cannot be read", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The join token is none.
    #[error("the join token cannot be used")]
    Token(#[source] ParseTokenError),
    /// The bundle's file cannot be read.
    #[error("trust bundle file `{}` cannot be read", path.display())]
    BundleFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bundle's file holds no bundle.
    #[error("trust bundle file `{}` cannot be used", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
    /// The current identity's own bundle is missing.
    #[error("there is no trust bundle to recognise the server by")]
    NoBundle,
    /// No key or request could be made.
    #[error("no key and certificate request could be made")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// TLS could not be set up.
    #[error("TLS to the server cannot be set up")]
    Tls(#[source] tls::TlsError),
    /// The authority gave no certificate.
    #[error("no certificate was issued")]
    Call(#[source] CallError),
    /// It gave one that must not be installed.
    #[error("the server's answer is not installed")]
    Answer(#[source] AnswerError),
}

impl RenewError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Call(CallError::Refused(_)) => Outcome::Refused,
            Self::Call(CallError::Unrecognised(_)) => Outcome::Unrecognised,
            Self::Call(_) => Outcome::Unavailable,
            Self::Answer(_) => Outcome::Invalid,
            Self::NoCredential
            | Self::TokenFile { .. }
            | Self::Token(_)
            | Self::BundleFile { .. }
            | Self::Bundle { .. }
            | Self::NoBundle
            | Self::Key(_)
            | Self::Tls(_) => Outcome::NoCredential,
        }
    }
}

/// Runs until `shutdown`.
pub(super) async fn run(inner: &Inner, shutdown: CancellationToken) {
    // What peers refuse, for its dates or because it was revoked, is no beginning.
    let good = |identity: &Arc<Identity>| identity.svid.usable(&identity.bundles, inner.clock.now()).is_ok();
    let start = inner.holder.current().filter(good).map(|identity| {
        // What was stored long ago was received no later than it began.
        validity(&identity, identity.svid.not_before())
    });
    let mut renewer = Renewer { inner, plan: Plan::new(start, draw()), unsaved: false, enrolling: None };
    loop {
        renewer.look();
        let pause = match renewer.plan.step(inner.clock.now(), Instant::now()) {
            Step::Sleep(pause) => pause,
            Step::Attempt => {
                tokio::select! {
                    () = renewer.attempt() => continue,
                    () = shutdown.cancelled() => return,
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => renewer.save_again().await,
            () = inner.renew_now.notified() => renewer.plan.force(),
            () = shutdown.cancelled() => return,
        }
    }
}

struct Renewer<'a> {
    inner: &'a Inner,
    plan: Plan,
    /// The identity in hand could not be written to disk yet.
    unsaved: bool,
    /// The key and request that a join token may be spent on: if the answer is lost or of no use, only the same key is answered again.
    enrolling: Option<(PrivateKey, String)>,
}

impl Renewer<'_> {
    /// Brings readiness up to date, and says so when an identity has become useless.
    fn look(&self) {
        let now = self.inner.clock.now();
        if self.inner.holder.refresh(now) && !*self.inner.holder.readiness().borrow() {
            tracing::error!(state = %self.inner.holder.health(now), "the identity cannot be used");
        }
    }

    async fn attempt(&mut self) {
        let epoch = self.inner.roster.now().epoch;
        match request(self.inner, &mut self.enrolling).await {
            Ok(identity) => {
                let _alone = self.inner.changing.lock().await;
                self.inner.own_epoch.store(epoch, Ordering::Release);
                self.install(Arc::new(with_known_trust(self.inner, identity))).await;
            }
            Err(error) => self.fail(&error),
        }
    }

    async fn install(&mut self, identity: Arc<Identity>) {
        let now = self.inner.clock.now();
        let svid = &identity.svid;
        self.plan.installed(validity(&identity, now), draw());
        tracing::info!(
            id = %svid.id(), serial = svid.serial(), not_after = svid.not_after().as_secs(),
            renew_at = self.plan.due().as_secs(), "a new certificate is in place"
        );
        self.inner.metrics.renewal(Outcome::Renewed);
        self.inner.metrics.not_after.set(i64::try_from(svid.not_after().as_secs()).unwrap_or(i64::MAX));
        // Disk first: a crash in between must not forget what others have seen already.
        self.unsaved = !save(self.inner, &identity).await;
        self.inner.holder.install(identity, now);
        // Calls that begin now show the new certificate; a server may have reason to refuse the old one.
        if let Err(error) = self.inner.reconnect() {
            tracing::error!(error = %error_chain(&error), "the old connection stays in use");
        }
    }

    fn fail(&mut self, error: &RenewError) {
        let outcome = error.outcome();
        let mut delay = match outcome {
            Outcome::Refused => self.plan.refused(Instant::now(), draw()),
            _ => self.plan.failed(Instant::now(), draw()),
        };
        if let RenewError::Call(CallError::Failed(status)) = error
            && let Some(wish) = authority::pushback(status)
        {
            self.plan.pushed_back(Instant::now(), wish);
            delay = delay.max(wish);
        }
        let text = error_chain(error);
        let retry_in_ms = delay.as_millis();
        match outcome {
            // No number of attempts mends that.
            Outcome::Unrecognised => {
                tracing::error!(error = %text, retry_in_ms, "somebody else answers for the server")
            }
            _ => tracing::warn!(error = %text, retry_in_ms, "no new certificate; what there is stays in use"),
        }
        self.inner.metrics.renewal(outcome);
        self.inner.holder.failed(text);
    }

    async fn save_again(&mut self) {
        let _alone = self.inner.changing.lock().await;
        if self.unsaved
            && let Some(identity) = self.inner.holder.current()
        {
            self.unsaved = !save(self.inner, &identity).await;
        }
    }
}

/// Writes the identity down, and says whether that succeeded. Failing is no reason not to use it: a full disk must not stop
/// traffic.
pub(super) async fn save(inner: &Inner, identity: &Arc<Identity>) -> bool {
    let (storage, identity) = (inner.storage.clone(), Arc::clone(identity));
    let saved = tokio::task::spawn_blocking(move || storage.save(&identity)).await;
    if let Ok(Err(error)) = &saved {
        tracing::error!(
            error = %error_chain(error),
            "the identity is used but not stored; a restart would have to ask for another"
        );
    }
    matches!(saved, Ok(Ok(())))
}

/// Whoever follows the server knows more of trust than an answer says: other trust domains, what is revoked, and the newest
/// bundle, unless the answer comes from an authority that it does not have yet.
fn with_known_trust(inner: &Inner, fresh: Identity) -> Identity {
    let Some(current) = inner.holder.current() else { return fresh };
    let mut bundles = current.bundles.as_ref().clone();
    let followed = inner.following.load(Ordering::Acquire) && fresh.svid.usable(&bundles, inner.clock.now()).is_ok();
    if !followed && let Some(answered) = fresh.bundles.get(inner.config.trust_domain.as_str()) {
        bundles.insert(answered.clone());
    }
    let bundles = if bundles == *current.bundles { Arc::clone(&current.bundles) } else { Arc::new(bundles) };
    Identity { svid: fresh.svid, bundles }
}

/// How the server is recognised and what it is shown.
struct Contact {
    tls: ClientConfig,
    token: Option<JoinToken>,
    pinned_root: Option<[u8; 32]>,
}

/// One attempt, without any effect but the request itself and what is kept of it in `enrolling`.
async fn request(inner: &Inner, enrolling: &mut Option<(PrivateKey, String)>) -> Result<Identity, RenewError> {
    let current = inner.holder.current();
    let now = inner.clock.now();
    let mut contact = match current.as_deref().filter(|identity| identity.svid.usable(&identity.bundles, now).is_ok()) {
        Some(identity) => Contact { tls: tls_as(identity, &inner.clock)?, token: None, pinned_root: None },
        None => first_contact(inner).await?,
    };
    contact.tls.time_provider = tls::time_provider(Arc::clone(&inner.clock));
    let (key, csr) = match enrolling.take().filter(|_| contact.token.is_some()) {
        Some(kept) => kept,
        None => key_and_pem()?,
    };
    *enrolling = contact.token.is_some().then(|| (key.clone(), csr.clone()));
    let elements = authority::create_certificate(&inner.config, Arc::new(contact.tls), contact.token.as_ref(), csr)
        .await
        .map_err(RenewError::Call)?;
    let known: Option<&SpiffeId> =
        inner.config.expected_id.as_ref().or_else(|| current.as_deref().map(|identity| identity.svid.id()));
    let expect = Expectation { trust_domain: &inner.config.trust_domain, id: known, pinned_root: contact.pinned_root };
    let identity = answer::accept(&elements, key, &expect, inner.clock.now()).map_err(RenewError::Answer)?;
    *enrolling = None;
    Ok(identity)
}

/// Shows the current certificate to a server recognised by the current bundle.
pub(super) fn tls_as(identity: &Identity, clock: &Arc<dyn Clock>) -> Result<ClientConfig, RenewError> {
    let bundle = identity.bundles.get(identity.svid.id().trust_domain_name()).ok_or(RenewError::NoBundle)?;
    let mut tls = tls::client_config_named(Some(identity), bundle, ALPN).map_err(RenewError::Tls)?;
    tls.time_provider = tls::time_provider(Arc::clone(clock));
    Ok(tls)
}

/// With a join token, to a server recognised by a file or by the token.
async fn first_contact(inner: &Inner) -> Result<Contact, RenewError> {
    let token = join_token(inner.config.join_token.as_ref()).await?;
    match &inner.config.first_trust {
        FirstTrust::JoinToken => {
            let root = token.root_sha256();
            let tls = tls::client_config_pinned(root, ALPN).map_err(RenewError::Tls)?;
            Ok(Contact { tls, token: Some(token), pinned_root: Some(root) })
        }
        FirstTrust::BundleFile(path) => {
            let text = read(path, MAX_BUNDLE_BYTES)
                .await
                .map_err(|source| RenewError::BundleFile { path: path.clone(), source })?;
            let bundle = TrustBundle::from_pem(inner.config.trust_domain.clone(), text.as_bytes())
                .map_err(|source| RenewError::Bundle { path: path.clone(), source })?;
            let tls = tls::client_config_named(None, &bundle, ALPN).map_err(RenewError::Tls)?;
            Ok(Contact { tls, token: Some(token), pinned_root: None })
        }
    }
}

async fn join_token(source: Option<&JoinTokenSource>) -> Result<JoinToken, RenewError> {
    match source {
        None => Err(RenewError::NoCredential),
        Some(JoinTokenSource::Inline(token)) => Ok(token.clone()),
        Some(JoinTokenSource::File(path)) => {
            let text = read(path, MAX_TOKEN_BYTES)
                .await
                .map_err(|source| RenewError::TokenFile { path: path.clone(), source })?;
            JoinToken::parse(&text).map_err(RenewError::Token)
        }
    }
}

/// A small text file; a longer one is an error, not a part of it.
async fn read(path: &Path, limit: usize) -> io::Result<Zeroizing<String>> {
    use tokio::io::AsyncReadExt;
    let file = tokio::fs::File::open(path).await?;
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound).read_to_string(&mut text).await?;
    if text.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is far too long"));
    }
    Ok(text)
}

/// A new key each time, so that a stolen one is worth half a lifetime; and a request that says nothing but the key,
/// for the identity comes from attestation.
pub(super) fn key_and_csr() -> Result<(PrivateKey, CertificateSigningRequest), RenewError> {
    let key = PrivateKey::generate_p256().map_err(|error| RenewError::Key(Box::new(error)))?;
    let signer = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.as_pkcs8_der()))
        .map_err(|error| RenewError::Key(Box::new(error)))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&signer).map_err(|error| RenewError::Key(Box::new(error)))?;
    Ok((key, csr))
}

fn key_and_pem() -> Result<(PrivateKey, String), RenewError> {
    let (key, csr) = key_and_csr()?;
    Ok((key, csr.pem().map_err(|error| RenewError::Key(Box::new(error)))?))
}

fn validity(identity: &Identity, received: rustls_pki_types::UnixTime) -> Validity {
    Validity { not_before: identity.svid.not_before(), not_after: identity.svid.not_after(), received }
}

/// From the operating system, so that machines cloned from one image do not renew in step.
pub(super) fn draw() -> Draw {
    let mut bits = [0_u8; 4];
    // Without randomness nothing works: neither keys nor TLS. The middle of the window serves as well as any.
    if aws_lc_rs::rand::fill(&mut bits).is_err() {
        bits = [0x80, 0, 0, 0];
    }
    Draw::from_bits(u32::from_be_bytes(bits))
}
