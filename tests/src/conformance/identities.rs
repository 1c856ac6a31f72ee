//! Certificates for callers that prove who they are, and the server's own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, IsCa, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};

/// One authority and the certificates that it issued so far.
pub(super) struct Identities {
    authority: CertifiedIssuer<'static, KeyPair>,
    server: (String, String),
    clients: Mutex<HashMap<Option<String>, Arc<ClientConfig>>>,
}

impl Identities {
    /// A new authority with one certificate for the server.
    ///
    /// # Errors
    /// When a key or a certificate cannot be made.
    pub(super) fn new() -> Result<Self> {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(root, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["server.test".to_owned()])?.signed_by(&key, &authority)?;
        let server = (certificate.pem(), key.serialize_pem());
        Ok(Self { authority, server, clients: Mutex::default() })
    }

    /// The transport socket that ends TLS and asks for a client certificate.
    pub(super) fn transport_socket(&self) -> Value {
        let inline = |text: &str| json!({ "inlineString": text });
        json!({ "name": "envoy.transport_sockets.tls", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "requireClientCertificate": false,
            "disableStatelessSessionResumption": true,
            "disableStatefulSessionResumption": true,
            "commonTlsContext": {
                "tlsCertificates": [{
                    "certificateChain": inline(&self.server.0),
                    "privateKey": inline(&self.server.1),
                }],
                "validationContext": { "trustedCa": inline(&self.authority.pem()) },
            },
        } })
    }

    /// What a caller with this SPIFFE ID (without the scheme) connects with; `None` shows no certificate.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub(super) fn client(&self, principal: Option<&str>) -> Result<Arc<ClientConfig>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = principal.map(str::to_owned);
        if let Some(config) = clients.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(principal)?);
        clients.insert(key, Arc::clone(&config));
        Ok(config)
    }

    fn make(&self, principal: Option<&str>) -> Result<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer));
        let Some(principal) = principal else { return Ok(builder.with_no_client_auth()) };
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let uri = format!("spiffe://{principal}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().context("a SPIFFE ID is ASCII")?)];
        let certificate = params.signed_by(&key, &self.authority)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        Ok(builder.with_client_auth_cert(vec![certificate.der().clone()], key)?)
    }
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identities").finish_non_exhaustive()
    }
}

/// The oracle is a child of this process on loopback: whom it shows does not matter.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
