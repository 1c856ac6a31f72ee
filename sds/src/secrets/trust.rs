//! Bundles in their wire forms, each trust domain apart.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use palisade_identity::TrustBundle;

use super::encoded::{self, Resource, version_of};
use super::{ALL_NAME, ROOTS_NAME};

/// A JWK Set without keys: nobody's tokens are valid.
const NO_KEYS: &str = r#"{"keys":[]}"#;

/// The bundles that some callers may have.
pub(crate) struct Trust {
    /// Name of the agent's own trust domain.
    home: String,
    /// Sorted by the name of the trust domain; never empty.
    bundles: Vec<TrustBundle>,
    /// JWK Sets by the name of the trust domain.
    pub(crate) jwks: BTreeMap<String, String>,
    /// Changes when and only when an X.509 bundle does.
    pub(crate) version: String,
    /// Changes when and only when a JWK Set does.
    pub(crate) jwks_version: String,
    x509: OnceLock<HashMap<String, Vec<u8>>>,
    secrets: Mutex<HashMap<String, Arc<Resource>>>,
}

impl Trust {
    pub(super) fn new(home: &str, bundles: Vec<TrustBundle>, jwks: &BTreeMap<String, String>) -> Self {
        let name = |bundle: &TrustBundle| bundle.trust_domain().as_str().to_owned();
        let keys = |name: &String| jwks.get(name).filter(|text| !text.is_empty()).cloned();
        let jwks: BTreeMap<String, String> = bundles
            .iter()
            .map(name)
            .map(|name| {
                let keys = keys(&name).unwrap_or_else(|| NO_KEYS.to_owned());
                (name, keys)
            })
            .collect();
        let texts: Vec<&[u8]> = jwks.iter().flat_map(|(name, keys)| [name.as_bytes(), keys.as_bytes()]).collect();
        let jwks_version = version_of(&texts);
        let version = version(&bundles);
        let (x509, secrets) = (OnceLock::new(), Mutex::default());
        Self { home: home.to_owned(), bundles, jwks, version, jwks_version, x509, secrets }
    }

    /// `spiffe://<own trust domain>`
    pub(crate) fn home_id(&self) -> String {
        id(&self.home)
    }

    /// DER bundles by `spiffe://<trust domain>`.
    pub(crate) fn x509(&self) -> &HashMap<String, Vec<u8>> {
        let make = |bundle: &TrustBundle| (id(bundle.trust_domain().as_str()), bundle.to_der());
        self.x509.get_or_init(|| self.bundles.iter().map(make).collect())
    }

    /// JWK Sets by `spiffe://<trust domain>`.
    pub(crate) fn jwt(&self) -> HashMap<String, Vec<u8>> {
        self.jwks.iter().map(|(name, keys)| (id(name), keys.clone().into_bytes())).collect()
    }

    /// Is there a validation context of that SDS name?
    pub(super) fn holds(&self, name: &str) -> bool {
        let of = |domain: &str| self.bundles.iter().any(|bundle| bundle.trust_domain().as_str() == domain);
        matches!(name, ROOTS_NAME | ALL_NAME) || name.strip_prefix("spiffe://").is_some_and(of)
    }

    /// The validation context of that SDS name: `ROOTCA` for listeners that match names themselves, the others bind each root
    /// to its trust domain.
    pub(super) fn resource(&self, name: &str) -> Option<Arc<Resource>> {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = secrets.get(name) {
            return Some(Arc::clone(known));
        }
        let of = |name: &str| self.bundles.iter().find(|bundle| bundle.trust_domain().as_str() == name);
        let made = match name {
            ROOTS_NAME => encoded::roots(name, of(&self.home)?),
            ALL_NAME => encoded::domains(name, self.bundles.iter(), &self.version),
            other => {
                let one = std::slice::from_ref(of(other.strip_prefix("spiffe://")?)?);
                encoded::domains(name, one.iter(), &version(one))
            }
        };
        let made = Arc::new(made);
        secrets.insert(name.to_owned(), Arc::clone(&made));
        Some(made)
    }
}

fn id(domain: &str) -> String {
    format!("spiffe://{domain}")
}

fn version(bundles: &[TrustBundle]) -> String {
    let digests: Vec<[u8; 32]> = bundles.iter().map(TrustBundle::digest).collect();
    let names = bundles.iter().map(|bundle| bundle.trust_domain().as_str().as_bytes());
    let parts: Vec<&[u8]> = names.zip(&digests).flat_map(|(name, digest)| [name, digest.as_slice()]).collect();
    version_of(&parts)
}
