//! Certificates for Envoy and its clients, and clients that show one.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use palisade_tests::http::Answer;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A certificate authority of one trust domain.
pub(crate) struct Authority {
    domain: &'static str,
    root: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(domain: &'static str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).unwrap();
        Self { domain, root, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, path: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = format!("spiffe://{}/{path}", self.domain);
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names =
            vec![SanType::URI(uri.try_into().unwrap()), SanType::DnsName("localhost".try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Envoy's side: a certificate of its own, and a client's where one is shown.
    pub(crate) fn downstream(&self) -> Value {
        let (certificate, key) = self.issue("ns/shop/sa/guard");
        json!({ "name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_certificates": [{
                    "certificate_chain": { "inline_string": certificate.pem() },
                    "private_key": { "inline_string": key.serialize_pem() },
                }],
                "validation_context": { "trusted_ca": { "inline_string": self.root.pem() } },
            },
        } })
    }
}

/// A client with an identity, or with none.
pub(crate) struct Identified(Arc<ClientConfig>);

impl Identified {
    pub(crate) fn new(authority: &Authority, path: Option<&str>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(palisade_identity::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match path {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let (certificate, key) = authority.issue(path);
                let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Self(Arc::new(config))
    }

    /// `METHOD path` with more header lines, on a connection of its own.
    pub(crate) fn request(&self, address: SocketAddr, line: &str, fields: &str) -> Result<Answer> {
        let text =
            format!("{line} HTTP/1.1\r\nHost: catalog.shop\r\nContent-Length: 0\r\nConnection: close\r\n{fields}\r\n");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let bytes = runtime.block_on(async {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.0));
            let tcp = tokio::net::TcpStream::connect(address).await?;
            let mut stream = connector.connect(ServerName::try_from("localhost")?, tcp).await?;
            stream.write_all(text.as_bytes()).await?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await?;
            Ok::<_, anyhow::Error>(bytes)
        })?;
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").context("no end of the head")?;
        let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = line.split(' ').nth(1).context("no status")?.parse()?;
        Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
    }
}
