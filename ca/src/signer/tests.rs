use palisade_identity::TrustDomain;

use super::*;
use crate::custody::software::SoftwareKey;
use crate::root::Root;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
const LIFETIME: Duration = Duration::from_secs(3_650 * DAY);

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

pub(crate) fn key() -> Arc<dyn SigningKey> {
    Arc::new(SoftwareKey::generate().unwrap().0)
}

fn root() -> Root {
    Root::make(key(), &domain(), NOW, LIFETIME).unwrap()
}

fn bundle(root: &Root) -> TrustBundle {
    TrustBundle::new(domain(), vec![root.certificate.clone()]).unwrap()
}

/// A signer below a new root, and its bundle.
pub(crate) fn signer(now: u64) -> (Signer, TrustBundle) {
    let (root, key) = (Root::make(key(), &domain(), now, LIFETIME).unwrap(), key());
    let chain = [root.intermediate(Arc::clone(&key), now).unwrap()];
    let bundle = bundle(&root);
    (Signer::new(key, &chain, &bundle).unwrap(), bundle)
}

#[test]
fn dates_are_backdated_and_nested() {
    let root = root();
    assert_eq!((root.not_before, root.not_after), (NOW - 3_600, NOW + 3_650 * DAY));
    let found = |now| Found::read(&root.intermediate(key(), now).unwrap()).unwrap();
    let early = found(NOW - 3_000);
    assert_eq!(early.not_before, root.not_before);
    assert_eq!(found(root.not_after - 60).not_after, root.not_after);
    assert!(!root.replaces(&early, NOW) && root.replaces(&early, early.not_before - 1));
    assert!(root.replaces(&early, early.not_after - 29 * DAY));
    // Another would not live longer.
    assert!(!root.replaces(&found(root.not_after - 60), root.not_after - 5));
    assert!(self::root().replaces(&early, NOW), "another root's");
}

/// Trap 15: two roots of one name, and the verifier picks the wrong one.
#[test]
fn trap_15_names_and_identifiers_differ_with_the_key() {
    let [one, two] = [root(), root()].map(|root| Found::read(&root.certificate).unwrap());
    assert!(one.subject != two.subject && one.key_id.is_some() && one.key_id != two.key_id);
    assert_eq!(one.id(), key_name(&one.key), "the identifier is the key's name");
}

/// Leaves of `signer` are accepted below both roots, and below no other.
fn certified(old: &Root, new: &TrustBundle, signer: &Signer) {
    let id = SpiffeId::parse("spiffe://cluster.local/web").unwrap();
    let lifetime = Lifetime { not_before: NOW, not_after: NOW + 60, shortened: false };
    let spec = LeafSpec { id: &id, dns_names: &[], addresses: &[], lifetime };
    let leaf = leaf::issue(&spec, key().public_key(), signer).unwrap().certificate;
    let cross = old.certify(signer, NOW).unwrap();
    let found = Found::read(&cross).unwrap();
    assert_eq!((found.subject, found.key_id), (signer.found.subject.clone(), signer.found.key_id.clone()));
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    for (trust, good) in [(bundle(old), true), (new.clone(), true), (bundle(&root()), false)] {
        let sent: Vec<_> =
            [leaf.clone()].into_iter().chain(signer.chain.iter().cloned()).chain([cross.clone()]).collect();
        assert_eq!(verify_peer(&sent, &TrustBundles::from_iter([trust]), now).is_ok(), good);
    }
}

#[test]
fn a_second_root_certifies_the_same_signer() {
    let (new, key) = (root(), key());
    let chain = [new.intermediate(Arc::clone(&key), NOW).unwrap()];
    certified(&root(), &bundle(&new), &Signer::new(key, &chain, &bundle(&new)).unwrap());
}

/// Of another PKI: another name, another kind of key, with and without an identifier.
#[test]
fn a_second_root_certifies_signers_of_every_kind() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
    for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "Example Corp");
        params.distinguished_name.push(DnType::CommonName, "issuing");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pair = KeyPair::generate_for(kind).unwrap();
        let certificate = params.self_signed(&pair).unwrap().der().clone();
        let key = SoftwareKey::from_pkcs8(&pair.serialize_der()).unwrap();
        let plugged = TrustBundle::new(domain(), vec![certificate.clone()]).unwrap();
        certified(&root(), &plugged, &Signer::new(Arc::new(key), &[certificate], &plugged).unwrap());
    }
}

#[test]
fn a_signer_that_peers_would_refuse_is_not_made() {
    let (root, key) = (root(), key());
    let chain = [root.intermediate(Arc::clone(&key), NOW).unwrap()];
    let refused = |key: &Arc<dyn SigningKey>, chain: &[CertificateDer<'static>], bundle: &TrustBundle| {
        Signer::new(Arc::clone(key), chain, bundle).unwrap_err()
    };
    let other: Arc<dyn SigningKey> = Arc::new(SoftwareKey::generate().unwrap().0);
    assert!(matches!(refused(&other, &chain, &bundle(&root)), SignerError::Mismatch));
    let elsewhere = bundle(&self::root());
    assert!(matches!(refused(&key, &chain, &elsewhere), SignerError::Refused(VerifyError::UnknownAuthority)));
    // Trap 38: the narrowest certificate of the path decides.
    let brief = Root::make(self::key(), &domain(), NOW, Duration::from_secs(60)).unwrap();
    let chain = [brief.intermediate(Arc::clone(&key), NOW).unwrap()];
    assert_eq!(Signer::new(Arc::clone(&key), &chain, &bundle(&brief)).unwrap().not_after, NOW + 60);
}

#[test]
fn trap_36_debug_shows_no_key() {
    let (key, pkcs8) = SoftwareKey::generate().unwrap();
    let shown = format!("{key:?}");
    assert!(!shown.contains(&hex(pkcs8.get(40..50).unwrap())) && shown.contains("elided"), "{shown}");
}

#[test]
fn trap_37_serials_are_twenty_positive_octets() {
    for second in [0, NOW, u64::MAX] {
        let (one, other) = (serial(second).unwrap(), serial(second).unwrap());
        assert!(one[0] & 0xc0 == 0x40);
        assert!(one[..4] == other[..4] && one[4..] != other[4..]);
    }
    assert!(serial(NOW).unwrap() < serial(NOW + 1).unwrap());
}
