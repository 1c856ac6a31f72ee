//! A signing certificate from the operator's own PKI: files with Istio's names, or those of a Kubernetes TLS secret.
//!
//! The files are read whenever their contents change, by path each time, as mounted secrets are links that are swapped. They are
//! judged as a whole; files of which some are new and some old do not fit each other and are not taken.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use palisade_identity::{BundleError, CertificateDer, TrustBundle, TrustDomain};
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::custody::file::{FileCustody, Passphrase};
use crate::custody::{CustodyError, SigningKey};
use crate::signer::{Found, Signer, SignerError};

const LARGEST_FILE: u64 = 256 * 1_024;
/// Certificates between the signing one and a root.
const MOST_INTERMEDIATES: usize = 6;

/// Certificate, key, chain, roots.
const ISTIO: [&str; 4] = ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"];
/// As a TLS secret has it; the chain follows the certificate in its own file.
const SECRET: [&str; 4] = ["tls.crt", "tls.key", "tls.crt", "ca.crt"];

/// Why files are not taken. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CacertsError {
    /// One file of a set is not there.
    #[error("`{}` is missing: --cacerts needs ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem, or tls.crt, tls.key and ca.crt", .0.display())]
    Missing(PathBuf),
    /// The file system refused.
    #[error("cannot read `{}`: check that it is a file that uid {} may read", .path.display(), rustix::process::geteuid().as_raw())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not PEM, or without a certificate.
    #[error("`{}` holds no PEM certificate: put the certificate there, in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// The key.
    #[error("the private key is refused")]
    Key(#[from] CustodyError),
    /// The key is another certificate's.
    #[error("the key in `{}` does not belong to the certificate in `{}`: put the pair there that was made together", .key.display(), .certificate.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// A certificate that may not sign.
    #[error("`{}` is not a certificate authority's certificate: it must say cA=true and have keyCertSign in a critical keyUsage", .path.display())]
    NotAuthority {
        /// The file.
        path: PathBuf,
        /// The rule it breaks.
        source: BundleError,
    },
    /// Past its end, or not begun.
    #[error("the certificate in `{}` is not valid now (from {} to {}): renew it, or check the clock", .path.display(), humantime::format_rfc3339_seconds(unix(*.not_before)), humantime::format_rfc3339_seconds(unix(*.not_after)))]
    Dates {
        /// The file.
        path: PathBuf,
        /// Its beginning, unix seconds.
        not_before: u64,
        /// Its end, unix seconds.
        not_after: u64,
    },
    /// No path to a root.
    #[error("`{}` does not lead to `{}`: put the certificates between them into `{}`, or the right root there", .certificate.display(), .root.display(), .chain.display())]
    NoPath {
        /// The certificate's file.
        certificate: PathBuf,
        /// The roots' file.
        root: PathBuf,
        /// Where intermediates belong.
        chain: PathBuf,
        /// What a peer would say.
        source: Box<SignerError>,
    },
}

fn unix(seconds: u64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}

/// What stands in the operator's directory.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) signer: Signer,
    /// The signing certificate, and those between it and a root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

/// The files as bytes.
pub(crate) struct Files {
    paths: [PathBuf; 4],
    texts: [Zeroizing<Vec<u8>>; 4],
}

impl Files {
    /// Reads the files of `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self, CacertsError> {
        let istio = ISTIO.iter().any(|name| dir.join(name).exists());
        let names = if istio || !dir.join("tls.crt").exists() { ISTIO } else { SECRET };
        let paths = names.map(|name| dir.join(name));
        let [certificate, key, chain, roots] = &paths;
        let texts = [text(certificate)?, text(key)?, text(chain)?, text(roots)?];
        Ok(Self { paths, texts })
    }

    /// Equal for equal contents.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for text in &self.texts {
            context.update(&text.len().to_be_bytes());
            context.update(text);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// Judges the files as a whole.
    pub(crate) fn judge(
        &self,
        secret: Option<&Passphrase>,
        domain: &TrustDomain,
        now: u64,
    ) -> Result<Plugin, CacertsError> {
        let [certificate, key, between, root] = &self.paths;
        let [certificate_text, key_text, between_text, root_text] = &self.texts;
        let own = certificates(certificate, certificate_text)?;
        let pool: Vec<_> = own.iter().skip(1).cloned().chain(certificates(between, between_text)?).collect();
        let roots = unique(certificates(root, root_text)?);
        let first = own.first().ok_or_else(|| CacertsError::NoCertificate(certificate.clone()))?;
        authority(certificate, vec![first.clone()], domain)?;
        let bundle = authority(root, roots.clone(), domain)?;
        current(certificate, std::slice::from_ref(first), now)?;
        let chain = path(first, &pool, &roots);
        current(between, chain.get(1..).unwrap_or_default(), now)?;
        current(root, &roots, now)?;
        let key_pair: Arc<dyn SigningKey> = Arc::new(FileCustody::read(key_text, secret, key.clone())?);
        let signer = Signer::new(key_pair, &chain, &bundle).map_err(|source| match source {
            SignerError::Mismatch => CacertsError::Mismatch { key: key.clone(), certificate: certificate.clone() },
            source => CacertsError::NoPath {
                certificate: certificate.clone(),
                root: root.clone(),
                chain: between.clone(),
                source: Box::new(source),
            },
        })?;
        Ok(Plugin { signer, chain, roots })
    }
}

fn text(path: &Path) -> Result<Zeroizing<Vec<u8>>, CacertsError> {
    use io::Read;
    let mut contents = Zeroizing::new(Vec::with_capacity(8_192));
    let read = fs::File::open(path).and_then(|file| file.take(LARGEST_FILE).read_to_end(&mut contents));
    match read {
        Ok(_) => Ok(contents),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CacertsError::Missing(path.to_owned())),
        Err(source) => Err(CacertsError::Io { path: path.to_owned(), source }),
    }
}

fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CacertsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| CacertsError::NoCertificate(path.to_owned()))
}

fn unique(all: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    let mut once = Vec::with_capacity(all.len());
    for one in all {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}

fn authority(
    path: &Path,
    all: Vec<CertificateDer<'static>>,
    domain: &TrustDomain,
) -> Result<TrustBundle, CacertsError> {
    TrustBundle::new(domain.clone(), all).map_err(|source| CacertsError::NotAuthority { path: path.to_owned(), source })
}

/// Refuses certificates none of which is valid now: of several roots an expired one may still be listed.
fn current(path: &Path, all: &[CertificateDer<'static>], now: u64) -> Result<(), CacertsError> {
    let found: Vec<_> = all.iter().filter_map(Found::read).collect();
    let valid = |found: &Found| (found.not_before..=found.not_after).contains(&now);
    match found.last() {
        Some(last) if !found.iter().any(valid) => {
            Err(CacertsError::Dates { path: path.to_owned(), not_before: last.not_before, not_after: last.not_after })
        }
        _ => Ok(()),
    }
}

/// From the signing certificate upwards, each the issuer of the one before, up to and without a root; whatever the order in the
/// files was.
fn path(
    first: &CertificateDer<'static>,
    pool: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Vec<CertificateDer<'static>> {
    let mut chain = vec![first.clone()];
    while chain.len() <= MOST_INTERMEDIATES {
        let Some(issuer) = chain.last().and_then(Found::read).map(|found| found.issuer) else { break };
        let next = pool.iter().find(|der| {
            !roots.contains(der)
                && !chain.contains(der)
                && Found::read(der).is_some_and(|found| found.subject == issuer)
        });
        let Some(next) = next else { break };
        chain.push(next.clone());
    }
    chain
}
