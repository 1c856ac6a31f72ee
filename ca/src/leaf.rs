//! Leaves: how long, for whom, and nothing released that would not be accepted.

use std::net::IpAddr;

use palisade_identity::{CertificateDer, SpiffeId, TrustBundles, UnixTime, VerifyError, verify_peer};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SanType,
};

use crate::signer::{Signer, SignerError, date, serial};

/// The dates a leaf gets, in unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
    /// Less than was asked for.
    pub(crate) shortened: bool,
}

/// Default and maximum lifetime, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    pub(crate) default: u64,
    pub(crate) maximum: u64,
}

impl Lifetimes {
    /// Dates for a request of `asked` seconds (0 or less: the default) under a signer with these
    /// dates; `None` if the signer is not valid at `now`.
    ///
    /// NotBefore lies min(60 s, lifetime / 8) back: enough for drifting clocks, too little to let a client
    /// that renews in the middle of the dates do so at once.
    pub(crate) fn dates(&self, asked: i64, now: u64, signer: (u64, u64)) -> Option<Lifetime> {
        let (signer_begins, signer_ends) = signer;
        if now < signer_begins || now >= signer_ends {
            return None;
        }
        let asked = u64::try_from(asked).ok().filter(|asked| *asked > 0);
        let wanted = asked.unwrap_or(self.default);
        let lifetime = wanted.min(self.maximum).min(signer_ends - now);
        Some(Lifetime {
            not_before: now.saturating_sub((lifetime / 8).min(60)).max(signer_begins),
            not_after: now + lifetime,
            shortened: lifetime < wanted,
        })
    }
}

/// Why a leaf is not issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeafError {
    #[error("the signing certificate is not valid now")]
    SignerDates,
    #[error("signing failed")]
    Sign(#[from] SignerError),
    #[error("the leaf does not verify")]
    Verify(#[from] VerifyError),
    #[error("the leaf carries another ID or lifetime than was decided")]
    Content,
}

/// A signed and verified leaf.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) certificate: CertificateDer<'static>,
    /// Lower-case hex.
    pub(crate) serial: String,
    pub(crate) lifetime: Lifetime,
}

/// What goes into a leaf besides its key.
#[derive(Debug)]
pub(crate) struct LeafSpec<'a> {
    pub(crate) id: &'a SpiffeId,
    pub(crate) dns_names: &'a [String],
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) lifetime: Lifetime,
}

/// Signs a leaf, and verifies it as a peer would before it is let out.
pub(crate) fn issue(
    spec: &LeafSpec<'_>,
    key: &impl PublicKeyData,
    signer: &Signer,
    bundles: &TrustBundles,
) -> Result<Leaf, LeafError> {
    let certificate = signer.sign(&params(spec)?, key)?;
    // Judged at its first second: a clock that steps in between must not make a good leaf look bad.
    let begins = UnixTime::since_unix_epoch(std::time::Duration::from_secs(spec.lifetime.not_before));
    let chain = [certificate.clone(), signer.certificate().clone()];
    let verified = verify_peer(&chain, bundles, begins)?;
    if verified.id() != spec.id || verified.not_after().as_secs() != spec.lifetime.not_after {
        return Err(LeafError::Content);
    }
    Ok(Leaf { certificate, serial: verified.serial().to_owned(), lifetime: spec.lifetime })
}

fn params(spec: &LeafSpec<'_>) -> Result<CertificateParams, SignerError> {
    let name = |text: &str| {
        let refused = |error: rcgen::Error| SignerError::Make { what: "subject name", reason: error.to_string() };
        text.to_owned().try_into().map_err(refused)
    };
    let mut params = CertificateParams::default();
    // An empty subject makes the names critical (RFC 5280, 4.2.1.6).
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(name(spec.id.as_str())?)];
    for dns in spec.dns_names {
        params.subject_alt_names.push(SanType::DnsName(name(dns)?));
    }
    params.subject_alt_names.extend(spec.addresses.iter().copied().map(SanType::IpAddress));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    params.not_before = date(spec.lifetime.not_before)?;
    params.not_after = date(spec.lifetime.not_after)?;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use der::Decode;
    use palisade_identity::{TrustBundle, TrustDomain};
    use rcgen::KeyPair;
    use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const POLICY: Lifetimes = Lifetimes { default: 3_600, maximum: 86_400 };
    const SIGNER: (u64, u64) = (NOW - 3_600, NOW + 90 * 86_400);

    fn dates(asked: i64) -> (u64, u64, bool) {
        let got = POLICY.dates(asked, NOW, SIGNER).unwrap();
        (NOW - got.not_before, got.not_after - NOW, got.shortened)
    }

    #[test]
    fn lifetimes_follow_request_default_and_maximum() {
        assert_eq!(dates(0), (60, 3_600, false));
        assert_eq!(dates(-5), (60, 3_600, false));
        assert_eq!(dates(86_400), (60, 86_400, false));
        assert_eq!(dates(86_401), (60, 86_400, true));
        assert_eq!(dates(i64::MAX), (60, 86_400, true));
        assert_eq!(dates(80), (10, 80, false));
        assert_eq!(dates(1), (0, 1, false));
    }

    #[test]
    fn no_leaf_leaves_its_signer() {
        let brief = POLICY.dates(3_600, NOW, (NOW - 10, NOW + 100)).unwrap();
        assert_eq!(brief, Lifetime { not_before: NOW - 10, not_after: NOW + 100, shortened: true });
        assert!(POLICY.dates(60, NOW, (NOW - 10, NOW)).is_none(), "expired");
        assert!(POLICY.dates(60, NOW, (NOW + 1, NOW + 10)).is_none(), "not yet valid");
    }

    /// Every date a client may see: the middle of the dates lies ahead, or it would renew in a loop.
    #[test]
    fn the_middle_of_the_dates_is_never_past() {
        for asked in 1..2_000 {
            let got = POLICY.dates(asked, NOW, SIGNER).unwrap();
            assert!((got.not_before + got.not_after) / 2 >= NOW, "{asked}");
        }
    }

    #[test]
    fn a_leaf_is_what_the_standards_want() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let root = Signer::root(&domain, NOW).unwrap();
        let signer = root.intermediate(&domain, NOW).unwrap();
        let bundle = TrustBundle::new(domain, vec![root.certificate().clone()]).unwrap();
        let bundles = TrustBundles::from_iter([bundle]);
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        let lifetime = POLICY.dates(0, NOW, SIGNER).unwrap();
        let spec = LeafSpec { id: &id, dns_names: &[], addresses: &[], lifetime };
        let leaf = issue(&spec, &KeyPair::generate().unwrap(), &signer, &bundles).unwrap();
        let parsed = x509_cert::Certificate::from_der(&leaf.certificate).unwrap();
        let tbs = parsed.tbs_certificate();
        assert!(tbs.subject().is_empty());
        assert_eq!(tbs.get_extension::<SubjectAltName>().unwrap().map(|(c, n)| (c, n.0.len())), Some((true, 1)));
        let (critical, constraints) = tbs.get_extension::<BasicConstraints>().unwrap().unwrap();
        assert!(critical && !constraints.ca);
        let (critical, usage) = tbs.get_extension::<KeyUsage>().unwrap().unwrap();
        assert!(critical && usage.0.into_iter().count() == 1 && usage.digital_signature());
        assert_eq!(tbs.get_extension::<ExtendedKeyUsage>().unwrap().unwrap().1.0.len(), 2);
        assert_eq!(leaf.serial.len(), 40);
        let elsewhere = TrustBundles::default();
        let refused = issue(&spec, &KeyPair::generate().unwrap(), &signer, &elsewhere);
        assert!(matches!(refused, Err(LeafError::Verify(_))), "nothing is released that does not verify");
    }
}
