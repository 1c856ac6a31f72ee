use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, RsaKeySize, SanType,
};

use super::*;

fn params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params
}

fn pem(params: &CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn p256(params: &CertificateParams) -> String {
    pem(params, &KeyPair::generate().unwrap())
}

pub(super) fn parse(pem: &str) -> Result<Csr, CsrError> {
    Csr::parse(pem, ExtraKeys::default())
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

#[test]
fn keys_of_every_accepted_kind_pass() {
    let keys = [
        KeyPair::generate().unwrap(),
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA512, RsaKeySize::_2048).unwrap(),
    ];
    for key in keys {
        let csr = parse(&pem(&params(&[WEB]), &key)).unwrap();
        csr.check_id(&id(WEB)).unwrap();
        use rcgen::PublicKeyData as _;
        assert_eq!(csr.key_sha256(), crate::signer::sha256(&key.subject_public_key_info()));
    }
}

#[test]
fn trap_04_other_kinds_of_keys_are_refused_by_name() {
    // Made with OpenSSL 3: no library here makes keys this weak.
    let named = [
        (include_str!("testdata/p192.pem"), "P-192"),
        (include_str!("testdata/p224.pem"), "P-224"),
        (include_str!("testdata/secp256k1.pem"), "secp256k1"),
        (include_str!("testdata/brainpool.pem"), "brainpoolP256r1"),
        (include_str!("testdata/p256-explicit.pem"), "EC without a named curve"),
        (include_str!("testdata/dsa.pem"), "DSA"),
        (include_str!("testdata/ed448.pem"), "Ed448"),
        (include_str!("testdata/rsa-pss-key.pem"), "RSA-PSS"),
    ];
    for (text, name) in named {
        assert_eq!(parse(text).unwrap_err(), CsrError::KeyKind(name.into()));
    }
    let refused = |text: &str| parse(text).unwrap_err();
    assert_eq!(refused(include_str!("testdata/rsa1024.pem")), CsrError::RsaSize(1_024));
    assert_eq!(refused(include_str!("testdata/rsa2048-exponent3.pem")), CsrError::RsaExponent);
    assert_eq!(refused(include_str!("testdata/p256-compressed.pem")), CsrError::Point);
    assert_eq!(refused(include_str!("testdata/p256-sha1.pem")), CsrError::SignatureAlgorithm);
}

#[test]
fn ed25519_and_p521_pass_only_where_they_are_configured() {
    let cases = [
        (&rcgen::PKCS_ED25519, "Ed25519", ExtraKeys { ed25519: true, p521: false }),
        (&rcgen::PKCS_ECDSA_P521_SHA512, "P-521", ExtraKeys { ed25519: false, p521: true }),
    ];
    for (algorithm, name, extra) in cases {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let text = pem(&params(&[]), &key);
        assert_eq!(parse(&text).unwrap_err(), CsrError::KeyKind(name.into()));
        use rcgen::PublicKeyData as _;
        let csr = Csr::parse(&text, extra).unwrap();
        assert_eq!(csr.key().subject_public_key_info(), key.subject_public_key_info());
        let other = ExtraKeys { ed25519: !extra.ed25519, p521: !extra.p521 };
        assert_eq!(Csr::parse(&text, other).unwrap_err(), CsrError::KeyKind(name.into()));
    }
}

#[test]
fn what_others_make_is_read() {
    for text in [include_str!("testdata/openssl-p256.pem"), include_str!("testdata/openssl-rsa-pss.pem")] {
        parse(text).unwrap();
    }
}

#[test]
fn only_one_block_of_the_right_kind_is_read() {
    let one = p256(&params(&[WEB]));
    let wrong_label = one.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    let unknown_label = format!("{one}{}", one.replace("CERTIFICATE REQUEST", "SOMETHING ELSE"));
    let truncated = one.replace("-----END CERTIFICATE REQUEST-----", "");
    for bad in ["", "garbage", &format!("{one}{one}"), &wrong_label, &unknown_label, &truncated] {
        assert_eq!(parse(bad).unwrap_err(), CsrError::NotOneBlock, "{bad}");
    }
    let long = format!("{one}{}", " ".repeat(MAX_CSR_BYTES));
    assert_eq!(parse(&long).unwrap_err(), CsrError::TooLong(long.len()));
}

#[test]
fn bytes_after_the_request_are_refused() {
    let request = params(&[WEB]).serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let mut der = request.der().to_vec();
    der.extend_from_slice(&[5, 0]);
    assert!(matches!(parse(&encode(&der)), Err(CsrError::Malformed(_))));
    assert!(matches!(parse(&encode(b"\x30\x03\x02\x01\x00")), Err(CsrError::Malformed(_))));
    assert!(matches!(parse(&encode(b"")), Err(CsrError::Malformed(_))));
}

#[test]
fn a_changed_request_does_not_verify() {
    let request = params(&[WEB]).serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let text = String::from_utf8_lossy(request.der()).into_owned();
    assert!(text.contains("/sa/web"));
    let mut der = request.der().to_vec();
    let place = der.windows(7).position(|window| window == b"/sa/web").unwrap();
    der[place + 4..place + 7].copy_from_slice(b"bew");
    assert_eq!(parse(&encode(&der)).unwrap_err(), CsrError::Signature);
}

/// Flipping or cutting any byte of a good request yields an error, and never a panic.
#[test]
fn no_damaged_byte_goes_unnoticed() {
    let der = params(&[WEB]).serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
    for place in 0..der.len() {
        let mut damaged = der.clone();
        damaged[place] ^= 0x41;
        assert!(parse(&encode(&damaged)).is_err(), "byte {place}");
        assert!(parse(&encode(&der[..place])).is_err(), "cut at {place}");
    }
}

#[test]
fn one_uri_and_only_the_attested_one() {
    let without = parse(&p256(&params(&[]))).unwrap();
    without.check_id(&id(WEB)).unwrap();
    let mut dns = params(&[]);
    dns.subject_alt_names = vec![SanType::DnsName("bank.example".try_into().unwrap())];
    parse(&p256(&dns)).unwrap().check_id(&id(WEB)).unwrap();
    let other = parse(&p256(&params(&["spiffe://cluster.local/ns/shop/sa/web2"]))).unwrap();
    assert_eq!(other.check_id(&id(WEB)), Err(CsrError::OtherId { attested: id(WEB) }));
    let both = parse(&p256(&params(&[WEB, "spiffe://cluster.local/ns/shop/sa/admin"])));
    assert_eq!(both.unwrap_err(), CsrError::SeveralUris(2));
    let same = parse(&p256(&params(&[WEB, WEB])));
    assert_eq!(same.unwrap_err(), CsrError::SeveralUris(2));
}

#[test]
fn trap_03_usages_are_ignored_and_other_extensions_refused_by_oid() {
    let mut greedy = params(&[WEB]);
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    greedy.distinguished_name.push(DnType::CommonName, "root");
    parse(&p256(&greedy)).unwrap();
    let mut odd = params(&[WEB]);
    odd.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
    assert_eq!(parse(&p256(&odd)).unwrap_err(), CsrError::Extension("1.2.3.4".into()));
    let mut twice = params(&[WEB]);
    let empty = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0]);
    twice.custom_extensions = vec![empty];
    assert!(matches!(parse(&p256(&twice)), Err(CsrError::Twice(_) | CsrError::Malformed(_))));
}

pub(super) fn encode(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
}
