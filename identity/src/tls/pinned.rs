//! First contact: a client that knows nothing of a trust domain but the hash of its root.
//!
//! A join token carries that hash. The server shows its chain with the root at the end, the client compares the hash and only then
//! takes the root for an anchor, so a stranger in the middle is refused before anything is sent to it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::client::build;
use super::{PROVIDER, TlsError, refuse, signatures_by_provider};
use crate::VerifyError;
use crate::bundle::{read_authority, sha256};
use crate::verify::check_size;

/// A client without identity that trusts exactly the root with this SHA-256 (of its DER). The presented chain must hold it
/// and lead to it, and the server name given to the connection must stand in the leaf.
///
/// # Errors
/// A bad ALPN name, or if the library refuses.
pub fn client_config_pinned(root_sha256: [u8; 32], alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
    build(None, Arc::new(PinnedVerifier { root_sha256 }), alpn)
}

#[derive(Debug)]
struct PinnedVerifier {
    root_sha256: [u8; 32],
}

impl PinnedVerifier {
    fn pinned_root(&self, certificates: &[CertificateDer<'_>], now: UnixTime) -> Result<RootCertStore, VerifyError> {
        // Anywhere in the chain: while its root is replaced a server shows the ways to the old one and to the new one.
        let root = certificates.iter().find(|root| sha256(root) == self.root_sha256);
        let root = root.ok_or(VerifyError::RootNotPinned)?;
        let (rule, anchor) = read_authority(root).map_err(VerifyError::Intermediate)?;
        if !rule.window.contains(now) {
            return Err(VerifyError::AuthorityDates);
        }
        Ok(RootCertStore { roots: vec![anchor] })
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        check_size(intermediates).map_err(refuse)?;
        let roots = self.pinned_root(intermediates, now).map_err(refuse)?;
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, algorithms)?;
        verify_server_name(&leaf, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_provider!();
}
