//! A small certificate authority and an identity source that a test rotates by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_identity::{Identity, PrivateKey, SvidSource, TrustBundle, TrustBundles, TrustDomain, X509Svid};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

pub(crate) struct Authority {
    domain: TrustDomain,
    certificate: Certificate,
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new(domain: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, format!("root of {domain}"));
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
        params.not_before = OffsetDateTime::now_utc() - time::Duration::hours(1);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(1);
        let certificate = params.self_signed(&key).unwrap();
        Authority { domain: TrustDomain::parse(domain).unwrap(), certificate, params, key }
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new(self.domain.clone(), vec![self.certificate.der().clone()]).unwrap()
    }

    /// An SVID for `/ns/<ns>/sa/<sa>` that ends so many seconds from now.
    pub(crate) fn issue(&self, ns: &str, sa: &str, ends_in: i64) -> X509Svid {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://{}/ns/{ns}/sa/{sa}", self.domain.as_str());
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::now_utc() - time::Duration::minutes(10);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::seconds(ends_in);
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let key = PrivateKey::from_pkcs8_der(key.serialize_der()).unwrap();
        X509Svid::new(vec![certificate.der().clone()], key).unwrap()
    }

    /// An identity that trusts this domain and those.
    pub(crate) fn identity(&self, ns: &str, sa: &str, ends_in: i64, others: &[&Authority]) -> Arc<Identity> {
        let mut bundles = TrustBundles::default();
        bundles.insert(self.bundle());
        for other in others {
            bundles.insert(other.bundle());
        }
        Arc::new(Identity { svid: Arc::new(self.issue(ns, sa, ends_in)), bundles: Arc::new(bundles) })
    }
}

/// A source whose identity a test sets.
#[derive(Default)]
pub(crate) struct Source {
    current: Mutex<Option<Arc<Identity>>>,
    changed: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

impl Source {
    pub(crate) fn of(identity: Arc<Identity>) -> Arc<Source> {
        Arc::new(Source { current: Mutex::new(Some(identity)), changed: Mutex::default() })
    }

    pub(crate) fn rotate(&self, identity: Arc<Identity>) {
        *self.current.lock().unwrap() = Some(identity);
        self.changed.lock().unwrap().iter().for_each(|changed| changed());
    }
}

impl SvidSource for Source {
    fn current(&self) -> Option<Arc<Identity>> {
        self.current.lock().unwrap().clone()
    }

    fn on_change(&self, changed: Box<dyn Fn() + Send + Sync>) {
        self.changed.lock().unwrap().push(changed);
    }
}

/// A bounded wait on a condition; the last state is in the panic.
pub(crate) async fn until<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(state) if tokio::time::Instant::now() >= deadline => panic!("waited for {what} in vain: {state}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}
