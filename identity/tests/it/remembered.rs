//! A chain that was accepted once is not accepted for ever, nor by other bundles, nor once it is revoked.

use palisade_identity::{CertificateDer, Fault, TrustBundles, verify_peer};

use crate::certs::{Ca, HOUR, NOW, WEB, at, date};

fn code(chain: &[CertificateDer<'static>], trust: &TrustBundles, now: u64) -> &'static str {
    verify_peer(chain, trust, at(now)).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn a_change_of_bundles_counts_at_once() {
    let (root, other) = (Ca::root("root a"), Ca::root("root x"));
    let chain = [root.leaf(WEB).0];
    let mut trust: TrustBundles = [root.bundle("a.test")].into_iter().collect();
    let before = trust.clone();
    assert_eq!(code(&chain, &trust, NOW), "accepted");
    trust.insert(other.bundle("a.test"));
    assert_eq!(code(&chain, &trust, NOW), "unknown-authority");
    assert_eq!(code(&chain, &before, NOW), "accepted");
    trust.insert(root.bundle("a.test"));
    assert_eq!(code(&chain, &trust, NOW), "accepted");
    trust.remove("a.test");
    assert_eq!(code(&chain, &trust, NOW), "unknown-trust-domain");
    assert_eq!(before, [root.bundle("a.test")].into_iter().collect());
}

#[test]
fn the_shortest_life_of_the_path_ends_it() {
    let root = Ca::root_with("root a", |p| p.not_before = date(NOW - 60));
    let middle = root.intermediate_with("middle", |p| p.not_after = date(NOW + 60));
    let chain = [middle.leaf(WEB).0, middle.der()];
    let trust: TrustBundles = [root.bundle("a.test")].into_iter().collect();
    for _ in 0..2 {
        assert_eq!(code(&chain, &trust, NOW), "accepted");
        assert_eq!(code(&chain, &trust, NOW + 60), "accepted");
        assert_eq!(code(&chain, &trust, NOW + 61), "authority-dates");
        assert_eq!(code(&chain, &trust, NOW - 61), "authority-dates");
        assert_eq!(code(&chain, &trust, NOW + HOUR + 1), "expired");
    }
}

#[test]
fn another_chain_with_the_same_leaf_is_another_chain() {
    let root = Ca::root("root a");
    let middle = root.intermediate("middle");
    let leaf = middle.leaf(WEB).0;
    let trust: TrustBundles = [root.bundle("a.test")].into_iter().collect();
    assert_eq!(code(&[leaf.clone(), middle.der()], &trust, NOW), "accepted");
    assert_eq!(code(&[leaf], &trust, NOW), "unknown-authority");
}

#[test]
fn a_revoked_certificate_is_refused_though_its_chain_was_accepted_before() {
    let root = Ca::root("root a");
    let (chain, other) = ([root.leaf(WEB).0], [root.leaf(WEB).0]);
    let mut trust: TrustBundles = [root.bundle("a.test")].into_iter().collect();
    let serial = verify_peer(&chain, &trust, at(NOW)).unwrap().serial().to_owned();
    let before = trust.clone();
    trust.with_denied([serial.clone()].into());
    assert_ne!(before, trust, "a change that subscribers must see");
    for _ in 0..2 {
        let error = verify_peer(&chain, &trust, at(NOW)).unwrap_err();
        assert_eq!((error.code(), error.fault()), ("revoked", Fault::Peer));
        assert!(error.to_string().contains(&serial) && error.to_string().contains(WEB), "{error}");
    }
    assert_eq!(code(&other, &trust, NOW), "accepted", "another certificate of the same ID");
    assert_eq!(code(&chain, &before, NOW), "accepted", "an older set of bundles is another one");
    assert_eq!(code(&chain, &trust, NOW + 2 * HOUR), "expired", "the other reasons come first");
    // A chain seen for the first time by bundles that deny it.
    let mut fresh: TrustBundles = [root.bundle("a.test")].into_iter().collect();
    fresh.with_denied([serial].into());
    assert_eq!(code(&chain, &fresh, NOW), "revoked");
    trust.with_denied([].into());
    assert_eq!((code(&chain, &trust, NOW), trust == before), ("accepted", true));
}
