//! Requests that were made to hurt: each is refused with the reason written beside it, and none is signed, copied or a panic.
//!
//! They are built byte by byte here, and signed with a good key, so that what is refused is the structure and not a signature
//! that the damage broke.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::tests::{encode, parse};
use super::*;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// id-ecPublicKey with P-256, and ecdsa-with-SHA256.
const P256_ALGORITHM: &[u8] = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const PKCS9: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
const MICROSOFT: &[u8] = b"\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0e";
const SAN: &[u8] = b"\x06\x03\x55\x1d\x11";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = vec![tag];
    match body.len() {
        short @ 0..=127 => out.push(short as u8),
        long => {
            let bytes = (long as u32).to_be_bytes();
            let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..];
            out.push(0x80 | bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
    }
    out.extend(body);
    out
}

fn key() -> EcdsaKeyPair {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.as_ref()).unwrap()
}

/// A request of these parts, signed over whatever they are.
struct Request {
    version: Vec<u8>,
    point: Option<Vec<u8>>,
    attributes: Vec<Vec<u8>>,
    after_info: Vec<u8>,
    signature: Option<Vec<u8>>,
}

impl Default for Request {
    fn default() -> Self {
        Self { version: vec![2, 1, 0], point: None, attributes: Vec::new(), after_info: Vec::new(), signature: None }
    }
}

impl Request {
    fn with(attributes: &[Vec<u8>]) -> Self {
        Self { attributes: attributes.to_vec(), ..Self::default() }
    }

    fn der(&self) -> Vec<u8> {
        let key = key();
        let point = self.point.clone().unwrap_or_else(|| key.public_key().as_ref().to_vec());
        let spki = tlv(SEQUENCE, &[P256_ALGORITHM, &tlv(3, &[&[0], &point])]);
        let attributes = tlv(0xa0, &[&self.attributes.concat()]);
        let info = tlv(SEQUENCE, &[&self.version, &tlv(SEQUENCE, &[]), &spki, &attributes, &self.after_info]);
        let made = key.sign(&SystemRandom::new(), &info).unwrap().as_ref().to_vec();
        let signature = self.signature.clone().unwrap_or(made);
        tlv(SEQUENCE, &[&info, ECDSA_SHA256, &tlv(3, &[&[0], &signature])])
    }

    fn outcome(&self) -> Result<Csr, CsrError> {
        parse(&encode(&self.der()))
    }

    fn code(&self) -> &'static str {
        self.outcome().map_or_else(|error| error.code(), |_| "accepted")
    }
}

fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[oid, &tlv(4, &[value])])
}

fn attribute(oid: &[u8], extensions: &[Vec<u8>]) -> Vec<u8> {
    tlv(SEQUENCE, &[oid, &tlv(SET, &[&tlv(SEQUENCE, &[&extensions.concat()])])])
}

fn names(names: &[(u8, &str)]) -> Vec<u8> {
    let names: Vec<_> = names.iter().map(|(tag, text)| tlv(0x80 | *tag, &[text.as_bytes()])).collect();
    extension(SAN, &tlv(SEQUENCE, &[&names.concat()]))
}

#[test]
fn the_builder_builds_what_is_accepted() {
    let csr = Request::with(&[attribute(PKCS9, &[names(&[(6, WEB)])])]).outcome().unwrap();
    csr.check_id(&SpiffeId::parse(WEB).unwrap()).unwrap();
    assert_eq!(Request::default().code(), "accepted");
}

#[test]
fn attributes_are_read_as_one_reader_would() {
    let web = || attribute(PKCS9, &[names(&[(6, WEB)])]);
    let two_values = tlv(SEQUENCE, &[PKCS9, &tlv(SET, &[&tlv(SEQUENCE, &[]), &tlv(SEQUENCE, &[])])]);
    let odd = extension(b"\x06\x03\x2a\x03\x04", &[5, 0]);
    assert_eq!(Request::with(&[web(), web()]).code(), "csr-duplicate");
    assert_eq!(Request::with(&[web(), attribute(MICROSOFT, &[names(&[(6, WEB)])])]).code(), "csr-duplicate");
    assert_eq!(Request::with(&[two_values]).code(), "csr-duplicate");
    assert_eq!(Request::with(&[attribute(PKCS9, &[names(&[(6, WEB)]), names(&[(6, WEB)])])]).code(), "csr-duplicate");
    let refused = Request::with(&[attribute(MICROSOFT, &[odd])]).outcome().unwrap_err();
    assert_eq!(refused, CsrError::Extension("1.2.3.4".into()), "Microsoft's attribute is no back door");
    let password =
        tlv(SEQUENCE, &[b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x07", &tlv(SET, &[&tlv(12, &[b"secret"])])]);
    assert_eq!(Request::with(&[password]).code(), "accepted", "a challenge password asks for nothing");
}

/// Trap 1, trap 2: one identity, compared as a whole, never split.
#[test]
fn trap_01_02_several_names_in_one_are_one_name_that_nobody_has() {
    let attested = SpiffeId::parse(WEB).unwrap();
    let bank = "spiffe://cluster.local/ns/shop/sa/bank";
    for text in [
        format!("{WEB},{bank}"),
        format!("{WEB}\0{bank}"),
        format!("{WEB} "),
        format!("{WEB}/"),
        WEB.to_uppercase(),
        WEB.replace("/sa/", "/%73a/"),
    ] {
        let csr = Request::with(&[attribute(PKCS9, &[names(&[(6, &text)])])]).outcome();
        assert!(csr.is_err() || csr.is_ok_and(|csr| csr.check_id(&attested).is_err()), "{text:?}");
    }
    let several = Request::with(&[attribute(PKCS9, &[names(&[(6, WEB), (2, "a.example"), (6, bank)])])]);
    assert_eq!(several.code(), "csr-several-uris");
    let many: Vec<_> = (0..500).map(|_| (6, "u:x")).collect();
    assert_eq!(Request::with(&[attribute(PKCS9, &[names(&many)])]).code(), "csr-several-uris");
}

#[test]
fn encodings_other_than_der_are_refused() {
    let whole = Request::default().der();
    let mut trailing = whole.clone();
    trailing.extend([0; 16]);
    let mut indefinite = vec![SEQUENCE, 0x80];
    indefinite.extend_from_slice(&whole[4..]);
    indefinite.extend([0, 0]);
    let mut long_length = vec![SEQUENCE, 0x84, 0, 0, 0, 0];
    let body = &whole[if whole[1] == 0x81 { 3 } else { 4 }..];
    long_length[5] = u8::try_from(body.len()).unwrap();
    long_length.extend_from_slice(body);
    let nested = (0..4_000).fold(Vec::new(), |inner, _| tlv(SEQUENCE, &[&inner]));
    for (what, der) in [
        ("bytes after the request", trailing),
        ("indefinite length", indefinite),
        ("a length with leading zeros", long_length),
        ("a tower of sequences", nested),
        ("a length beyond the end", vec![SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff]),
    ] {
        let code = parse(&encode(&der)).unwrap_err().code();
        assert!(["csr-malformed", "csr-too-long"].contains(&code), "{what}: {code}");
    }
    let after = Request { after_info: vec![5, 0], ..Request::default() };
    assert_eq!(after.code(), "csr-malformed", "bytes inside the signed part");
    for version in [vec![2, 1, 1], vec![2, 1, 0x80], vec![2, 2, 0, 0]] {
        assert_eq!(Request { version, ..Request::default() }.code(), "csr-malformed");
    }
}

#[test]
fn points_and_signatures_that_prove_nothing_are_refused() {
    let mut off_curve = vec![4];
    off_curve.extend([1; 64]);
    let mut hybrid = key().public_key().as_ref().to_vec();
    hybrid[0] = 6;
    assert_eq!(Request { point: Some(off_curve), ..Request::default() }.code(), "csr-signature");
    assert_eq!(Request { point: Some(hybrid), ..Request::default() }.code(), "csr-point");
    assert_eq!(Request { point: Some(vec![0]), ..Request::default() }.code(), "csr-point");
    let other = Request { point: Some(key().public_key().as_ref().to_vec()), ..Request::default() };
    assert_eq!(other.code(), "csr-signature", "somebody else's key");
    let zero = tlv(SEQUENCE, &[&[2, 1, 0], &[2, 1, 0]]);
    for signature in [Vec::new(), zero, vec![0; 72]] {
        assert_eq!(Request { signature: Some(signature), ..Request::default() }.code(), "csr-signature");
    }
}

#[test]
fn a_block_around_the_block_is_refused() {
    let good = encode(&Request::default().der());
    for bad in [
        good.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
        good.replace("REQUEST-----\n", "REQUEST-----\nProc-Type: 4,ENCRYPTED\n\n"),
        good.replace("-----END CERTIFICATE REQUEST-----", "-----END CERTIFICATE-----"),
        format!("{good}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{good}"),
        good.replace('\n', ""),
    ] {
        assert_eq!(parse(&bad).unwrap_err().code(), "csr-not-one-block", "{bad}");
    }
    parse(&good.replace('\n', "\r\n")).expect("the line ends of the other world");
}
