//! A certificate is public: without its key it proves nothing. The handshake's own signature has to be checked too.

use std::sync::Arc;

use palisade_identity::tls::{self, provider};
use palisade_identity::{PrivateKey, X509Svid};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, ServerConfig, SupportedProtocolVersion};

use crate::certs::WEB;
use crate::handshake::{ids, mesh};
use crate::wire::{TrustAnything, handshake};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// The chain of `svid` with a key that is not its own.
fn stolen(svid: &X509Svid) -> Arc<SingleCertAndKey> {
    let other = PrivateKey::generate_p256().unwrap();
    let der = PrivateKeyDer::Pkcs8(other.as_pkcs8_der().to_vec().into());
    let signer = provider().key_provider.load_private_key(der).unwrap();
    Arc::new(CertifiedKey::new(svid.chain().to_vec(), signer).into())
}

const BAD_SIGNATURE: Error = Error::InvalidCertificate(CertificateError::BadSignature);

#[test]
fn a_client_with_a_stolen_certificate_is_refused() {
    let mesh = mesh();
    for version in VERSIONS {
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAnything))
            .with_client_cert_resolver(stolen(&mesh.web.svid));
        let outcome = handshake(client, mesh.server(), "any.name");
        assert_eq!(outcome.server.unwrap_err(), BAD_SIGNATURE, "{version:?}");
        assert_eq!(outcome.client.unwrap_err(), Error::AlertReceived(AlertDescription::DecryptError));
    }
}

#[test]
fn a_server_with_a_stolen_certificate_is_refused() {
    let mesh = mesh();
    let named = || tls::client_config_named(None, &mesh.root.bundle("a.test"), &[]).unwrap();
    for version in VERSIONS {
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(stolen(&mesh.web.svid));
        let spiffe = handshake(mesh.client_as(None, ids(&[WEB])), server.clone(), "any.name");
        assert_eq!(spiffe.client.unwrap_err(), BAD_SIGNATURE, "{version:?}");
        assert!(handshake(named(), server, "any.name").client.is_err());
    }
}
