//! Requests made to hurt, over the wire: each is refused for its reason, and in between nobody else notices.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P521_SHA512, PKCS_ED25519, SanType,
};
use tonic::Code;

use crate::caller::{Ca, csr};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const BANK: &str = "spiffe://cluster.local/ns/shop/sa/bank";

macro_rules! made_with_openssl {
    ($($name:literal => $reason:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../ca/src/csr/testdata/", $name, ".pem")).to_owned(), $reason)),*]
    };
}

type Case = (&'static str, String, &'static str);

/// Kinds of keys that are not accepted, or not in this form.
fn keys() -> Vec<Case> {
    let mut cases: Vec<Case> = made_with_openssl![
        "p192" => "csr-key-kind",
        "p224" => "csr-key-kind",
        "secp256k1" => "csr-key-kind",
        "brainpool" => "csr-key-kind",
        "p256-explicit" => "csr-key-kind",
        "dsa" => "csr-key-kind",
        "ed448" => "csr-key-kind",
        "rsa-pss-key" => "csr-key-kind",
        "rsa1024" => "csr-rsa-size",
        "rsa2048-exponent3" => "csr-rsa-exponent",
        "p256-compressed" => "csr-point",
        "p256-sha1" => "csr-signature-algorithm",
    ]
    .into();
    for (name, kind) in [("Ed25519", &PKCS_ED25519), ("P-521", &PKCS_ECDSA_P521_SHA512)] {
        cases.push((name, csr(&KeyPair::generate_for(kind).unwrap(), &[WEB]), "csr-key-kind"));
    }
    cases
}

/// Names and extensions that nobody is given.
fn wishes(key: &KeyPair) -> Vec<Case> {
    let bent = |bend: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(WEB.try_into().unwrap())];
        bend(&mut params);
        params.serialize_request(key).unwrap().pem().unwrap()
    };
    let odd = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0]);
    vec![
        ("another identity", csr(key, &[BANK]), "csr-other-id"),
        ("two in one name", csr(key, &[&format!("{WEB},{BANK}")]), "csr-other-id"),
        ("another spelling", csr(key, &[&WEB.replace("/sa/", "/%73a/")]), "csr-other-id"),
        ("two identities", csr(key, &[WEB, BANK]), "csr-several-uris"),
        ("itself twice", csr(key, &[WEB, WEB]), "csr-several-uris"),
        ("an extension", bent(&|params| params.custom_extensions = vec![odd.clone()]), "csr-extension"),
        ("names twice", bent(&|params| params.custom_extensions = vec![names.clone()]), "csr-duplicate"),
    ]
}

/// What is not one request in one block.
fn texts(good: &str) -> Vec<Case> {
    let nested = (0..4_000).fold(Vec::new(), |inner: Vec<u8>, _| {
        let length = u16::try_from(inner.len()).unwrap().to_be_bytes();
        [&[0x30, 0x82, length[0], length[1]], &inner[..]].concat()
    });
    vec![
        ("nothing", String::new(), "csr-not-one-block"),
        ("two requests", format!("{good}{good}"), "csr-not-one-block"),
        (
            "a key behind it",
            format!("{good}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
            "csr-not-one-block",
        ),
        ("another label", good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "csr-not-one-block"),
        ("no end", good.replace("-----END CERTIFICATE REQUEST-----", ""), "csr-not-one-block"),
        ("64 KiB of spaces", format!("{good}{}", " ".repeat(65_536)), "csr-too-long"),
        ("a tower of sequences", pem(&nested), "csr-malformed"),
        ("bytes behind it", pem(&[&der(good)[..], &[5, 0]].concat()), "csr-malformed"),
        ("a length beyond the end", pem(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), "csr-malformed"),
    ]
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", STANDARD.encode(der))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_made_to_hurt_are_refused_for_their_reason_while_others_are_served() {
    let ca = Ca::start(|_| {});
    let mut others = ca.well_behaved("cart").await;
    let (mut caller, key) = (ca.connect(Some(&ca.enrol("web").await)), KeyPair::generate().unwrap());
    let good = csr(&key, &[WEB]);
    for (what, text, reason) in [keys(), wishes(&key), texts(&good)].concat() {
        let before = ca.refused(reason);
        let status = caller.ask(&text, None).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        assert!(!status.message().is_empty() && status.message().len() < 300, "{what}: {status:?}");
        assert_eq!(ca.refused(reason), before + 1, "{what}: {status:?}");
        others.renew().await;
    }
    caller.ask(&good, None).await.expect("it is served as soon as it asks for what is its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damaged_byte_of_a_request_is_more_than_a_refusal() {
    let ca = Ca::start(|_| {});
    let mut others = ca.well_behaved("cart").await;
    let (mut caller, good) = (ca.connect(Some(&ca.enrol("web").await)), csr(&KeyPair::generate().unwrap(), &[WEB]));
    let whole = der(&good);
    for place in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x41;
        for text in [pem(&damaged), pem(&whole[..place])] {
            let status = caller.ask(&text, None).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "byte {place}: {status:?}");
        }
        if place % 16 == 0 {
            others.renew().await;
        }
    }
    caller.ask(&good, None).await.unwrap();
    assert_eq!(ca.page("/readyz").0, 200);
}
