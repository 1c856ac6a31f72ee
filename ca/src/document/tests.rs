use palisade_identity::TrustDomain;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::*;
use crate::jwt::{JwtConfig, Ring};

const NOW: u64 = 1_800_000_000;

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

fn root(algorithm: &'static rcgen::SignatureAlgorithm) -> CertificateDer<'static> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.self_signed(&key).unwrap().der().clone()
}

fn bundle(roots: &[&CertificateDer<'static>]) -> TrustBundle {
    TrustBundle::new(domain(), roots.iter().map(|root| (*root).clone()).collect()).unwrap()
}

fn write(directory: &Directory, x509: &TrustBundle, ring: &Ring, now: u64) -> Documents {
    let content = Content {
        x509,
        jwt: &|usage| ring.jwks(usage),
        issuer: Some("https://idp.example"),
        refresh_hint: Duration::from_secs(300),
    };
    Documents::write(&content, directory, now).unwrap()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn the_bundle_is_what_spiffe_specifies() {
    let dir = tempfile::tempdir().unwrap();
    let (directory, _) = Directory::open(dir.path()).unwrap();
    let ring = Ring::open(&directory, &JwtConfig::default(), NOW).unwrap();
    let root = root(&rcgen::PKCS_ECDSA_P256_SHA256);
    let documents = write(&directory, &bundle(&[&root]), &ring, NOW);
    let whole = parsed(&documents.bundle);
    assert_eq!((whole["spiffe_sequence"].as_u64(), whole["spiffe_refresh_hint"].as_u64()), (Some(NOW), Some(300)));
    let [x509, jwt] = whole["keys"].as_array().unwrap().as_slice() else { panic!("{whole}") };
    assert_eq!((&x509["use"], &x509["kty"], &x509["crv"]), (&"x509-svid".into(), &"EC".into(), &"P-256".into()));
    assert_eq!((x509.get("kid"), x509["x5c"].as_array().unwrap().len()), (None, 1));
    assert_eq!(STANDARD.decode(x509["x5c"][0].as_str().unwrap()).unwrap(), root.as_ref());
    assert_eq!((&jwt["use"], jwt["kid"].as_str().unwrap().len()), (&"jwt-svid".into(), 32));
    assert_eq!(parsed(&documents.jwt_bundle)["keys"].as_array().unwrap(), std::slice::from_ref(jwt));
    assert_eq!(parsed(&documents.keys)["keys"][0]["use"], "sig");
    let discovery = parsed(documents.discovery.as_deref().unwrap());
    assert_eq!(discovery["jwks_uri"], "https://idp.example/keys");
    assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["ES256"]));
}

#[test]
fn trap_45_the_sequence_grows_with_the_content_and_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let (directory, _) = Directory::open(dir.path()).unwrap();
    let ring = Ring::open(&directory, &JwtConfig::default(), NOW).unwrap();
    let (one, two) = (root(&rcgen::PKCS_ECDSA_P256_SHA256), root(&rcgen::PKCS_ECDSA_P256_SHA256));
    let (first, both) = (bundle(&[&one]), bundle(&[&one, &two]));
    let begun = write(&directory, &first, &ring, NOW);
    assert_eq!(write(&directory, &first, &ring, NOW + 50), begun, "a restart changes nothing");
    assert_eq!(write(&directory, &both, &ring, NOW).sequence, NOW + 1, "even in the same second");
    assert_eq!(write(&directory, &first, &ring, NOW + 50).sequence, NOW + 50);
    std::fs::remove_file(dir.path().join(SEQUENCE_FILE)).unwrap();
    assert_eq!(write(&directory, &first, &ring, NOW + 51).sequence, NOW + 51, "a lost file does not go back");
}

#[test]
fn roots_of_every_kind_have_their_parameters() {
    let jwk = |algorithm| x509_jwk(&root(algorithm));
    let size = |jwk: &Value, name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap().len();
    let p384 = jwk(&rcgen::PKCS_ECDSA_P384_SHA384);
    assert_eq!((&p384["crv"], size(&p384, "x"), size(&p384, "y")), (&"P-384".into(), 48, 48));
    let ed = jwk(&rcgen::PKCS_ED25519);
    assert_eq!((&ed["kty"], &ed["crv"], size(&ed, "x")), (&"OKP".into(), &"Ed25519".into(), 32));
    let rsa = jwk(&rcgen::PKCS_RSA_SHA256);
    assert_eq!((&rsa["kty"], size(&rsa, "n"), &rsa["e"]), (&"RSA".into(), 256, &"AQAB".into()));
}
