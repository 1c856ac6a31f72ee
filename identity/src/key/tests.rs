//! Keys in every encoding that people keep them in, and what is refused.

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair};
use der::Decode;
use der::asn1::{AnyRef, OctetStringRef};

use super::*;

fn pem(label: &str, der: &[u8]) -> String {
    der::pem::encode_string(label, LineEnding::LF, der).unwrap()
}

fn pkcs8_of_rsa() -> Vec<u8> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref().to_vec()
}

/// The PKCS#1 key inside a PKCS#8 one: version, algorithm, octet string.
fn pkcs1_inside(pkcs8: &[u8]) -> Vec<u8> {
    let sequence = AnyRef::from_der(pkcs8).unwrap();
    let inner = sequence.sequence(|reader| -> der::Result<Vec<u8>> {
        AnyRef::decode(reader)?;
        AnyRef::decode(reader)?;
        let octets = <&OctetStringRef>::decode(reader)?;
        Ok(octets.as_bytes().to_vec())
    });
    inner.unwrap()
}

#[test]
fn a_generated_key_survives_der_and_pem() {
    let key = PrivateKey::generate_p256().unwrap();
    let by_der = PrivateKey::from_pkcs8_der(key.as_pkcs8_der().to_vec()).unwrap();
    let by_pem = PrivateKey::from_pem(key.to_pem().as_bytes()).unwrap();
    assert_eq!(by_der.as_pkcs8_der(), key.as_pkcs8_der());
    assert_eq!(by_pem.as_pkcs8_der(), key.as_pkcs8_der());
    assert_eq!(by_pem.public_key_der(), key.public_key_der());
    assert!(!key.public_key_der().is_empty());
    assert!(key.to_pem().starts_with("-----BEGIN PRIVATE KEY-----\n"));
}

#[test]
fn two_generated_keys_differ() {
    let (a, b) = (PrivateKey::generate_p256().unwrap(), PrivateKey::generate_p256().unwrap());
    assert_ne!(a.public_key_der(), b.public_key_der());
}

#[test]
fn sec1_keys_of_each_curve_are_converted() {
    let curves: [&'static EcdsaSigningAlgorithm; 3] =
        [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING];
    for curve in curves {
        let pair = EcdsaKeyPair::generate(curve).unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        // As `openssl ecparam -genkey` writes it: the curve's parameters first.
        let text = pem("EC PARAMETERS", &[6, 1, 42]) + &pem("EC PRIVATE KEY", sec1.as_ref());
        let key = PrivateKey::from_pem(text.as_bytes()).unwrap();
        let point = pair.public_key().as_ref();
        assert!(key.public_key_der().ends_with(point));
        assert!(PrivateKey::from_pkcs8_der(key.as_pkcs8_der().to_vec()).is_ok());
    }
}

#[test]
fn rsa_and_ed25519_keys_are_taken() {
    let rsa = pkcs8_of_rsa();
    let by_pkcs8 = PrivateKey::from_pem(pem("PRIVATE KEY", &rsa).as_bytes()).unwrap();
    let by_pkcs1 = PrivateKey::from_pem(pem("RSA PRIVATE KEY", &pkcs1_inside(&rsa)).as_bytes()).unwrap();
    assert_eq!(by_pkcs8.public_key_der(), by_pkcs1.public_key_der());

    let ed25519 = Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
    let key = PrivateKey::from_pkcs8_der(ed25519.as_ref().to_vec()).unwrap();
    assert!(format!("{key:?}").contains("ED25519"));
}

#[test]
fn certificates_and_comments_beside_the_key_are_passed_over() {
    let key = PrivateKey::generate_p256().unwrap();
    let text = format!("subject: web\n{}key:\n{}", pem("CERTIFICATE", b"anything"), *key.to_pem());
    assert_eq!(PrivateKey::from_pem(text.as_bytes()).unwrap().as_pkcs8_der(), key.as_pkcs8_der());
}

#[test]
fn bad_input_is_refused_by_name() {
    let key = PrivateKey::generate_p256().unwrap();
    let good = key.to_pem();
    let twice = format!("{}{}", *good, *good);
    let cut = good.get(..good.len() / 2).unwrap();
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"anything");
    let large = " ".repeat(MAX_BYTES + 1);
    for (text, reason) in [
        ("", KeyError::Missing),
        ("no pem at all", KeyError::Missing),
        (&pem("CERTIFICATE", b"anything"), KeyError::Missing),
        (&pem("PUBLIC KEY", b"anything"), KeyError::Missing),
        (&pem("PRIVATE KEY", b"anything"), KeyError::Rejected),
        (&pem("EC PRIVATE KEY", b"anything"), KeyError::Rejected),
        (&pem("RSA PRIVATE KEY", b"anything"), KeyError::Rejected),
        (&twice, KeyError::Several),
        (cut, KeyError::Pem),
        (&encrypted, KeyError::Encrypted),
        (&large, KeyError::TooLarge(MAX_BYTES + 1)),
    ] {
        assert_eq!(PrivateKey::from_pem(text.as_bytes()).expect_err(text), reason);
    }
    assert_eq!(PrivateKey::from_pkcs8_der(Vec::new()).unwrap_err(), KeyError::Rejected);
    assert_eq!(PrivateKey::from_pkcs8_der(vec![0; MAX_BYTES + 1]).unwrap_err(), KeyError::TooLarge(MAX_BYTES + 1));
    let mut trailing = key.as_pkcs8_der().to_vec();
    trailing.push(0);
    assert_eq!(PrivateKey::from_pkcs8_der(trailing).unwrap_err(), KeyError::Rejected);
}

#[test]
fn trap_36_debug_shows_the_algorithm_and_nothing_else() {
    let key = PrivateKey::generate_p256().unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(ECDSA, redacted)");
    assert_eq!(format!("{key:#?}"), "PrivateKey(ECDSA, redacted)");
}
