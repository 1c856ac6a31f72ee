use palisade_identity::TrustBundle;

use super::*;

const NOW: u64 = 1_800_000_000;

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

fn read(text: &str, kind: Kind) -> Result<Signer, SignerError> {
    Signer::from_file(text.as_bytes(), kind, &domain(), PathBuf::from("/ca/x.pem"))
}

#[test]
fn what_is_written_is_read() {
    let root = Signer::root(&domain(), NOW).unwrap();
    let intermediate = root.intermediate(&domain(), NOW).unwrap();
    for (signer, kind) in [(&root, Kind::Root), (&intermediate, Kind::Intermediate)] {
        let again = read(&signer.to_file(), kind).unwrap();
        assert_eq!(again.certificate(), signer.certificate());
        assert_eq!((again.not_before, again.not_after), (signer.not_before, signer.not_after));
    }
    TrustBundle::new(domain(), vec![root.certificate().clone()]).unwrap();
    assert!(root.signed(&intermediate) && root.signed(&root) && !intermediate.signed(&root));
    assert!(!Signer::root(&domain(), NOW).unwrap().signed(&intermediate));
}

#[test]
fn dates_are_backdated_and_nested() {
    let root = Signer::root(&domain(), NOW).unwrap();
    assert_eq!(root.not_before, NOW - 3_600);
    let early = root.intermediate(&domain(), NOW - 3_000).unwrap();
    assert_eq!(early.not_before, root.not_before);
    let late = root.intermediate(&domain(), root.not_after - 60).unwrap();
    assert_eq!(late.not_after, root.not_after);
    let day = 86_400;
    assert!(!early.due(NOW) && early.due(early.not_after - 29 * day) && early.due(early.not_before - 1));
}

#[test]
fn files_that_do_not_fit_are_named() {
    let (one, two) = (Signer::root(&domain(), NOW).unwrap(), Signer::root(&domain(), NOW).unwrap());
    let key = |signer: &Signer| signer.issuer.key().serialize_pem();
    let mixed = format!("{}{}", key(&one), certificate_pem(two.certificate()));
    assert!(matches!(read(&mixed, Kind::Root), Err(SignerError::Mismatch(_))));
    assert!(matches!(read(&key(&one), Kind::Root), Err(SignerError::Layout(_))));
    assert!(matches!(read("", Kind::Root), Err(SignerError::Layout(_))));
    assert!(matches!(read(&one.to_file(), Kind::Intermediate), Err(SignerError::Foreign { .. })));
    let elsewhere = Signer::root(&TrustDomain::parse("other.test").unwrap(), NOW).unwrap();
    let error = read(&elsewhere.to_file(), Kind::Root).unwrap_err();
    assert!(error.to_string().contains("/ca/x.pem") && error.to_string().contains("cluster.local"), "{error}");
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    let other_key = format!("{p384}{}", certificate_pem(one.certificate()));
    assert!(matches!(read(&other_key, Kind::Root), Err(SignerError::Key(_))));
}

#[test]
fn serials_are_twenty_positive_octets() {
    let bytes = serial().unwrap().to_bytes();
    assert_eq!(bytes.len(), 20);
    assert!(bytes[0] & 0xc0 == 0x40);
    assert_ne!(bytes, serial().unwrap().to_bytes());
}

#[test]
fn debug_shows_no_key() {
    let root = Signer::root(&domain(), NOW).unwrap();
    let shown = format!("{root:?}");
    let key = hex(root.issuer.key().serialized_der().get(40..50).unwrap());
    assert!(!shown.contains(&key) && shown.contains("elided"), "{shown}");
}
