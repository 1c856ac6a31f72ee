//! The accepting side: our SVID, and a client certificate that is demanded or allowed.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, NoServerSessionStorage};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{TlsError, alpn_protocols, certified_key, provider, refuse, signatures_by_provider};
use crate::{Identity, TrustBundles, VerifyError, verify_peer};

/// Whether a client must show an X.509-SVID. One that is shown is always verified, and a bad one always refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientCertificate {
    /// Without one the handshake fails.
    Required,
    /// Without one the client stays anonymous: [`super::peer`] then says `NoCertificate`.
    Optional,
}

/// A server that shows `identity`'s SVID and verifies client certificates with [`verify_peer`] against `identity`'s bundles. Any
/// ID of any trusted domain passes; who may do what is authorization's business. `alpn` in order of preference.
///
/// # Errors
/// [`TlsError`] for a bad ALPN name or if the library refuses.
pub fn server_config(identity: &Identity, client: ClientCertificate, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let verifier =
        PeerVerifier { bundles: Arc::clone(&identity.bundles), mandatory: client == ClientCertificate::Required };
    build(identity, Arc::new(verifier), alpn)
}

/// A server that shows `identity`'s SVID and never asks a client for a certificate.
///
/// # Errors
/// As [`server_config`].
pub fn server_config_no_client_auth(identity: &Identity, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    build(identity, Arc::new(NoClientAuth), alpn)
}

/// Says at the handshake whether a client's chain may pass. That the client holds the leaf's key is proven besides.
pub trait ClientJudge: std::fmt::Debug + Send + Sync {
    /// Judges the chain, leaf first, at `now`.
    ///
    /// # Errors
    /// The handshake fails with this reason.
    fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), VerifyError>;
}

/// As [`server_config`] with a client certificate that is allowed, judged by somebody else than the identity's bundles: by
/// bundles that change while connections come in, or by other authorities besides.
///
/// # Errors
/// [`TlsError`].
pub fn server_config_judged(
    identity: &Identity,
    judge: Arc<dyn ClientJudge>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    build(identity, Arc::new(JudgedVerifier(judge)), alpn)
}

fn build(identity: &Identity, verifier: Arc<dyn ClientCertVerifier>, alpn: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certified_key(identity));
    config.alpn_protocols = alpn_protocols(alpn)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

#[derive(Debug)]
struct JudgedVerifier(Arc<dyn ClientJudge>);

impl ClientCertVerifier for JudgedVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        self.0.judge(&chain, now).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures_by_provider!();
}

#[derive(Debug)]
struct PeerVerifier {
    bundles: Arc<TrustBundles>,
    mandatory: bool,
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: the names of the roots say whom we trust, and a client that has one SVID needs no hint.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        verify_peer(&chain, &self.bundles, now).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures_by_provider!();
}
