//! The server that is measured, and what its callers show.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_identity::{Identity, PrivateKey, TrustBundle, TrustBundles, TrustDomain, X509Svid, tls};
use palisade_wire::channel;
use palisade_wire::istio_ca::istio_certificate_service_client::IstioCertificateServiceClient;
use palisade_wire::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tonic::Request;
use tonic::transport::Channel;

use super::super::cpu;
use crate::mesh::{Mesh, TRUST_DOMAIN};

const ALPN: &[&[u8]] = &[b"h2"];
const NAMESPACE: &str = "shop";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Different requests, used in turn.
const REQUESTS: usize = 64;

/// What a caller shows.
pub(super) enum Credential {
    /// Its certificate, in the handshake.
    Certificate(Identity),
    /// A Kubernetes service account token, with each request.
    Token(String),
}

/// A running server.
pub(super) struct Scene {
    pub(super) mesh: Mesh,
    address: String,
    pid: u32,
    requests: Vec<String>,
    issuer: RsaKeyPair,
    bundle: TrustBundle,
    /// Of callers without a certificate: an agent makes it once, and the load is not to be busy with it.
    anonymous: Arc<rustls::ClientConfig>,
}

impl Scene {
    /// A server that believes tokens of an issuer made here; on core 1 if there is one.
    pub(super) fn start(two_cores: bool) -> Result<Self> {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).ok().context("no RSA key")?;
        let public = PublicKeyComponents::<Vec<u8>>::from(key.public_key());
        let [n, e] = [&public.n, &public.e].map(|number| URL_SAFE_NO_PAD.encode(number));
        let jwks = json!({"keys": [{"kty": "RSA", "kid": "bench", "alg": "RS256", "use": "sig", "n": n, "e": e}]});
        let mut mesh = Mesh::new(&[])?;
        let path = mesh.path().join("jwks.json");
        std::fs::write(&path, jwks.to_string())?;
        // One identity asks for everything here, which admission would rightly slow down.
        let config = format!(
            "attestors:\n  kubernetes: {{issuer: '{ISSUER}', jwks: '{}', audiences: [istio-ca]}}\n\
             admission: {{rate: 1000000, burst: 1000000}}\n",
            path.display()
        );
        mesh.write_config("ca.yaml", &config)?;
        // Pinned before it starts, the server sees one core and starts as many threads as a machine of that size would have.
        if two_cores {
            cpu::pin_self(1)?;
        }
        mesh.start_server()?;
        let pid = mesh.server()?.pid();
        if two_cores {
            cpu::pin_self(0)?;
        }
        let journal = std::fs::read(mesh.path().join("server/ca/authorities.json"))?;
        let journal: serde_json::Value = serde_json::from_slice(&journal)?;
        let root = journal.pointer("/authorities/0/roots/0").and_then(|root| root.as_str()).context("no root")?;
        let roots = vec![CertificateDer::from_pem_slice(root.as_bytes())?];
        let bundle = TrustBundle::new(TrustDomain::parse(TRUST_DOMAIN)?, roots)?;
        Ok(Self {
            anonymous: Arc::new(tls::client_config_named(None, &bundle, ALPN)?),
            address: mesh.server_address("grpc")?.to_string(),
            mesh,
            pid,
            requests: (0..REQUESTS).map(|_| csr(&KeyPair::generate()?)).collect::<Result<_>>()?,
            issuer: key,
            bundle,
        })
    }

    /// Process id of the server.
    pub(super) fn server(&self) -> u32 {
        self.pid
    }

    /// A token of an hour for `system:serviceaccount:shop:<account>`, as the kubelet projects them.
    pub(super) fn token(&self, account: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let claims = json!({
            "iss": ISSUER, "aud": ["istio-ca"], "iat": now, "nbf": now, "exp": now + 3_600,
            "sub": format!("system:serviceaccount:{NAMESPACE}:{account}"),
            "kubernetes.io": {
                "namespace": NAMESPACE,
                "serviceaccount": {"name": account, "uid": "6d1c3f0e-0000-4000-8000-000000000001"},
                "pod": {"name": format!("{account}-0"), "uid": "6d1c3f0e-0000-4000-8000-000000000002"},
            },
        });
        let header = json!({"alg": "RS256", "kid": "bench", "typ": "JWT"});
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.issuer.public_modulus_len()];
        let made = self.issuer.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
        made.ok().context("no signature")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// A certificate for `spiffe://cluster.local/ns/shop/sa/<account>`.
    pub(super) async fn enrol(&self, account: &str) -> Result<Identity> {
        let credential = Credential::Token(self.token(account)?);
        let key = KeyPair::generate()?;
        let mut request = self.request(&credential, 0)?;
        request.get_mut().csr = csr(&key)?;
        let mut client = IstioCertificateServiceClient::new(self.connect(&credential)?);
        identity(&client.create_certificate(request).await?.into_inner(), &key, &self.bundle)
    }

    /// `host:port` of the server.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What a caller's handshake is made with.
    pub(super) fn config(&self, credential: &Credential) -> Result<Arc<rustls::ClientConfig>> {
        Ok(match credential {
            Credential::Certificate(identity) => {
                Arc::new(tls::client_config_named(Some(identity), &self.bundle, ALPN)?)
            }
            Credential::Token(_) => Arc::clone(&self.anonymous),
        })
    }

    /// A channel that has not connected yet.
    pub(super) fn connect(&self, credential: &Credential) -> Result<Channel> {
        Ok(channel::tls(&self.address, "localhost", self.config(credential)?)?)
    }

    /// One of the requests that were made beforehand.
    pub(super) fn request(&self, credential: &Credential, round: usize) -> Result<Request<IstioCertificateRequest>> {
        let csr = self.requests.get(round % REQUESTS).cloned().context("no request")?;
        let mut request = Request::new(IstioCertificateRequest { csr, validity_duration: 0, metadata: None });
        if let Credential::Token(token) = credential {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        request.set_timeout(Duration::from_secs(60));
        Ok(request)
    }
}

fn csr(key: &KeyPair) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.pem()?)
}

fn identity(answer: &IstioCertificateResponse, key: &KeyPair, bundle: &TrustBundle) -> Result<Identity> {
    let (_, chain) = answer.cert_chain.split_last().context("an empty answer")?;
    let chain = chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes())).collect::<Result<_, _>>()?;
    let svid = X509Svid::new(chain, PrivateKey::from_pkcs8_der(key.serialize_der())?)?;
    Ok(Identity { svid: Arc::new(svid), bundles: Arc::new(TrustBundles::from_iter([bundle.clone()])) })
}
