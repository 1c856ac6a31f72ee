//! Whole handshakes in memory, between our configurations and against plain rustls.

use std::sync::Arc;

use palisade_identity::tls::{
    self, ClientCertificate, ExpectPeer, TlsError, client_config, client_config_named, server_config,
    server_config_no_client_auth, verify_error, verify_error_in_io,
};
use palisade_identity::{Identity, SpiffeId, TrustBundles, VerifyError, X509Svid};
use rcgen::CertificateParams;
use rustls::{AlertDescription, CipherSuite, ClientConfig, Error, NamedGroup, ProtocolVersion, ServerConfig};

use crate::certs::{Ca, FixedClock, HOUR, NOW, WEB, at, bundles, date, dns, domain, uri};
use crate::wire::{Outcome, handshake};

const CART: &str = "spiffe://a.test/ns/shop/sa/cart";

/// Two workloads of one trust domain: `web` calls `cart`.
pub(crate) struct Mesh {
    pub(crate) root: Ca,
    pub(crate) bundles: Arc<TrustBundles>,
    pub(crate) web: Identity,
    pub(crate) cart: Identity,
}

pub(crate) fn mesh() -> Mesh {
    let root = Ca::root("root a");
    let bundles = bundles([root.bundle("a.test")]);
    let (web, cart) = (root.identity(WEB, &bundles), root.identity(CART, &bundles));
    Mesh { root, bundles, web, cart }
}

impl Mesh {
    pub(crate) fn server(&self) -> ServerConfig {
        server_config(&self.cart, ClientCertificate::Required, &[b"h2", b"http/1.1"]).unwrap()
    }

    pub(crate) fn client(&self) -> ClientConfig {
        self.client_as(Some(&self.web), ids(&[CART]))
    }

    pub(crate) fn client_as(&self, identity: Option<&Identity>, expect: ExpectPeer) -> ClientConfig {
        client_config(identity, Arc::clone(&self.bundles), expect, &[b"h2"]).unwrap()
    }

    /// An identity whose leaf differs from a good one of `web`.
    fn bent(&self, ca: &Ca, bend: impl FnOnce(&mut CertificateParams)) -> BentIdentity {
        let (leaf, key) = ca.leaf_with(WEB, bend);
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.as_pkcs8_der().to_vec().into());
        BentIdentity(vec![leaf], key)
    }
}

/// A chain that our own types refuse to hold, for plain rustls to present.
struct BentIdentity(Vec<rustls::pki_types::CertificateDer<'static>>, rustls::pki_types::PrivateKeyDer<'static>);

impl BentIdentity {
    fn client(self) -> ClientConfig {
        ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(crate::wire::TrustAnything))
            .with_client_auth_cert(self.0, self.1)
            .unwrap()
    }

    fn server(self) -> ServerConfig {
        ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.0, self.1)
            .unwrap()
    }
}

pub(crate) fn ids(all: &[&str]) -> ExpectPeer {
    ExpectPeer::Ids(all.iter().map(|id| SpiffeId::parse(id).unwrap()).collect())
}

/// The server refused with this reason, and told the client no more than that its certificate was not accepted.
fn assert_server_refuses(outcome: &Outcome, code: &str) {
    let error = outcome.server.as_ref().unwrap_err();
    assert_eq!(verify_error(error).map(VerifyError::code), Some(code), "{error:?}");
    let alert = outcome.client.as_ref().unwrap_err();
    assert_eq!(*alert, Error::AlertReceived(AlertDescription::CertificateUnknown));
    assert!(verify_error(alert).is_none());
}

fn assert_client_refuses(outcome: &Outcome, code: &str) {
    let error = outcome.client.as_ref().unwrap_err();
    assert_eq!(verify_error(error).map(VerifyError::code), Some(code), "{error:?}");
    let alert = outcome.server.as_ref().unwrap_err();
    assert_eq!(*alert, Error::AlertReceived(AlertDescription::CertificateUnknown));
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let mesh = mesh();
    let outcome = handshake(mesh.client(), mesh.server(), "any.name");
    let (client, server) = (outcome.client.unwrap(), outcome.server.unwrap());
    assert_eq!(tls::peer(&server, &mesh.bundles, at(NOW)).unwrap().id().as_str(), WEB);
    assert_eq!(tls::peer(&client, &mesh.bundles, at(NOW)).unwrap().id().as_str(), CART);
    assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(server.negotiated_cipher_suite().unwrap().suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn a_peer_is_judged_again_by_the_bundles_and_time_of_the_asker() {
    let mesh = mesh();
    let server = handshake(mesh.client(), mesh.server(), "any.name").server.unwrap();
    let code = |bundles: &TrustBundles, now| tls::peer(&server, bundles, at(now)).unwrap_err().code();
    assert_eq!(code(&mesh.bundles, NOW + HOUR + 1), "expired");
    assert_eq!(code(&TrustBundles::default(), NOW), "unknown-trust-domain");
    assert_eq!(code(&bundles([Ca::root("new").bundle("a.test")]), NOW), "unknown-authority");
}

#[test]
fn tls_1_2_works_and_verifies_alike() {
    let mesh = mesh();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(mesh.web.svid.key().as_pkcs8_der().to_vec().into());
    let chain = mesh.web.svid.chain().to_vec();
    let old_client = |chain, key| {
        let verifier = crate::wire::TrustAnything;
        ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key)
            .unwrap()
    };
    let server = handshake(old_client(chain, key), mesh.server(), "any.name").server.unwrap();
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(tls::peer(&server, &mesh.bundles, at(NOW)).unwrap().id().as_str(), WEB);

    let bent = mesh.bent(&Ca::root("foreign"), |_| {});
    let outcome = handshake(old_client(bent.0, bent.1), mesh.server(), "any.name");
    assert_server_refuses(&outcome, "unknown-authority");
}

#[test]
fn bad_client_certificates_are_refused_with_a_reason_required_or_optional() {
    let mesh = mesh();
    let foreign = Ca::root("root b");
    for mode in [ClientCertificate::Required, ClientCertificate::Optional] {
        let refuses = |bent: BentIdentity, code| {
            let server = server_config(&mesh.cart, mode, &[]).unwrap();
            assert_server_refuses(&handshake(bent.client(), server, "any.name"), code);
        };
        refuses(mesh.bent(&mesh.root, |p| p.not_after = date(NOW - 1)), "expired");
        refuses(mesh.bent(&mesh.root, |p| p.not_before = date(NOW + 60)), "not-yet-valid");
        refuses(mesh.bent(&foreign, |_| {}), "unknown-authority");
        let abroad = |p: &mut CertificateParams| p.subject_alt_names = vec![uri("spiffe://b.test/x")];
        refuses(mesh.bent(&foreign, abroad), "unknown-trust-domain");
        let two = |p: &mut CertificateParams| p.subject_alt_names.push(uri("spiffe://a.test/admin"));
        refuses(mesh.bent(&mesh.root, two), "several-uri-sans");
    }
}

#[test]
fn bad_server_certificates_are_refused_with_a_reason() {
    let mesh = mesh();
    let refuses = |bent: BentIdentity, code| {
        assert_client_refuses(&handshake(mesh.client_as(None, ids(&[WEB])), bent.server(), "any.name"), code);
    };
    refuses(mesh.bent(&mesh.root, |p| p.not_after = date(NOW - 1)), "expired");
    refuses(mesh.bent(&Ca::root("root b"), |_| {}), "unknown-authority");
    refuses(mesh.bent(&mesh.root, |p| p.subject_alt_names.push(uri("spiffe://a.test/x"))), "several-uri-sans");
    refuses(mesh.bent(&mesh.root, |p| p.subject_alt_names = vec![dns("any.name")]), "no-uri-san");
}

#[test]
fn a_missing_client_certificate_is_refused_or_anonymous() {
    let mesh = mesh();
    let anonymous = || mesh.client_as(None, ids(&[CART]));
    let outcome = handshake(anonymous(), mesh.server(), "any.name");
    let error = outcome.server.unwrap_err();
    assert_eq!(error, Error::NoCertificatesPresented);
    assert_eq!(verify_error(&error), Some(&VerifyError::NoCertificate));
    assert_eq!(outcome.client.unwrap_err(), Error::AlertReceived(AlertDescription::CertificateRequired));

    let optional = server_config(&mesh.cart, ClientCertificate::Optional, &[b"h2"]).unwrap();
    let outcome = handshake(anonymous(), optional, "any.name");
    assert!(outcome.client.is_ok());
    let peer = tls::peer(&outcome.server.unwrap(), &mesh.bundles, at(NOW));
    assert_eq!(peer, Err(VerifyError::NoCertificate));
}

#[test]
fn a_server_without_client_authentication_learns_nobody() {
    let mesh = mesh();
    let server = server_config_no_client_auth(&mesh.cart, &[b"h2"]).unwrap();
    let server = handshake(mesh.client(), server, "any.name").server.unwrap();
    assert!(server.peer_certificates().is_none());
}

#[test]
fn a_client_accepts_whom_it_expects_and_nobody_else() {
    let mesh = mesh();
    let call = |expect| handshake(mesh.client_as(Some(&mesh.web), expect), mesh.server(), "any.name");
    assert!(call(ids(&["spiffe://a.test/other", CART])).client.is_ok());
    assert!(call(ExpectPeer::TrustDomain(domain("a.test"))).client.is_ok());
    for wrong in [
        ids(&[WEB]),
        ids(&["spiffe://a.test/ns/shop/sa/car"]),
        ids(&["spiffe://a.test/ns/shop/sa/cart2"]),
        ExpectPeer::TrustDomain(domain("b.test")),
    ] {
        assert_client_refuses(&call(wrong), "unexpected-peer");
    }
    let nobody = client_config(None, Arc::clone(&mesh.bundles), ExpectPeer::Ids(vec![]), &[]);
    assert_eq!(nobody.unwrap_err(), TlsError::NobodyExpected);
}

#[test]
fn trap_11_a_federated_root_cannot_pose_as_our_domain() {
    let (a, b) = (Ca::root("root a"), Ca::root("root b"));
    let both = bundles([a.bundle("a.test"), b.bundle("b.test")]);
    let cart = a.identity(CART, &both);
    let server = || server_config(&cart, ClientCertificate::Required, &[]).unwrap();
    let client = |identity: &Identity| client_config(Some(identity), Arc::clone(&both), ids(&[CART]), &[]).unwrap();
    let friend = b.identity("spiffe://b.test/ns/x/sa/y", &both);
    assert!(handshake(client(&friend), server(), "any.name").server.is_ok());
    let impostor = b.identity(WEB, &both);
    assert_server_refuses(&handshake(client(&impostor), server(), "any.name"), "unknown-authority");
}

/// Trap 10: `spiffe://a.test` is how `spiffe://a.test.evil/...` begins, too.
#[test]
fn trap_10_a_name_that_begins_alike_is_another_domain() {
    let (root, evil) = (Ca::root("root a"), Ca::root("root evil"));
    let both = bundles([root.bundle("a.test"), evil.bundle("a.test.evil")]);
    let web = root.identity(WEB, &both);
    let call = |server: &Identity, trusted: &Arc<TrustBundles>, expect| {
        let server = server_config(server, ClientCertificate::Optional, &[]).unwrap();
        handshake(client_config(Some(&web), Arc::clone(trusted), expect, &[]).unwrap(), server, "any.name")
    };
    let evils = "spiffe://a.test.evil/ns/shop/sa/cart";
    let impostor = evil.identity(evils, &both);
    assert!(call(&impostor, &both, ExpectPeer::TrustDomain(domain("a.test.evil"))).client.is_ok());
    for expect in [ExpectPeer::TrustDomain(domain("a.test")), ids(&["spiffe://a.test", CART])] {
        assert_client_refuses(&call(&impostor, &both, expect), "unexpected-peer");
    }
    let ours_alone = bundles([root.bundle("a.test")]);
    assert_client_refuses(&call(&impostor, &ours_alone, ids(&[evils])), "unknown-trust-domain");
    let signed_by_us = root.identity(evils, &both);
    assert_client_refuses(&call(&signed_by_us, &both, ids(&[evils])), "unknown-authority");
}

#[test]
fn a_named_server_is_checked_by_name() {
    let mesh = mesh();
    let (leaf, key) = mesh.root.leaf_with(CART, |p| p.subject_alt_names.push(dns("palisade.test")));
    let svid = X509Svid::new(vec![leaf], key).unwrap();
    let identity = Identity { svid: Arc::new(svid), bundles: Arc::clone(&mesh.bundles) };
    let call = |roots: &Ca, name: &'static str| {
        let server = server_config(&identity, ClientCertificate::Optional, &[b"h2"]).unwrap();
        let client = client_config_named(Some(&mesh.web), &roots.bundle("a.test"), &[b"h2"]).unwrap();
        handshake(client, server, name)
    };
    let server = call(&mesh.root, "palisade.test").server.unwrap();
    assert_eq!(tls::peer(&server, &mesh.bundles, at(NOW)).unwrap().id().as_str(), WEB);
    let wrong_name = call(&mesh.root, "other.test");
    assert!(matches!(wrong_name.client, Err(Error::InvalidCertificate(_))));
    assert_eq!(wrong_name.server.unwrap_err(), Error::AlertReceived(AlertDescription::BadCertificate));
    let wrong_root = call(&Ca::root("other"), "palisade.test");
    assert_eq!(wrong_root.server.unwrap_err(), Error::AlertReceived(AlertDescription::UnknownCA));
}

#[test]
fn the_reason_is_found_inside_an_io_error() {
    let mesh = mesh();
    let outcome = handshake(mesh.client_as(None, ids(&[WEB])), mesh.server(), "any.name");
    let wrapped = std::io::Error::new(std::io::ErrorKind::InvalidData, outcome.client.unwrap_err());
    assert_eq!(verify_error_in_io(&wrapped).map(VerifyError::code), Some("unexpected-peer"));
    assert!(verify_error_in_io(&std::io::Error::other("else")).is_none());
}

#[test]
fn the_clock_decides_what_is_expired() {
    let mesh = mesh();
    let mut client = mesh.client();
    client.time_provider = tls::time_provider(Arc::new(FixedClock(NOW + HOUR + 1)));
    assert_client_refuses(&crate::wire::connect(client, mesh.server(), "any.name"), "expired");
}

#[test]
fn alpn_names_are_checked() {
    let mesh = mesh();
    let long = [b'x'; 256];
    for name in [&b""[..], &long[..]] {
        let server = server_config(&mesh.cart, ClientCertificate::Required, &[name]);
        assert!(matches!(server, Err(TlsError::Alpn(_))));
    }
}
