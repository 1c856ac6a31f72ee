//! What holds at one moment: who signs, whom peers trust, what is revoked. Replaced as a whole, so that no request sees half of
//! a rotation.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_identity::{BundleError, CertificateDer, TrustBundle, TrustBundles, TrustDomain};

use super::OpenError;
use crate::directory::DirectoryError;
use crate::document::Documents;
use crate::journal::{Journal, Origin, Record, State};
use crate::jwt::Ring;
use crate::signer::{Found, Signer, hex};

/// One state of the authority.
#[derive(Debug)]
pub(crate) struct Realm {
    pub(crate) journal: Journal,
    /// The active authority: its identifier, and what it signs with.
    pub(crate) authority: String,
    pub(crate) signer: Arc<Signer>,
    pub(crate) bundle: Arc<TrustBundle>,
    /// The bundle with what is denied.
    pub(crate) bundles: Arc<TrustBundles>,
    pub(crate) roots_pem: Arc<str>,
    /// The root that the active signer leads to.
    pub(crate) anchor: CertificateDer<'static>,
    /// Hex of the bundle's digest: what followers acknowledge.
    pub(crate) digest: String,
    /// Identifiers of the authorities whose leaves must be replaced, and of the certificates they sign with.
    pub(crate) tainted: Vec<String>,
    /// The keys that sign tokens.
    pub(crate) ring: Ring,
    /// Everything public, as documents.
    pub(crate) documents: Arc<Documents>,
}

impl Realm {
    pub(crate) fn new(
        journal: Journal,
        signer: Arc<Signer>,
        domain: &TrustDomain,
        denied: BTreeSet<String>,
        ring: Ring,
        documents: impl FnOnce(&TrustBundle, &Ring) -> Result<Documents, DirectoryError>,
    ) -> Result<Self, OpenError> {
        let bundle = TrustBundle::new(domain.clone(), journal.roots())?;
        let documents = Arc::new(documents(&bundle, &ring)?);
        let mut bundles = TrustBundles::from_iter([bundle.clone()]);
        bundles.with_denied(denied);
        let active = journal.of(State::Active);
        let anchor = active.and_then(anchor).ok_or(BundleError::Empty)?;
        let mut tainted: Vec<String> =
            journal.authorities.iter().filter(|record| record.tainted).flat_map(identifiers).collect();
        tainted.sort_unstable();
        tainted.dedup();
        Ok(Self {
            authority: active.map(|record| record.id.clone()).unwrap_or_default(),
            signer,
            anchor,
            roots_pem: bundle.to_pem().into(),
            digest: hex(&bundle.digest()),
            bundle: Arc::new(bundle),
            bundles: Arc::new(bundles),
            tainted,
            ring,
            documents,
            journal,
        })
    }

    /// The last second of the active authority: of its root if it renews its intermediate by itself.
    pub(crate) fn ends(&self) -> u64 {
        let own = self.journal.of(State::Active).is_some_and(|active| active.origin == Origin::Own);
        let root = Found::read(&self.anchor).filter(|_| own);
        root.map_or(self.signer.not_after, |root| root.not_after)
    }

    pub(crate) fn denies(&self, serial: &str) -> bool {
        self.bundles.denies(serial)
    }
}

/// Of a record's roots the one that its chain leads to; of several of that name the one that lives longest.
fn anchor(record: &Record) -> Option<CertificateDer<'static>> {
    let issuer = record.chain().last().and_then(Found::read)?.issuer;
    let found = record.roots().into_iter().filter_map(|der| Found::read(&der).map(|found| (der, found)));
    found.filter(|(_, root)| root.subject == issuer).max_by_key(|(_, root)| root.not_after).map(|(der, _)| der)
}

/// By what a leaf can be recognised as an authority's: the key identifiers on its path.
fn identifiers(record: &Record) -> Vec<String> {
    let path: Vec<_> = match record.origin {
        // The roots of a plugged-in one may stand above others, too.
        Origin::Cacerts => record.chain().into_iter().take(1).collect(),
        Origin::Own => record.chain().into_iter().chain(record.roots()).collect(),
    };
    path.iter().filter_map(Found::read).map(|found| found.id()).collect()
}
