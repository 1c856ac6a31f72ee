//! A chain that was accepted once is not accepted for ever, nor by other bundles.

use palisade_identity::{CertificateDer, TrustBundles, verify_peer};

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
