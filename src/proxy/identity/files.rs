//! An identity in PEM files that somebody else renews. Files are compared by content: links may be swapped under the same
//! names, and a pair read between two writes must not replace a good one.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palisade_identity::{Clock, Identity, PrivateKey, SvidSource, TrustBundle, TrustBundles, X509Svid};
use palisade_proxy::config::FilesConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_util::sync::CancellationToken;

use crate::exit;

/// How often the files are compared.
const PERIOD: Duration = Duration::from_secs(2);

type Callback = Box<dyn Fn() + Send + Sync>;

/// The newest good identity of the files.
pub(super) struct FileSource {
    files: FilesConfig,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    callbacks: Mutex<Vec<Callback>>,
}

struct State {
    identity: Arc<Identity>,
    contents: Contents,
}

/// Certificate chain, key and bundle as they are on disk.
type Contents = [Vec<u8>; 3];

impl FileSource {
    /// Reads the files once: a proxy that starts with bad ones says so at once.
    pub(super) fn open(files: &FilesConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, String> {
        let contents = read(files)?;
        let identity = Arc::new(parse(files, &contents, &*clock)?);
        warn_if_open(&files.private_key);
        let state = Mutex::new(State { identity, contents });
        Ok(Arc::new(Self { files: files.clone(), clock, state, callbacks: Mutex::default() }))
    }

    /// Takes new content into use if it is a usable identity.
    fn refresh(&self) -> Result<bool, String> {
        let contents = read(&self.files)?;
        if lock(&self.state).contents == contents {
            return Ok(false);
        }
        let identity = Arc::new(parse(&self.files, &contents, &*self.clock)?);
        *lock(&self.state) = State { identity, contents };
        for callback in lock(&self.callbacks).iter() {
            callback();
        }
        Ok(true)
    }
}

impl SvidSource for FileSource {
    fn current(&self) -> Option<Arc<Identity>> {
        Some(Arc::clone(&lock(&self.state).identity))
    }

    fn on_change(&self, callback: Callback) {
        lock(&self.callbacks).push(callback);
    }
}

/// Follows the files until `end`; what cannot be used is logged once and leaves the old identity in place.
pub(super) async fn follow(source: Arc<FileSource>, end: CancellationToken) -> Result<(), String> {
    let mut last = None;
    while end.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
        let problem = match source.refresh() {
            Ok(true) => {
                tracing::info!("identity files changed and are in use");
                None
            }
            Ok(false) => None,
            Err(problem) => Some(problem),
        };
        if let Some(problem) = problem.as_ref().filter(|problem| last.as_ref() != Some(*problem)) {
            tracing::error!(problem, "identity files cannot be used, the old identity stays");
        }
        last = problem;
    }
    Ok(())
}

fn read(files: &FilesConfig) -> Result<Contents, String> {
    let content = |path: &Path| std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    Ok([content(&files.certificate)?, content(&files.private_key)?, content(&files.trust_bundle)?])
}

/// Secrets mounted by others often are open; who mounts them decides, but is told.
fn warn_if_open(key: &Path) {
    let mode = std::fs::metadata(key).map_or(0, |metadata| metadata.mode());
    if mode & 0o077 != 0 {
        tracing::warn!(path = %key.display(), mode = format_args!("{:o}", mode & 0o777), "others can read the private key: chmod 600");
    }
}

fn parse(files: &FilesConfig, [chain, key, bundle]: &Contents, clock: &dyn Clock) -> Result<Identity, String> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |error: &(dyn std::error::Error + 'static)| format!("{path}: {}", exit::chain(error))
    };
    let of_chain = at(&files.certificate);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| of_chain(&error))?;
    let key = PrivateKey::from_pem(key).map_err(|error| at(&files.private_key)(&error))?;
    let svid = X509Svid::new(chain, key).map_err(|error| of_chain(&error))?;
    let bundle =
        TrustBundle::from_pem(svid.id().trust_domain(), bundle).map_err(|error| at(&files.trust_bundle)(&error))?;
    let mut bundles = TrustBundles::default();
    bundles.insert(bundle);
    svid.usable(&bundles, clock.now()).map_err(|error| of_chain(&error))?;
    Ok(Identity { svid: Arc::new(svid), bundles: Arc::new(bundles) })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
