//! Every deviation of a leaf that some validator lets through, and the code with which ours refuses it.

use palisade_identity::{LeafError, VerifiedPeer, VerifyError, verify_peer};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SerialNumber,
};

use crate::certs::{Ca, HOUR, NOW, WEB, at, bundles, date, dns, extension, uri};

const SAN: &[u64] = &[2, 5, 29, 17];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

/// Verifies a leaf that differs from a good one by `bend`.
fn verify(bend: impl FnOnce(&mut CertificateParams)) -> Result<VerifiedPeer, VerifyError> {
    let root = Ca::root("root a");
    let (leaf, _) = root.leaf_with(WEB, bend);
    verify_peer(&[leaf], &bundles([root.bundle("a.test")]), at(NOW))
}

fn code(bend: impl FnOnce(&mut CertificateParams)) -> &'static str {
    verify(bend).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn a_good_leaf_becomes_a_peer() {
    let root = Ca::root("root a");
    let (leaf, _) = root.leaf_with(WEB, |params| {
        params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0xff, 0x01]));
        params.distinguished_name.push(DnType::OrganizationName, "Shop, Inc");
        params.distinguished_name.push(DnType::CommonName, "web");
    });
    let peer = verify_peer(std::slice::from_ref(&leaf), &bundles([root.bundle("a.test")]), at(NOW)).unwrap();
    assert_eq!(peer.id().as_str(), WEB);
    assert_eq!(peer.serial(), "0aff01");
    assert_eq!(peer.subject(), "CN=web,O=Shop\\, Inc");
    assert_eq!(peer.not_after(), at(NOW + HOUR));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &leaf);
    assert_eq!(peer.certificate_sha256(), digest.as_ref());
}

#[test]
fn harmless_variations_are_accepted() {
    assert_eq!(code(|p| p.subject_alt_names.push(dns("web.shop"))), "accepted");
    assert_eq!(code(|p| p.subject_alt_names.insert(0, dns("spiffe.example"))), "accepted");
    assert_eq!(code(|p| p.is_ca = IsCa::NoCa), "accepted", "basicConstraints absent means cA=false");
    assert_eq!(code(|p| p.extended_key_usages.clear()), "accepted", "EKU is optional");
    assert_eq!(code(|p| p.key_usages.push(KeyUsagePurpose::KeyEncipherment)), "accepted");
    assert_eq!(code(|p| p.key_usages.push(KeyUsagePurpose::KeyAgreement)), "accepted");
    assert_eq!(code(|p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning)), "accepted");
}

#[test]
fn trap_01_anything_but_one_uri_san_is_refused() {
    assert_eq!(code(|p| p.subject_alt_names.push(uri("spiffe://a.test/ns/shop/sa/admin"))), "several-uri-sans");
    assert_eq!(code(|p| p.subject_alt_names.push(uri(WEB))), "several-uri-sans", "even twice the same");
    assert_eq!(code(|p| p.subject_alt_names.insert(0, uri("https://web.shop"))), "several-uri-sans");
    assert_eq!(code(|p| p.subject_alt_names.push(uri("https://web.shop"))), "several-uri-sans");
    assert_eq!(code(|p| p.subject_alt_names.clear()), "no-uri-san");
    assert_eq!(code(|p| p.subject_alt_names = vec![dns("web.shop")]), "no-uri-san");
    assert_eq!(code(|p| p.subject_alt_names = vec![uri("https://a.test/ns/shop/sa/web")]), "bad-spiffe-id");
}

#[test]
fn two_uri_sans_are_counted_in_the_reason() {
    let error = verify(|p| p.subject_alt_names.push(uri("spiffe://b.test/x"))).unwrap_err();
    assert_eq!(error, VerifyError::Leaf(LeafError::SeveralUriSans(2)));
}

#[test]
fn trap_09_ids_outside_the_grammar_are_refused() {
    for id in [
        "spiffe://a.test/",
        "spiffe://a.test/ns/shop/sa/web/",
        "spiffe://a.test/ns/shop/sa%2fweb",
        "spiffe://a.test/ns/shop/../web",
        "spiffe://a.test//web",
        "spiffe://A.test/ns/shop/sa/web",
        "spiffe://a.test:443/ns/shop/sa/web",
        "spiffe://root@a.test/ns/shop/sa/web",
        "SPIFFE://a.test/ns/shop/sa/web",
        "spiffe://a.test/web?x=1",
        "spiffe://a.test/a,URI:spiffe://a.test/b",
    ] {
        assert_eq!(code(|p| p.subject_alt_names = vec![uri(id)]), "bad-spiffe-id", "{id}");
    }
    assert_eq!(code(|p| p.subject_alt_names = vec![uri("spiffe://a.test")]), "no-path");
}

#[test]
fn an_id_with_a_nul_is_refused() {
    // A SAN of one URI `spiffe://a.test/x\0`: some C code stops reading at the NUL.
    let der = [&[0x30, 20, 0x86, 18][..], b"spiffe://a.test/x\0"].concat();
    let with_nul = |p: &mut CertificateParams| {
        p.subject_alt_names.clear();
        p.custom_extensions.push(extension(SAN, true, &der));
    };
    assert_eq!(code(with_nul), "bad-spiffe-id");
}

#[test]
fn trap_05_a_leaf_that_may_sign_is_refused() {
    let ca = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(code(ca), "leaf-is-authority");
    assert_eq!(code(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)), "leaf-may-sign");
    assert_eq!(code(|p| p.key_usages.push(KeyUsagePurpose::CrlSign)), "leaf-may-sign");
}

#[test]
fn trap_06_key_usage_must_be_there_critical_and_right() {
    assert_eq!(code(|p| p.key_usages.clear()), "key-usage-missing");
    assert_eq!(code(|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]), "no-digital-signature");
    let digital_signature = [3, 2, 7, 0x80];
    let not_critical = |p: &mut CertificateParams| {
        p.key_usages.clear();
        p.custom_extensions.push(extension(KEY_USAGE, false, &digital_signature));
    };
    assert_eq!(code(not_critical), "key-usage-not-critical");
}

#[test]
fn trap_07_extended_key_usage_is_both_or_none() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    for usages in [vec![ServerAuth], vec![ClientAuth], vec![Any], vec![ExtendedKeyUsagePurpose::CodeSigning]] {
        assert_eq!(code(|p| p.extended_key_usages.clone_from(&usages)), "extended-key-usage", "{usages:?}");
    }
    let empty = |p: &mut CertificateParams| {
        p.extended_key_usages.clear();
        p.custom_extensions.push(extension(EXTENDED_KEY_USAGE, false, &[0x30, 0]));
    };
    assert_eq!(code(empty), "extended-key-usage");
}

#[test]
fn trap_08_an_empty_subject_needs_a_critical_san() {
    let der = [&[0x30, 0x20, 0x86, 0x1e][..], WEB.as_bytes()].concat();
    assert_eq!(WEB.len(), 0x1e);
    let san = |critical| extension(SAN, critical, &der);
    let bend = |critical| {
        move |p: &mut CertificateParams| {
            p.subject_alt_names.clear();
            p.custom_extensions.push(san(critical));
        }
    };
    assert_eq!(code(bend(true)), "accepted");
    assert_eq!(code(bend(false)), "san-not-critical");
    let named = |p: &mut CertificateParams| {
        bend(false)(p);
        p.distinguished_name.push(DnType::CommonName, "web");
    };
    assert_eq!(code(named), "accepted");
}

#[test]
fn an_extension_that_stands_twice_is_refused() {
    let second_san = [&[0x30, 0x20, 0x86, 0x1e][..], WEB.as_bytes()].concat();
    let twice = |p: &mut CertificateParams| p.custom_extensions.push(extension(SAN, true, &second_san));
    assert!(["malformed", "unsupported"].contains(&code(twice)));
    let usage = |p: &mut CertificateParams| p.custom_extensions.push(extension(KEY_USAGE, true, &[3, 2, 7, 0x80]));
    assert!(["malformed", "unsupported"].contains(&code(usage)));
}

#[test]
fn an_unknown_critical_extension_is_refused_a_plain_one_is_not() {
    let oid = &[1, 3, 6, 1, 4, 1, 99999, 1];
    assert_eq!(code(|p| p.custom_extensions.push(extension(oid, true, &[5, 0]))), "unsupported");
    assert_eq!(code(|p| p.custom_extensions.push(extension(oid, false, &[5, 0]))), "accepted");
}

#[test]
fn dates_count_to_the_second() {
    let root = Ca::root("root a");
    let trust = bundles([root.bundle("a.test")]);
    let (leaf, _) = root.leaf(WEB);
    let code =
        |now| verify_peer(std::slice::from_ref(&leaf), &trust, at(now)).map_or_else(|e| e.code(), |_| "accepted");
    assert_eq!(code(NOW - HOUR - 1), "not-yet-valid");
    assert_eq!(code(NOW - HOUR), "accepted");
    assert_eq!(code(NOW + HOUR), "accepted");
    assert_eq!(code(NOW + HOUR + 1), "expired");
    let ahead = |p: &mut CertificateParams| p.not_before = date(NOW + 60);
    assert_eq!(self::code(ahead), "not-yet-valid");
}

#[test]
fn dates_and_ids_stand_in_the_message() {
    let error = verify(|p| p.not_after = date(NOW - 1)).unwrap_err();
    assert_eq!(error.to_string(), format!("the certificate of `{WEB}` expired at 2025-12-31T23:59:59Z"));
    let error = verify(|p| p.not_before = date(NOW + 60)).unwrap_err();
    assert_eq!(error.to_string(), format!("the certificate of `{WEB}` is not valid before 2026-01-01T00:01:00Z"));
}

#[test]
fn a_validity_that_ends_before_it_begins_is_refused() {
    let inverted = |p: &mut CertificateParams| {
        p.not_before = date(NOW + 60);
        p.not_after = date(NOW - 60);
    };
    assert_eq!(code(inverted), "bad-validity");
}
