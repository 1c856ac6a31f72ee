//! Trust bundles: the roots of one trust domain, and the map from trust domain to bundle.
//!
//! Roots of different trust domains are never pooled. Whoever pools them lets every root vouch for every ID, and a federated
//! domain can then impersonate one's own workloads. So a bundle always knows its domain, and no type here can hold the roots of two.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256, digest};
use der::pem::LineEnding;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use thiserror::Error;

use crate::TrustDomain;
use crate::certificate::{Authority, AuthorityError};
use crate::memo::Memo;

const MAX_PEM_BYTES: usize = 1024 * 1024;
const MAX_AUTHORITIES: usize = 64;

/// Why certificates make no trust bundle.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// No certificate at all. Trust in nobody is said by having no bundle.
    #[error("the bundle holds no certificate")]
    Empty,
    /// More than 64 certificates.
    #[error("a bundle has at most 64 certificates, this one has {0}")]
    TooMany(usize),
    /// The certificate at this position (from 1) breaks a rule for signing certificates.
    #[error("certificate {position} of the bundle cannot be an authority")]
    Authority {
        /// Position in the input, from 1.
        position: usize,
        /// The rule it breaks.
        source: AuthorityError,
    },
    /// The certificate at this position (from 1) is there already.
    #[error("certificate {0} of the bundle stands there twice")]
    Duplicate(usize),
    /// The PEM text is longer than 1 MiB.
    #[error("a bundle has at most 1 MiB of PEM, this one has {0} bytes")]
    TooLarge(usize),
    /// The text is not PEM, or is cut off.
    #[error("the PEM text is damaged or cut off")]
    Pem,
    /// A private key stands among the certificates; a bundle is public, so this is the wrong file.
    #[error("the PEM text holds a private key, a bundle holds certificates only")]
    PrivateKey,
}

/// The signing certificates of one trust domain: 1 to 64 authorities, all different, each fit to sign.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    authorities: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    rules: Vec<Authority>,
}

impl TrustBundle {
    /// Builds the bundle of `trust_domain`. Dates are not looked at here: an expired root may stay listed, but nothing that it
    /// signed is accepted.
    ///
    /// # Errors
    /// A [`BundleError`] naming the certificate that does not fit, by position.
    pub fn new(trust_domain: TrustDomain, authorities: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        if authorities.is_empty() {
            return Err(BundleError::Empty);
        }
        if authorities.len() > MAX_AUTHORITIES {
            return Err(BundleError::TooMany(authorities.len()));
        }
        let mut anchors = Vec::with_capacity(authorities.len());
        let mut rules = Vec::with_capacity(authorities.len());
        for (index, certificate) in authorities.iter().enumerate() {
            let position = index + 1;
            if authorities.iter().take(index).any(|earlier| earlier == certificate) {
                return Err(BundleError::Duplicate(position));
            }
            let (rule, anchor) =
                read_authority(certificate).map_err(|source| BundleError::Authority { position, source })?;
            rules.push(rule);
            anchors.push(anchor);
        }
        Ok(Self { trust_domain, authorities, anchors, rules })
    }

    /// Reads a bundle from PEM certificates. Text between them is passed over.
    ///
    /// # Errors
    /// As [`TrustBundle::new`], and if the text is damaged, too large, or holds a private key.
    pub fn from_pem(trust_domain: TrustDomain, text: &[u8]) -> Result<Self, BundleError> {
        if text.len() > MAX_PEM_BYTES {
            return Err(BundleError::TooLarge(text.len()));
        }
        let mut authorities = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            match section.map_err(|_| BundleError::Pem)? {
                (SectionKind::Certificate, der) => authorities.push(CertificateDer::from(der)),
                (SectionKind::PrivateKey | SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey, _) => {
                    return Err(BundleError::PrivateKey);
                }
                _ => {}
            }
        }
        Self::new(trust_domain, authorities)
    }

    /// The trust domain whose IDs, and only whose IDs, these authorities may sign.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The certificates, in the order given.
    #[must_use]
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// The certificates as PEM, one after the other.
    #[must_use]
    pub fn to_pem(&self) -> String {
        certificates_pem(&self.authorities)
    }

    /// The certificates as DER, one after the other: the form of the SPIFFE Workload API.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        self.authorities.iter().flat_map(|der| der.iter().copied()).collect()
    }

    /// A SHA-256 over the trust domain and the set of certificates: the same for every order of them. It names the content of a
    /// bundle where versions are compared and propagation is acknowledged.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut each: Vec<[u8; 32]> = self.authorities.iter().map(|der| sha256(der)).collect();
        each.sort_unstable();
        let mut context = Context::new(&SHA256);
        context.update(&sha256(self.trust_domain.as_str().as_bytes()));
        each.iter().for_each(|one| context.update(one));
        to_array(context.finish().as_ref())
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    pub(crate) fn rules(&self) -> &[Authority] {
        &self.rules
    }
}

impl PartialEq for TrustBundle {
    /// Equal trust domains with the same certificates in the same order.
    fn eq(&self, other: &Self) -> bool {
        self.trust_domain == other.trust_domain && self.authorities == other.authorities
    }
}

impl Eq for TrustBundle {}

pub(crate) fn read_authority(
    certificate: &CertificateDer<'_>,
) -> Result<(Authority, TrustAnchor<'static>), AuthorityError> {
    let rule = Authority::parse(certificate)?;
    let anchor = webpki::anchor_from_trusted_cert(certificate).map_err(AuthorityError::Unsupported)?;
    Ok((rule, anchor.to_owned()))
}

pub(crate) fn certificates_pem(certificates: &[CertificateDer<'_>]) -> String {
    let one =
        |der: &CertificateDer<'_>| der::pem::encode_string("CERTIFICATE", LineEnding::LF, der).unwrap_or_default();
    certificates.iter().map(one).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    to_array(digest(&SHA256, bytes).as_ref())
}

pub(crate) fn to_array(digest: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    array.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    array
}

/// The bundles of all trust domains somebody trusts, each apart, and the certificates that are not accepted all the same.
#[derive(Clone, Debug, Default)]
pub struct TrustBundles {
    by_domain: BTreeMap<TrustDomain, TrustBundle>,
    // Shared by clones: a revocation list may be long, and every connection holds its bundles.
    denied: Arc<BTreeSet<String>>,
    // What these very bundles accepted lately. Clones share it, as they have the same content; a change begins a new one.
    memo: Arc<Memo>,
}

impl TrustBundles {
    /// Puts a bundle in, and returns the one of the same trust domain that it replaces. Bundles are never merged.
    pub fn insert(&mut self, bundle: TrustBundle) -> Option<TrustBundle> {
        self.memo = Arc::default();
        self.by_domain.insert(bundle.trust_domain.clone(), bundle)
    }

    /// Takes the bundle of a trust domain out: from now on its IDs are not accepted.
    pub fn remove(&mut self, trust_domain: &str) -> Option<TrustBundle> {
        self.memo = Arc::default();
        self.by_domain.remove(trust_domain)
    }

    /// The bundle of a trust domain, by exact name.
    #[must_use]
    pub fn get(&self, trust_domain: &str) -> Option<&TrustBundle> {
        self.by_domain.get(trust_domain)
    }

    /// All bundles, by name of the trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &TrustBundle> {
        self.by_domain.values()
    }

    /// How many trust domains there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_domain.len()
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_domain.is_empty()
    }

    /// Replaces the serial numbers (lower-case hex without separators, as [`VerifiedPeer::serial`](crate::VerifiedPeer::serial)
    /// gives them) of certificates that are refused from now on though everything else about them is right. Numbers that no
    /// certificate has are kept and deny nobody.
    pub fn with_denied(&mut self, serials: BTreeSet<String>) {
        // What is remembered stays true: `verify_peer` asks here after it has asked the memory.
        self.denied = Arc::new(serials);
    }

    /// Whether the certificate with this serial number (lower-case hex) is revoked.
    #[must_use]
    pub fn denies(&self, serial: &str) -> bool {
        self.denied.contains(serial)
    }

    /// The serial numbers given to [`with_denied`](Self::with_denied).
    #[must_use]
    pub fn denied(&self) -> &BTreeSet<String> {
        &self.denied
    }

    pub(crate) fn memo(&self) -> &Memo {
        &self.memo
    }
}

impl PartialEq for TrustBundles {
    /// The same bundles, and the same certificates denied.
    fn eq(&self, other: &Self) -> bool {
        self.by_domain == other.by_domain && self.denied == other.denied
    }
}

impl Eq for TrustBundles {}

impl FromIterator<TrustBundle> for TrustBundles {
    /// Of several bundles of one trust domain the last stays.
    fn from_iter<I: IntoIterator<Item = TrustBundle>>(bundles: I) -> Self {
        let mut all = Self::default();
        bundles.into_iter().for_each(|bundle| drop(all.insert(bundle)));
        all
    }
}
