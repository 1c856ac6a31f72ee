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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, IsCa, KeyPair, SanType};
    use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};

    use super::*;
    use crate::runtime::SystemClock;

    /// The three files of a new identity below `root`, in a directory of their own.
    fn write(dir: PathBuf, root: &CertifiedIssuer<'static, KeyPair>) -> PathBuf {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI("spiffe://a.test/web".try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, root).unwrap();
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("cert.pem"), leaf.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(dir.join("roots.pem"), root.pem()).unwrap();
        dir
    }

    /// Trap 32: the files stay the same links, what they lead to is swapped, more than once. Trap 33: a new certificate beside the
    /// old key, and a file that is away for a moment, are no identity.
    #[test]
    fn trap_32_33_swapped_files_are_read_and_halves_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let swap = |to: &Path| {
            symlink(to, at("..next")).unwrap();
            std::fs::rename(at("..next"), at("..data")).unwrap();
        };
        swap(&write(at("1"), &root));
        let [certificate, private_key, trust_bundle] = ["cert.pem", "key.pem", "roots.pem"].map(|name| {
            symlink(Path::new("..data").join(name), at(name)).unwrap();
            at(name)
        });
        let files = FilesConfig { certificate, private_key, trust_bundle };
        let source = FileSource::open(&files, Arc::new(SystemClock)).unwrap();
        let serial = || source.current().unwrap().svid.serial().to_owned();
        let mut before = serial();
        for next in ["2", "3"] {
            swap(&write(at(next), &root));
            assert_eq!(source.refresh(), Ok(true));
            assert_ne!(std::mem::replace(&mut before, serial()), serial());
        }
        std::fs::copy(at("1").join("cert.pem"), at("3").join("cert.pem")).unwrap();
        assert!(source.refresh().unwrap_err().contains("cert.pem"));
        std::fs::remove_file(at("..data")).unwrap();
        assert!(source.refresh().unwrap_err().contains("cannot read"));
        assert_eq!(serial(), before, "the old pair stays");
        swap(&at("1"));
        assert_eq!(source.refresh(), Ok(true));
    }
}
