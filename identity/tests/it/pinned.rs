//! First contact by the hash of a root.

use std::sync::Arc;

use palisade_identity::tls::{ClientCertificate, client_config_pinned, provider, server_config, verify_error};
use palisade_identity::{CertificateDer, Identity, PrivateKey, VerifyError, X509Svid};
use rcgen::CertificateParams;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, Error, ServerConfig};

use crate::certs::{Ca, NOW, bundles, date, dns};
use crate::wire::{Outcome, handshake};

const SERVER: &str = "spiffe://a.test/ns/palisade-system/sa/palisade";

struct Site {
    root: Ca,
    issuing: Ca,
}

fn site() -> Site {
    let root = Ca::root("root a");
    let issuing = root.intermediate("issuing");
    Site { root, issuing }
}

impl Site {
    fn leaf(&self, bend: impl FnOnce(&mut CertificateParams)) -> (CertificateDer<'static>, PrivateKey) {
        self.issuing.leaf_with(SERVER, |p| {
            p.subject_alt_names.push(dns("palisade.test"));
            bend(p);
        })
    }

    fn contact(
        &self,
        pin: [u8; 32],
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKey,
        name: &'static str,
    ) -> Outcome {
        let svid = Arc::new(X509Svid::new(chain, key).unwrap());
        let identity = Identity { svid, bundles: bundles([self.root.bundle("a.test")]) };
        let server = server_config(&identity, ClientCertificate::Optional, &[b"h2"]).unwrap();
        handshake(client_config_pinned(pin, &[b"h2"]).unwrap(), server, name)
    }
}

fn sha256(der: &[u8]) -> [u8; 32] {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref().try_into().unwrap()
}

fn reason(outcome: &Outcome) -> Option<&VerifyError> {
    verify_error(outcome.client.as_ref().unwrap_err())
}

#[test]
fn the_pinned_root_at_the_end_is_trusted_and_can_be_read() {
    let site = site();
    let (leaf, key) = site.leaf(|_| {});
    let chain = vec![leaf, site.issuing.der(), site.root.der()];
    let outcome = site.contact(sha256(&site.root.der()), chain, key, "palisade.test");
    let client = outcome.client.unwrap();
    assert_eq!(client.peer_certificates().unwrap().last(), Some(&site.root.der()));
    assert!(outcome.server.is_ok());
}

/// While a root is replaced the server shows two ways: the same signer, certified by both roots.
#[test]
fn each_of_two_roots_may_be_the_pinned_one() {
    let (old, new) = (Ca::root("old root"), Ca::root("new root"));
    let issuing = new.intermediate("issuing");
    let cross = issuing.certified_by(&old, "issuing");
    let (leaf, key) = issuing.leaf_with(SERVER, |p| p.subject_alt_names.push(dns("palisade.test")));
    let chain = vec![leaf, issuing.der(), cross, new.der(), old.der()];
    let site = Site { root: new, issuing };
    for root in [site.root.der(), old.der()] {
        site.contact(sha256(&root), chain.clone(), key.clone(), "palisade.test").client.unwrap();
    }
    let outcome = site.contact(sha256(&Ca::root("old root").der()), chain, key, "palisade.test");
    assert_eq!(reason(&outcome), Some(&VerifyError::RootNotPinned));
}

#[test]
fn any_other_root_is_refused_before_anything_is_sent() {
    let site = site();
    let (leaf, key) = site.leaf(|_| {});
    let chain = vec![leaf, site.issuing.der(), site.root.der()];
    let outcome = site.contact(sha256(&Ca::root("root a").der()), chain, key, "palisade.test");
    assert_eq!(reason(&outcome), Some(&VerifyError::RootNotPinned));
    assert_eq!(outcome.server.unwrap_err(), Error::AlertReceived(AlertDescription::CertificateUnknown));
}

#[test]
fn a_chain_that_leaves_the_root_out_is_refused() {
    let site = site();
    let pin = sha256(&site.root.der());
    let (leaf, key) = site.leaf(|_| {});
    let outcome = site.contact(pin, vec![leaf.clone(), site.issuing.der()], key.clone(), "palisade.test");
    assert_eq!(reason(&outcome), Some(&VerifyError::RootNotPinned));
    let outcome = site.contact(sha256(&leaf), vec![leaf], key, "palisade.test");
    assert_eq!(reason(&outcome), Some(&VerifyError::RootNotPinned), "a leaf is no root, whatever its hash");
}

#[test]
fn a_stranger_who_appends_the_pinned_root_is_refused() {
    let (site, stranger) = (site(), site());
    let (leaf, key) = stranger.leaf(|_| {});
    let chain = vec![leaf, stranger.issuing.der(), site.root.der()];
    let outcome = site.contact(sha256(&site.root.der()), chain, key, "palisade.test");
    let error = outcome.client.unwrap_err();
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error:?}");
}

#[test]
fn a_stranger_who_replays_the_whole_chain_lacks_its_key() {
    let site = site();
    let (leaf, _) = site.leaf(|_| {});
    let other = PrivateKey::generate_p256().unwrap();
    let der = rustls::pki_types::PrivateKeyDer::Pkcs8(other.as_pkcs8_der().to_vec().into());
    let signer = provider().key_provider.load_private_key(der).unwrap();
    let chain = vec![leaf, site.issuing.der(), site.root.der()];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let replay = SingleCertAndKey::from(CertifiedKey::new(chain.clone(), Arc::clone(&signer)));
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(replay));
        let client = client_config_pinned(sha256(&site.root.der()), &[]).unwrap();
        let error = handshake(client, server, "palisade.test").client.unwrap_err();
        assert_eq!(error, Error::InvalidCertificate(CertificateError::BadSignature), "{version:?}");
    }
}

#[test]
fn name_and_dates_count_as_anywhere() {
    let site = site();
    let pin = sha256(&site.root.der());
    let call = |name, bend: fn(&mut CertificateParams)| {
        let (leaf, key) = site.leaf(bend);
        site.contact(pin, vec![leaf, site.issuing.der(), site.root.der()], key, name).client.unwrap_err()
    };
    let wrong_name = call("other.test", |_| {});
    assert!(matches!(wrong_name, Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })));
    let expired = call("palisade.test", |p| p.not_after = date(NOW - 1));
    assert!(matches!(expired, Error::InvalidCertificate(CertificateError::ExpiredContext { .. })));

    let old = Ca::root_with("root a", |p| p.not_after = date(NOW - 1));
    let (leaf, key) = old.leaf_with(SERVER, |p| p.subject_alt_names.push(dns("palisade.test")));
    let outcome = site.contact(sha256(&old.der()), vec![leaf, old.der()], key, "palisade.test");
    assert_eq!(reason(&outcome), Some(&VerifyError::AuthorityDates));
}
