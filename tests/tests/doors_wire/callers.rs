//! Hostile and honest callers: of the certificate authority, and of a proxy's inbound port.

use std::net::SocketAddr;
use std::sync::Arc;

use palisade_identity::tls::{self, ExpectPeer};
use palisade_identity::{Identity, PrivateKey, SpiffeId, TrustBundle, TrustBundles, TrustDomain, X509Svid};
use palisade_wire::channel;
use palisade_wire::istio_ca::istio_certificate_service_client::IstioCertificateServiceClient;
use palisade_wire::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A client of `CreateCertificate`.
pub(crate) struct Caller(IstioCertificateServiceClient<Channel>);

impl Caller {
    /// Knows of the server only the hash in its token.
    pub(crate) fn pinned(server: SocketAddr, token: &str) -> Self {
        let hex = token.rsplit('.').next().unwrap();
        let hash = std::array::from_fn(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap());
        let config = tls::client_config_pinned(hash, &[b"h2"]).unwrap();
        Self::over(server, config)
    }

    /// Shows a certificate.
    pub(crate) fn with(server: SocketAddr, identity: &Identity) -> Self {
        let roots = identity.bundles.get("cluster.local").unwrap();
        Self::over(server, tls::client_config_named(Some(identity), roots, &[b"h2"]).unwrap())
    }

    fn over(server: SocketAddr, config: rustls::ClientConfig) -> Self {
        let channel = channel::tls(&server.to_string(), "localhost", Arc::new(config)).unwrap();
        Self(IstioCertificateServiceClient::new(channel))
    }

    pub(crate) async fn ask(
        &mut self,
        csr: &str,
        seconds: i64,
        token: Option<&str>,
    ) -> Result<IstioCertificateResponse, Status> {
        let message = IstioCertificateRequest { csr: csr.into(), validity_duration: seconds, metadata: None };
        let mut request = Request::new(message);
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        self.0.create_certificate(request).await.map(tonic::Response::into_inner)
    }
}

/// A request for these URIs.
pub(crate) fn csr(key: &KeyPair, uris: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.serialize_request(key).unwrap().pem().unwrap()
}

/// What an agent makes of an answer: the last element is the roots.
pub(crate) fn identity(answer: &IstioCertificateResponse, key: &KeyPair) -> Identity {
    let (roots, chain) = answer.cert_chain.split_last().unwrap();
    let chain = chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).collect();
    let bundle = TrustBundle::from_pem(TrustDomain::parse("cluster.local").unwrap(), roots.as_bytes()).unwrap();
    let key = PrivateKey::from_pkcs8_der(key.serialize_der()).unwrap();
    let bundles = Arc::new(TrustBundles::from_iter([bundle]));
    Identity { svid: Arc::new(X509Svid::new(chain, key).unwrap()), bundles }
}

/// An authority that nobody in the mesh trusts, though it says the same names.
pub(crate) struct Foreign(CertifiedIssuer<'static, KeyPair>);

impl Foreign {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "root");
        params.subject_alt_names = vec![SanType::URI("spiffe://cluster.local".try_into().unwrap())];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `id`, held by somebody who trusts `bundles`.
    pub(crate) fn identity(&self, id: &str, bundles: &Arc<TrustBundles>) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKey::from_pkcs8_der(key.serialize_der()).unwrap();
        let svid = X509Svid::new(vec![leaf.der().clone()], key).unwrap();
        Identity { svid: Arc::new(svid), bundles: Arc::clone(bundles) }
    }
}

/// Connects to payments' inbound port as a proxy would, and sends one request.
pub(crate) async fn handshake_and_get(inbound: SocketAddr, identity: &Identity) -> std::io::Result<String> {
    let payments = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/payments").unwrap();
    let (bundles, expect) = (Arc::clone(&identity.bundles), ExpectPeer::Ids(vec![payments]));
    let config = tls::client_config(Some(identity), bundles, expect, &[b"istio-http/1.1", b"istio"]).unwrap();
    let stream = tokio::net::TcpStream::connect(inbound).await?;
    let name = ServerName::try_from("payments.shop.svc.cluster.local").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    // With TLS 1.3 the client learns of a refusal only when it reads.
    stream
        .write_all(b"GET /warm HTTP/1.1\r\nHost: payments.shop.svc.cluster.local\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
