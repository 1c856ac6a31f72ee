//! From leaf to root: whose root counts, and which paths do.

use palisade_identity::{
    AuthorityError, CertificateDer, Fault, MAX_CHAIN_CERTIFICATES, TrustBundles, VerifyError, verify_peer,
};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints};

use crate::certs::{Ca, HOUR, NOW, WEB, at, bundle, bundles, date, uri};

fn code(chain: &[CertificateDer<'static>], trust: &TrustBundles) -> &'static str {
    verify_peer(chain, trust, at(NOW)).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn trap_11_each_domain_s_root_vouches_for_its_own_ids_only() {
    let (a, b) = (Ca::root("root a"), Ca::root("root b"));
    let both = bundles([a.bundle("a.test"), b.bundle("b.test")]);
    let of_b = "spiffe://b.test/ns/shop/sa/web";
    assert_eq!(code(&[a.leaf(WEB).0], &both), "accepted");
    assert_eq!(code(&[b.leaf(of_b).0], &both), "accepted");
    assert_eq!(code(&[b.leaf(WEB).0], &both), "unknown-authority", "b.test impersonates a.test");
    assert_eq!(code(&[a.leaf(of_b).0], &both), "unknown-authority");
}

#[test]
fn a_root_of_the_same_name_with_another_key_is_no_root() {
    let (mine, theirs) = (Ca::root("root"), Ca::root("root"));
    let trust = bundles([mine.bundle("a.test"), theirs.bundle("b.test")]);
    let error = verify_peer(&[theirs.leaf(WEB).0], &trust, at(NOW)).unwrap_err();
    assert_eq!((error.code(), error.fault()), ("bad-signature", Fault::Peer));
}

#[test]
fn a_domain_without_a_bundle_is_unknown_whoever_signed() {
    let root = Ca::root("root a");
    let trust = bundles([root.bundle("a.test")]);
    for id in ["spiffe://c.test/x", "spiffe://a.test.evil/ns/shop/sa/web", "spiffe://test/x"] {
        let error = verify_peer(&[root.leaf(id).0], &trust, at(NOW)).unwrap_err();
        assert_eq!((error.code(), error.fault()), ("unknown-trust-domain", Fault::Trust), "{id}");
    }
    assert_eq!(code(&[root.leaf(WEB).0], &TrustBundles::default()), "unknown-trust-domain");
}

#[test]
fn trap_15_two_roots_of_one_name_are_tried_in_any_order() {
    let (old, new) = (Ca::root("root"), Ca::root("root"));
    for trust in [bundle("a.test", &[&old, &new]), bundle("a.test", &[&new, &old])] {
        let trust = bundles([trust]);
        assert_eq!(code(&[old.leaf(WEB).0], &trust), "accepted");
        assert_eq!(code(&[new.leaf(WEB).0], &trust), "accepted");
    }
}

#[test]
fn intermediates_are_needed_and_their_order_is_not() {
    let root = Ca::root("root a");
    let upper = root.intermediate("upper");
    let lower = upper.intermediate("lower");
    let leaf = lower.leaf(WEB).0;
    let trust = bundles([root.bundle("a.test")]);
    assert_eq!(code(&[leaf.clone(), lower.der(), upper.der()], &trust), "accepted");
    assert_eq!(code(&[leaf.clone(), upper.der(), lower.der()], &trust), "accepted");
    assert_eq!(code(&[leaf.clone(), lower.der(), upper.der(), root.der()], &trust), "accepted");
    assert_eq!(code(&[leaf.clone(), upper.der()], &trust), "unknown-authority");
    assert_eq!(code(std::slice::from_ref(&leaf), &trust), "unknown-authority");
    let partial = bundles([lower.bundle("a.test")]);
    assert_eq!(code(&[leaf], &partial), "accepted", "an intermediate may be the anchor");
}

#[test]
fn a_root_in_the_chain_is_no_anchor() {
    let (mine, theirs) = (Ca::root("root a"), Ca::root("root x"));
    let trust = bundles([mine.bundle("a.test")]);
    assert_eq!(code(&[theirs.leaf(WEB).0, theirs.der()], &trust), "unknown-authority");
}

#[test]
fn a_leaf_cannot_sign_another_leaf() {
    let root = Ca::root("root a");
    let trust = bundles([root.bundle("a.test")]);
    let not_ca = root.intermediate_with("leaf as ca", |p| p.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(code(&[not_ca.leaf(WEB).0, not_ca.der()], &trust), "bad-path");
    let no_cert_sign = root.intermediate_with("crl only", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let error = |ca: &Ca| verify_peer(&[ca.leaf(WEB).0, ca.der()], &trust, at(NOW)).unwrap_err();
    assert_eq!(error(&no_cert_sign), VerifyError::Intermediate(AuthorityError::KeyUsage));
    let with_path = root.intermediate_with("svid as ca", |p| p.subject_alt_names = vec![uri(WEB)]);
    assert_eq!(error(&with_path), VerifyError::Intermediate(AuthorityError::Path));
    let narrow = root.intermediate_with("server only", |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(error(&narrow), VerifyError::Intermediate(AuthorityError::ExtendedKeyUsage));
    let wide = root.intermediate_with("any", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    assert_eq!(code(&[wide.leaf(WEB).0, wide.der()], &trust), "accepted");
}

#[test]
fn authorities_have_dates() {
    let expired_root = Ca::root_with("root a", |p| p.not_after = date(NOW - 1));
    let trust = bundles([expired_root.bundle("a.test")]);
    let error = verify_peer(&[expired_root.leaf(WEB).0], &trust, at(NOW)).unwrap_err();
    assert_eq!((error.code(), error.fault()), ("authority-dates", Fault::Time));

    let root = Ca::root("root a");
    let trust = bundles([root.bundle("a.test")]);
    let expired = root.intermediate_with("old", |p| p.not_after = date(NOW - 1));
    assert_eq!(code(&[expired.leaf(WEB).0, expired.der()], &trust), "authority-dates");
    let future = root.intermediate_with("new", |p| p.not_before = date(NOW + 1));
    assert_eq!(code(&[future.leaf(WEB).0, future.der()], &trust), "authority-dates");
}

#[test]
fn a_renewed_root_with_the_same_key_counts_beside_its_expired_self() {
    let old = Ca::root_with("root", |p| p.not_after = date(NOW - 1));
    let renewed = old.again("root", |p| p.not_after = date(NOW + HOUR));
    let leaf = old.leaf(WEB).0;
    for trust in [bundle("a.test", &[&old, &renewed]), bundle("a.test", &[&renewed, &old])] {
        assert_eq!(code(std::slice::from_ref(&leaf), &bundles([trust])), "accepted");
    }
}

#[test]
fn path_lengths_count_for_roots_too() {
    let root = Ca::root_with("root a", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let trust = bundles([root.bundle("a.test")]);
    assert_eq!(code(&[root.leaf(WEB).0], &trust), "accepted");
    let below = root.intermediate("below");
    assert_eq!(code(&[below.leaf(WEB).0, below.der()], &trust), "bad-path");

    let root = Ca::root("root a");
    let trust = bundles([root.bundle("a.test")]);
    let flat = root.intermediate_with("flat", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let deep = flat.intermediate("deep");
    assert_eq!(code(&[flat.leaf(WEB).0, flat.der()], &trust), "accepted");
    assert_eq!(code(&[deep.leaf(WEB).0, deep.der(), flat.der()], &trust), "bad-path");
}

#[test]
fn name_constraints_bind() {
    let root = Ca::root("root a");
    let trust = bundles([root.bundle("a.test")]);
    let only_dns = root.intermediate_with("dns", |p| {
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("shop.example".into())],
            excluded_subtrees: Vec::new(),
        });
    });
    let with_name = |name| only_dns.leaf_with(WEB, |p| p.subject_alt_names.push(crate::certs::dns(name))).0;
    assert_eq!(code(&[with_name("web.shop.example"), only_dns.der()], &trust), "accepted");
    assert_eq!(code(&[with_name("web.bank.example"), only_dns.der()], &trust), "bad-path");
}

#[test]
fn chains_are_bounded() {
    let root = Ca::root("root a");
    let trust = bundles([root.bundle("a.test")]);
    let mut chain = vec![root.leaf(WEB).0];
    chain.resize(MAX_CHAIN_CERTIFICATES, root.der());
    assert_eq!(code(&chain, &trust), "accepted");
    chain.push(root.der());
    assert_eq!(code(&chain, &trust), "chain-too-large");
    let fat = vec![root.leaf(WEB).0, CertificateDer::from(vec![0; 64 * 1024])];
    assert_eq!(code(&fat, &trust), "chain-too-large");
    assert_eq!(code(&[], &trust), "no-certificate");
}

#[test]
fn broken_der_is_refused_wherever_it_stands() {
    let root = Ca::root("root a");
    let trust = bundles([root.bundle("a.test")]);
    let leaf = root.leaf(WEB).0;
    let garbage = CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff, 0]);
    assert_eq!(code(std::slice::from_ref(&garbage), &trust), "malformed");
    assert_eq!(code(&[CertificateDer::from(Vec::new())], &trust), "malformed");
    assert_eq!(code(&[leaf.clone(), garbage], &trust), "accepted", "what the path does not need is passed over");
    for cut in 0..leaf.len() {
        assert_eq!(code(&[CertificateDer::from(leaf[..cut].to_vec())], &trust), "malformed", "cut at {cut}");
    }
    let trailing = CertificateDer::from([&leaf[..], &[0]].concat());
    assert_eq!(code(&[trailing], &trust), "malformed");
}

#[test]
fn no_flipped_bit_is_accepted() {
    let root = Ca::root("root a");
    let trust = bundles([root.bundle("a.test")]);
    let leaf = root.leaf(WEB).0;
    for index in 0..leaf.len() {
        let mut bent = leaf.to_vec();
        bent[index] ^= 1 << (index % 8);
        assert_ne!(code(&[CertificateDer::from(bent)], &trust), "accepted", "byte {index}");
    }
}
