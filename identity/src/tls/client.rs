//! The connecting side: towards a SPIFFE peer, or towards a server known by its DNS name or address.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{TlsError, alpn_protocols, certified_key, provider, refuse, signatures_by_provider};
use crate::{Identity, SpiffeId, TrustBundle, TrustBundles, TrustDomain, VerifyError, verify_peer};

/// Which SPIFFE peers a client accepts. There is no "anybody": a client always knows whom it calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectPeer {
    /// One of these IDs, exactly.
    Ids(Vec<SpiffeId>),
    /// Any ID of this trust domain.
    TrustDomain(TrustDomain),
}

impl ExpectPeer {
    fn check(&self, id: &SpiffeId) -> Result<(), VerifyError> {
        let expected = match self {
            Self::Ids(ids) => ids.contains(id),
            Self::TrustDomain(domain) => id.trust_domain_name() == domain.as_str(),
        };
        if expected { Ok(()) } else { Err(VerifyError::UnexpectedPeer(id.clone())) }
    }
}

/// A client of a SPIFFE peer: the server's chain is verified by [`verify_peer`] against `bundles` and its ID must be expected. Its
/// DNS names play no part, so any server name may be sent. With `identity` the client shows its SVID when asked.
///
/// # Errors
/// [`TlsError::NobodyExpected`] for an empty list of IDs; a bad ALPN name; or if the library refuses.
pub fn client_config(
    identity: Option<&Identity>,
    bundles: Arc<TrustBundles>,
    expect: ExpectPeer,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    if matches!(&expect, ExpectPeer::Ids(ids) if ids.is_empty()) {
        return Err(TlsError::NobodyExpected);
    }
    build(identity, Arc::new(SpiffeVerifier { bundles, expect }), alpn)
}

/// A client of a server that is known by DNS name or IP address: the server name given to the connection must stand in
/// the certificate, and the path must end in one of `roots`. This is how agents and proxies call the control plane, whose
/// certificate carries names beside its SPIFFE ID.
///
/// # Errors
/// A bad ALPN name, or if the library refuses.
pub fn client_config_named(
    identity: Option<&Identity>,
    roots: &TrustBundle,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let mut store = RootCertStore::empty();
    store.roots.extend(roots.anchors().iter().cloned());
    // The builder only fails without roots or with broken revocation lists; a bundle has roots.
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|error| TlsError::Settings(rustls::Error::General(error.to_string())))?;
    build(identity, verifier, alpn)
}

pub(super) fn build(
    identity: Option<&Identity>,
    verifier: Arc<dyn ServerCertVerifier>,
    alpn: &[&[u8]],
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(certified_key(identity)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn_protocols(alpn)?;
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

#[derive(Debug)]
struct SpiffeVerifier {
    bundles: Arc<TrustBundles>,
    expect: ExpectPeer,
}

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        let peer = verify_peer(&chain, &self.bundles, now).map_err(refuse)?;
        self.expect.check(peer.id()).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_provider!();
}
