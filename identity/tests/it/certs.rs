//! Authorities and leaves, good ones by default and bent by closures.

use std::sync::Arc;
use std::time::Duration;

use palisade_identity::{
    CertificateDer, Clock, Identity, PrivateKey, TrustBundle, TrustBundles, TrustDomain, UnixTime, X509Svid,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

/// 2026-01-01T00:00:00Z: the time in every test.
pub(crate) const NOW: u64 = 1_767_225_600;
pub(crate) const HOUR: u64 = 3600;

pub(crate) const WEB: &str = "spiffe://a.test/ns/shop/sa/web";

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn date(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

#[derive(Debug)]
pub(crate) struct FixedClock(pub(crate) u64);

impl Clock for FixedClock {
    fn now(&self) -> UnixTime {
        at(self.0)
    }
}

pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    pub(crate) fn root_with(name: &str, bend: impl FnOnce(&mut CertificateParams)) -> Self {
        Self(CertifiedIssuer::self_signed(authority(name, bend), KeyPair::generate().unwrap()).unwrap())
    }

    /// Another certificate for the key of `self`.
    pub(crate) fn again(&self, name: &str, bend: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::try_from(self.0.key().serialized_der()).unwrap();
        Self(CertifiedIssuer::self_signed(authority(name, bend), key).unwrap())
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(name, |_| {})
    }

    pub(crate) fn intermediate_with(&self, name: &str, bend: impl FnOnce(&mut CertificateParams)) -> Self {
        Self(CertifiedIssuer::signed_by(authority(name, bend), KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    /// A second certificate for the key of `self`, by another authority.
    pub(crate) fn certified_by(&self, other: &Self, name: &str) -> CertificateDer<'static> {
        let certificate = authority(name, |_| {}).signed_by(self.0.key(), &other.0).unwrap();
        certificate.der().clone()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A good leaf.
    pub(crate) fn leaf(&self, id: &str) -> (CertificateDer<'static>, PrivateKey) {
        self.leaf_with(id, |_| {})
    }

    pub(crate) fn leaf_with(
        &self,
        id: &str,
        bend: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateDer<'static>, PrivateKey) {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params(id);
        bend(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.der().clone(), PrivateKey::from_pkcs8_der(key.serialize_der()).unwrap())
    }

    pub(crate) fn svid(&self, id: &str) -> X509Svid {
        let (leaf, key) = self.leaf(id);
        X509Svid::new(vec![leaf], key).unwrap()
    }

    /// A good SVID for `id`, trusting `bundles`.
    pub(crate) fn identity(&self, id: &str, bundles: &Arc<TrustBundles>) -> Identity {
        Identity { svid: Arc::new(self.svid(id)), bundles: Arc::clone(bundles) }
    }

    pub(crate) fn bundle(&self, trust_domain: &str) -> TrustBundle {
        bundle(trust_domain, &[self])
    }
}

pub(crate) fn bundle(trust_domain: &str, authorities: &[&Ca]) -> TrustBundle {
    TrustBundle::new(domain(trust_domain), authorities.iter().map(|ca| ca.der()).collect()).unwrap()
}

pub(crate) fn bundles(all: impl IntoIterator<Item = TrustBundle>) -> Arc<TrustBundles> {
    Arc::new(all.into_iter().collect())
}

pub(crate) fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// An extension with this DER content.
pub(crate) fn extension(oid: &[u64], critical: bool, der: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, der.to_vec());
    extension.set_criticality(critical);
    extension
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn authority(common: &str, bend: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date(NOW - 24 * HOUR);
    params.not_after = date(NOW + 24 * HOUR);
    bend(&mut params);
    params
}

fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![uri(id)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(NOW - HOUR);
    params.not_after = date(NOW + HOUR);
    params
}
