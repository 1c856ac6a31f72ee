//! Throw-away certificates.

use std::sync::Arc;

use palisade_identity::{Identity, PrivateKey, TrustBundle, TrustBundles, TrustDomain, X509Svid};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// A self-signed authority of one trust domain.
pub(crate) struct Ca {
    domain: TrustDomain,
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new(domain: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        let domain = TrustDomain::parse(domain).unwrap();
        Self { domain, certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new(self.domain.clone(), vec![self.certificate.der().clone()]).unwrap()
    }

    /// An SVID for `path`, also good for `localhost`, valid for `seconds` from now.
    pub(crate) fn identity(&self, path: &str, seconds: i64) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://{}/{path}", self.domain.as_str());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names =
            vec![SanType::URI(uri.try_into().unwrap()), SanType::DnsName("localhost".try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::seconds(60);
        params.not_after = now + time::Duration::seconds(seconds);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let private = PrivateKey::from_pkcs8_der(key.serialize_der()).unwrap();
        let svid = X509Svid::new(vec![leaf.der().clone()], private).unwrap();
        let bundles = TrustBundles::from_iter([self.bundle()]);
        Identity { svid: Arc::new(svid), bundles: Arc::new(bundles) }
    }
}
