//! Neither side ever resumes: a resumed session would skip the certificate.

use std::sync::Arc;

use palisade_identity::{X509Svid, tls};
use rustls::client::Resumption;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};

use crate::certs::{FixedClock, NOW};
use crate::handshake::mesh;
use crate::wire::{TrustAnything, run};

fn fixed() -> Arc<dyn rustls::time_provider::TimeProvider> {
    tls::time_provider(Arc::new(FixedClock(NOW)))
}

/// What the second of two handshakes is.
fn second(mut client: ClientConfig, mut server: ServerConfig) -> Option<HandshakeKind> {
    client.time_provider = fixed();
    server.time_provider = fixed();
    let (client, server) = (Arc::new(client), Arc::new(server));
    assert!(run(&client, &server, "any.name").client.is_ok());
    run(&client, &server, "any.name").client.unwrap().handshake_kind()
}

/// A plain rustls client that would gladly resume.
fn eager_client(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAnything))
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(8);
    config
}

/// A plain rustls server that gladly resumes.
fn eager_server(svid: &X509Svid) -> ServerConfig {
    let key = PrivateKeyDer::Pkcs8(svid.key().as_pkcs8_der().to_vec().into());
    ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(svid.chain().to_vec(), key)
        .unwrap()
}

#[test]
fn the_test_itself_can_resume() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let kind = second(eager_client(&[version]), eager_server(&mesh().cart.svid));
        assert_eq!(kind, Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[test]
fn trap_48_our_server_never_resumes() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let server = tls::server_config(&mesh().cart, tls::ClientCertificate::Optional, &[]).unwrap();
        assert_eq!(second(eager_client(&[version]), server), Some(HandshakeKind::Full), "{version:?}");
    }
}

#[test]
fn trap_48_our_client_never_resumes() {
    let mesh = mesh();
    let mut client = mesh.client();
    client.alpn_protocols.clear();
    assert_eq!(second(client, eager_server(&mesh.cart.svid)), Some(HandshakeKind::Full));
}
