//! Leaves: how long, for whom, and in exactly which bytes.
//!
//! Everything in a leaf but the names, the key, the serial number and the dates is the same each time, and the signer that
//! makes them was proven by a leaf like these (`Signer::new`), so a leaf is not verified again when it is made.

use std::net::IpAddr;

use palisade_identity::{CertificateDer, SpiffeId};

use crate::custody::CustodyError;
use crate::encode::{bit_string, date, push, sequence, tlv, unsigned};
use crate::signer::{Signer, SignerError, hex, serial, sha256};

/// basicConstraints, critical: cA=false.
const BASIC_CONSTRAINTS: &[u8] = &[0x30, 0x0c, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x02, 0x30, 0x00];
/// keyUsage, critical: digitalSignature.
const KEY_USAGE: &[u8] =
    &[0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x07, 0x80];
/// extendedKeyUsage: serverAuth and clientAuth.
const EXTENDED_KEY_USAGE: &[u8] = &[
    0x30, 0x1d, 0x06, 0x03, 0x55, 0x1d, 0x25, 0x04, 0x16, 0x30, 0x14, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07,
    0x03, 0x01, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02,
];
pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];
pub(crate) const SUBJECT_KEY_ID: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x0e];
pub(crate) const AUTHORITY_KEY_ID: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x23];
const CRITICAL: &[u8] = &[0x01, 0x01, 0xff];
/// Version 3, the only one with extensions.
pub(crate) const VERSION: &[u8] = &[0xa0, 0x03, 0x02, 0x01, 0x02];
const EMPTY_NAME: &[u8] = &[0x30, 0x00];

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
    Sign(#[from] CustodyError),
    #[error("no serial number")]
    Serial(#[from] SignerError),
    #[error("`{0}` cannot stand in a certificate")]
    Name(String),
}

/// A signed leaf.
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

/// Signs a leaf for the key whose SubjectPublicKeyInfo (DER) is `key`.
pub(crate) fn issue(spec: &LeafSpec<'_>, key: &[u8], signer: &Signer) -> Result<Leaf, LeafError> {
    let (serial, algorithm) = (serial(spec.lifetime.not_before)?, signer.key().scheme().identifier());
    let validity = sequence(&[&date(spec.lifetime.not_before), &date(spec.lifetime.not_after)]);
    let extensions =
        tlv(0xa3, &sequence(&[BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE, &names(spec)?, &key_ids(key, signer)]));
    let number = unsigned(&serial);
    let issuer = &signer.found.subject;
    let signed = sequence(&[VERSION, &number, algorithm, issuer, &validity, EMPTY_NAME, key, &extensions]);
    let signature = bit_string(&signer.key().sign(&signed)?);
    let certificate = CertificateDer::from(sequence(&[&signed, algorithm, &signature]));
    Ok(Leaf { certificate, serial: hex(&serial), lifetime: spec.lifetime })
}

/// subjectAltName, critical because the subject is empty (RFC 5280, 4.2.1.6).
fn names(spec: &LeafSpec<'_>) -> Result<Vec<u8>, LeafError> {
    let mut names = tlv(0x86, spec.id.as_str().as_bytes());
    for name in spec.dns_names {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(LeafError::Name(name.clone()));
        }
        push(&mut names, 0x82, name.as_bytes());
    }
    for address in spec.addresses {
        match address {
            IpAddr::V4(four) => push(&mut names, 0x87, &four.octets()),
            IpAddr::V6(six) => push(&mut names, 0x87, &six.octets()),
        }
    }
    Ok(sequence(&[SUBJECT_ALT_NAME, CRITICAL, &tlv(0x04, &tlv(0x30, &names))]))
}

/// subjectKeyIdentifier, and authorityKeyIdentifier if the signing certificate has an identifier.
fn key_ids(key: &[u8], signer: &Signer) -> Vec<u8> {
    let digest = sha256(key);
    let own = tlv(0x04, digest.get(..20).unwrap_or_default());
    let mut both = sequence(&[SUBJECT_KEY_ID, &tlv(0x04, &own)]);
    if let Some(id) = &signer.found.key_id {
        let authority = sequence(&[&tlv(0x80, id)]);
        both.extend(sequence(&[AUTHORITY_KEY_ID, &tlv(0x04, &authority)]));
    }
    both
}

#[cfg(test)]
mod tests {
    use der::Decode;
    use palisade_identity::{TrustBundles, UnixTime, verify_peer};
    use rcgen::{KeyPair, PublicKeyData as _};
    use x509_cert::ext::pkix::name::GeneralName;
    use x509_cert::ext::pkix::{
        AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName, SubjectKeyIdentifier,
    };

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

    /// Trap 38, for the signer itself.
    #[test]
    fn trap_38_no_leaf_leaves_its_signer() {
        let brief = POLICY.dates(3_600, NOW, (NOW - 10, NOW + 100)).unwrap();
        assert_eq!(brief, Lifetime { not_before: NOW - 10, not_after: NOW + 100, shortened: true });
        assert!(POLICY.dates(60, NOW, (NOW - 10, NOW)).is_none(), "expired");
        assert!(POLICY.dates(60, NOW, (NOW + 1, NOW + 10)).is_none(), "not yet valid");
    }

    /// Every date a client may see: the middle of the dates lies ahead, or it would renew in a loop.
    /// Traps 19 and 20: dates that begin now, and backdating that makes clients renew in a loop.
    #[test]
    fn trap_19_20_leaves_are_backdated_and_their_middle_is_never_past() {
        for asked in 1..2_000 {
            let got = POLICY.dates(asked, NOW, SIGNER).unwrap();
            assert!((got.not_before + got.not_after) / 2 >= NOW, "{asked}");
            let (back, life) = (NOW - got.not_before, got.not_after - NOW);
            assert!((back > 0 || life < 8) && back * 4 <= life && back <= 60, "{asked}: {back}");
        }
    }

    fn leaf_of(signer: &Signer, dns_names: &[String], addresses: &[IpAddr]) -> Leaf {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        let lifetime = POLICY.dates(0, NOW, SIGNER).unwrap();
        let spec = LeafSpec { id: &id, dns_names, addresses, lifetime };
        issue(&spec, &KeyPair::generate().unwrap().subject_public_key_info(), signer).unwrap()
    }

    /// Traps 5, 6, 7, 8 and 37: what naive issuers leave out or make optional.
    #[test]
    fn trap_05_06_07_08_37_a_leaf_is_what_the_standards_want() {
        let (signer, bundle) = crate::signer::tests::signer(NOW);
        let leaf = leaf_of(&signer, &[], &[]);
        let parsed = x509_cert::Certificate::from_der(&leaf.certificate).unwrap();
        let tbs = parsed.tbs_certificate();
        assert!(tbs.subject().is_empty());
        assert_eq!(tbs.get_extension::<SubjectAltName>().unwrap().map(|(c, n)| (c, n.0.len())), Some((true, 1)));
        let (critical, constraints) = tbs.get_extension::<BasicConstraints>().unwrap().unwrap();
        assert!(critical && !constraints.ca);
        let (critical, usage) = tbs.get_extension::<KeyUsage>().unwrap().unwrap();
        assert!(critical && usage.0.into_iter().count() == 1 && usage.digital_signature());
        assert_eq!(tbs.get_extension::<ExtendedKeyUsage>().unwrap().unwrap().1.0.len(), 2);
        let authority = tbs.get_extension::<AuthorityKeyIdentifier>().unwrap().unwrap().1;
        let signer_id = signer.found.key_id.clone().unwrap();
        assert_eq!(authority.key_identifier.unwrap().as_bytes(), signer_id);
        assert!(tbs.get_extension::<SubjectKeyIdentifier>().unwrap().is_some());
        assert_eq!(leaf.serial.len(), 40);
        assert_ne!(leaf.serial, leaf_of(&signer, &[], &[]).serial);
        let chain = [leaf.certificate.clone(), signer.chain[0].clone()];
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW));
        let peer = verify_peer(&chain, &TrustBundles::from_iter([bundle]), now).unwrap();
        assert_eq!((peer.serial(), peer.not_after().as_secs()), (leaf.serial.as_str(), NOW + 3_600));
    }

    /// Trap 2: names are a typed list and no text that is joined and split.
    #[test]
    fn trap_02_names_stand_apart() {
        let (signer, _) = crate::signer::tests::signer(NOW);
        let dns = ["a.test,URI:spiffe://cluster.local/ns/x/sa/admin".to_owned(), "b.test".to_owned()];
        let leaf = leaf_of(&signer, &dns, &["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]);
        let parsed = x509_cert::Certificate::from_der(&leaf.certificate).unwrap();
        let names = parsed.tbs_certificate().get_extension::<SubjectAltName>().unwrap().unwrap().1;
        let uris = names.0.iter().filter(|name| matches!(name, GeneralName::UniformResourceIdentifier(_)));
        assert_eq!((names.0.len(), uris.count()), (5, 1));
        let id = SpiffeId::parse("spiffe://cluster.local/a").unwrap();
        let lifetime = POLICY.dates(0, NOW, SIGNER).unwrap();
        for bad in ["", "b\u{fc}cher.test", "a b"] {
            let spec = LeafSpec { id: &id, dns_names: &[bad.to_owned()], addresses: &[], lifetime };
            let key = KeyPair::generate().unwrap().subject_public_key_info();
            assert!(matches!(issue(&spec, &key, &signer), Err(LeafError::Name(_))), "{bad}");
        }
    }
}
