//! The real server, which also believes a cluster's tokens, and callers of Istio's certificate API that say what they like.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_identity::{Identity, PrivateKey, TrustBundle, TrustBundles, TrustDomain, X509Svid, tls};
use palisade_tests::http;
use palisade_tests::mesh::{Mesh, TRUST_DOMAIN};
use palisade_wire::channel;
use palisade_wire::istio_ca::istio_certificate_service_client::IstioCertificateServiceClient;
use palisade_wire::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Request, Status};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Counts the servers of this process: each gets a loopback address of its own, so that its ports are free over a restart.
static SERVERS: AtomicU8 = AtomicU8::new(0);

/// A server and its cluster.
pub(crate) struct Ca {
    pub(crate) mesh: Mesh,
    cluster: EcdsaKeyPair,
}

/// A caller that keeps its connection.
#[derive(Clone)]
pub(crate) struct Caller(IstioCertificateServiceClient<Channel>);

impl Ca {
    /// Starts the server after `bend` has prepared the mesh.
    pub(crate) fn start(bend: impl FnOnce(&mut Mesh)) -> Self {
        let cluster = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = cluster.public_key().as_ref()[1..].split_at(32);
        let key = json!({"kty": "EC", "kid": "c", "crv": "P-256", "x": encode(x), "y": encode(y)});
        let mut mesh = Mesh::new(&[]).unwrap();
        let [.., high, low] = std::process::id().to_be_bytes();
        let third = low.wrapping_add(SERVERS.fetch_add(1, Ordering::Relaxed).wrapping_mul(37));
        mesh.host = format!("127.{}.{third}.77", 1 + high % 254);
        let jwks = mesh.path().join("jwks.json");
        std::fs::write(&jwks, json!({"keys": [key]}).to_string()).unwrap();
        let settings = format!(
            "attestors: {{kubernetes: {{issuer: '{ISSUER}', jwks: '{}', audiences: [istio-ca]}}}}\n",
            jwks.display()
        );
        mesh.write_config("ca.yaml", &settings).unwrap();
        bend(&mut mesh);
        mesh.start_server().unwrap();
        Self { mesh, cluster }
    }

    /// What the kubelet's token of an account says, `shift` seconds from now.
    pub(crate) fn claims(account: &str, shift: i64) -> Value {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + shift;
        json!({
            "iss": ISSUER, "aud": ["istio-ca"], "iat": now, "nbf": now, "exp": now + 3_600,
            "sub": format!("system:serviceaccount:shop:{account}"),
            "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": account, "uid": "u"}},
        })
    }

    /// A token that the cluster has signed.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": "c"}).to_string();
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.cluster.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encode(signature.as_ref()))
    }

    /// What `palisade ca bundle` prints.
    pub(crate) fn bundle(&self) -> TrustBundle {
        let output = self.mesh.palisade(&["ca", "bundle"]).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        TrustBundle::from_pem(TrustDomain::parse(TRUST_DOMAIN).unwrap(), &output.stdout).unwrap()
    }

    /// A caller with a certificate, or without one.
    pub(crate) fn connect(&self, identity: Option<&Identity>) -> Caller {
        let config = tls::client_config_named(identity, &self.bundle(), &[b"h2"]).unwrap();
        let address = self.mesh.server_address("grpc").unwrap().to_string();
        Caller(IstioCertificateServiceClient::new(channel::tls(&address, "localhost", Arc::new(config)).unwrap()))
    }

    /// An identity by the account's token.
    pub(crate) async fn enrol(&self, account: &str) -> Identity {
        let (key, token) = (KeyPair::generate().unwrap(), self.token(&Self::claims(account, 0)));
        let answer = self.connect(None).ask(&csr(&key, &[]), Some(&token)).await.unwrap();
        identity(&answer, &key)
    }

    /// A caller that renews when it is told to, over and over.
    pub(crate) async fn well_behaved(&self, account: &str) -> WellBehaved {
        let identity = self.enrol(account).await;
        WellBehaved { caller: self.connect(Some(&identity)), csr: csr(&KeyPair::generate().unwrap(), &[]) }
    }

    /// A page of the metrics port: its status and text.
    pub(crate) fn page(&self, path: &str) -> (u16, String) {
        let answer = http::request(self.mesh.server_address("metrics").unwrap(), "GET", path, "localhost").unwrap();
        (answer.status, answer.body)
    }

    /// The value of a counter; 0 while it was never counted.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let (_, page) = self.page("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// How often a request was refused for this reason.
    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.count(&format!("palisade_ca_refused_total{{reason=\"{reason}\"}}"))
    }
}

/// One that renews when it is told to, and must be served every time.
pub(crate) struct WellBehaved {
    caller: Caller,
    csr: String,
}

impl WellBehaved {
    pub(crate) async fn renew(&mut self) {
        self.caller.ask(&self.csr, None).await.unwrap();
    }
}

impl Caller {
    pub(crate) async fn ask(&mut self, csr: &str, token: Option<&str>) -> Result<IstioCertificateResponse, Status> {
        let mut request = Request::new(IstioCertificateRequest { csr: csr.to_owned(), ..Default::default() });
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        self.0.create_certificate(request).await.map(tonic::Response::into_inner)
    }
}

pub(crate) fn csr(key: &KeyPair, uris: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn identity(answer: &IstioCertificateResponse, key: &KeyPair) -> Identity {
    let (roots, chain) = answer.cert_chain.split_last().unwrap();
    let chain = chain.iter().map(|one| CertificateDer::from_pem_slice(one.as_bytes()).unwrap()).collect();
    let bundle = TrustBundle::from_pem(TrustDomain::parse(TRUST_DOMAIN).unwrap(), roots.as_bytes()).unwrap();
    let key = PrivateKey::from_pkcs8_der(key.serialize_der()).unwrap();
    let svid = Arc::new(X509Svid::new(chain, key).unwrap());
    Identity { svid, bundles: Arc::new(TrustBundles::from_iter([bundle])) }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
