//! SVIDs of our own: checked when made and before they are used.

use palisade_identity::{AuthorityError, LeafError, PrivateKey, SvidError, TrustBundles, VerifyError, X509Svid};

use crate::certs::{Ca, HOUR, NOW, WEB, at, bundles, uri};

#[test]
fn a_chain_with_its_key_is_an_svid() {
    let root = Ca::root("root a");
    let middle = root.intermediate("middle");
    let (leaf, key) = middle.leaf(WEB);
    let svid = X509Svid::new(vec![leaf.clone(), middle.der()], key.clone()).unwrap();
    assert_eq!(svid.id().as_str(), WEB);
    assert_eq!(svid.chain(), [leaf, middle.der()]);
    assert_eq!(svid.key().as_pkcs8_der(), key.as_pkcs8_der());
    assert_eq!((svid.not_before(), svid.not_after()), (at(NOW - HOUR), at(NOW + HOUR)));
    assert!(!svid.serial().is_empty() && svid.serial().bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    assert_eq!(svid.chain_pem().matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(svid.usable(&bundles([root.bundle("a.test")]), at(NOW)), Ok(()));
}

#[test]
fn keys_of_every_kind_match_their_certificate() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![uri(WEB)];
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        let leaf = params.self_signed(&key).unwrap().der().clone();
        let own = PrivateKey::from_pkcs8_der(key.serialize_der()).unwrap();
        assert!(X509Svid::new(vec![leaf.clone()], own).is_ok(), "{algorithm:?}");
        let other = PrivateKey::generate_p256().unwrap();
        assert_eq!(X509Svid::new(vec![leaf], other).unwrap_err(), SvidError::KeyMismatch);
    }
}

#[test]
fn wrong_chains_are_refused() {
    let root = Ca::root("root a");
    let (leaf, key) = root.leaf(WEB);
    let new = |chain| X509Svid::new(chain, key.clone()).unwrap_err();
    assert_eq!(new(vec![]), SvidError::Chain(VerifyError::NoCertificate));
    assert!(matches!(new(vec![leaf.clone(); 11]), SvidError::Chain(VerifyError::ChainTooLarge { .. })));
    assert!(matches!(
        new(vec![root.der(), leaf.clone()]),
        SvidError::Leaf(LeafError::Unsupported(_) | LeafError::NoUriSan)
    ));
    let second_leaf = SvidError::Authority { position: 2, source: AuthorityError::NotAuthority };
    assert_eq!(new(vec![leaf.clone(), leaf]), second_leaf);
    let (two_uris, key) = root.leaf_with(WEB, |p| p.subject_alt_names.push(uri("spiffe://a.test/other")));
    assert_eq!(X509Svid::new(vec![two_uris], key).unwrap_err(), SvidError::Leaf(LeafError::SeveralUriSans(2)));
}

#[test]
fn what_peers_would_refuse_is_not_usable() {
    let (root, other) = (Ca::root("root a"), Ca::root("root b"));
    let svid = root.svid(WEB);
    let trust = bundles([root.bundle("a.test")]);
    let reason = |trust: &TrustBundles, now| match svid.usable(trust, at(now)) {
        Err(SvidError::Unusable { id, source }) if id.as_str() == WEB => source.code(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&trust, NOW + HOUR + 1), "expired");
    assert_eq!(reason(&trust, NOW - HOUR - 1), "not-yet-valid");
    assert_eq!(reason(&bundles([other.bundle("a.test")]), NOW), "unknown-authority");
    assert_eq!(reason(&bundles([root.bundle("b.test")]), NOW), "unknown-trust-domain");
}

#[test]
fn debug_shows_no_key() {
    let svid = Ca::root("root a").svid(WEB);
    let text = format!("{svid:?}");
    assert!(text.contains(WEB) && text.contains(svid.serial()), "{text}");
    assert!(!text.contains("key") && !text.contains("PrivateKey"), "{text}");
}
