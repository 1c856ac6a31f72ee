//! What a cluster would say to the authority and to ztunnel: tokens, who runs where, which roots hold.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use palisade_tests::mesh::{Agent, Mesh};
use palisade_tests::poll;
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const CA_YAML: &str = "attestors:
  kubernetes:
    issuer: https://kubernetes.default.svc.cluster.local
    jwks: jwks.json
    trustedNodeAccounts: [istio-system/ztunnel]
";

/// The node of the ztunnel.
pub(crate) const NODE: &str = "worker-1";

/// A server that believes the cluster's tokens, and the files that a pod of ztunnel has: its token, and the roots that an agent
/// of ours keeps up to date.
pub(crate) struct Cluster {
    pub(crate) mesh: Mesh,
    issuer: KeyPair,
    _agent: Agent,
}

impl Cluster {
    /// `workloads` are account (and name) in the namespace `shop`, address and node each; no certificate lasts longer than `life`.
    pub(crate) fn start(workloads: &[(&str, &str, &str)], life: &str) -> Result<Self> {
        let issuer = KeyPair::generate()?;
        let entries: Vec<String> = workloads.iter().map(|(name, address, node)| entry(name, address, node)).collect();
        let files = [("ca.yaml", CA_YAML), ("jwks.json", &jwks(&issuer)?), ("workloads.yaml", &entries.join("---\n"))];
        let mut mesh = Mesh::new(&files)?;
        mesh.server_flags = ["--leaf-ttl", life, "--max-leaf-ttl", life].map(str::to_owned).into();
        mesh.start_server()?;
        let trust = mesh.path().join("ztunnel/trust");
        fs::create_dir_all(&trust)?;
        mesh.flags = ["--write-svid", &trust.to_string_lossy()].map(str::to_owned).into();
        let agent = mesh.start_agent("infra", "node")?;
        mesh.flags.clear();
        poll("the agent's files", || fs::read(trust.join("bundle.pem")));
        let cluster = Self { mesh, issuer, _agent: agent };
        cluster.project_token("istio-ca")?;
        Ok(cluster)
    }

    /// Puts a fresh token into ztunnel's pod, as the kubelet does; also returns it.
    pub(crate) fn project_token(&self, audience: &str) -> Result<String> {
        let token = token(&self.issuer, audience)?;
        fs::write(self.file("token"), &token)?;
        Ok(token)
    }

    /// A path in the directory of the pod.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.mesh.path().join("ztunnel").join(name)
    }

    /// Every root that the bundle has now, as PEM.
    pub(crate) fn roots(&self) -> Result<Vec<String>> {
        let journal: Value = serde_json::from_slice(&fs::read(self.mesh.path().join("server/ca/authorities.json"))?)?;
        let authorities = journal["authorities"].as_array().context("no authorities")?;
        let roots = authorities.iter().filter_map(|authority| authority["roots"].as_array()).flatten();
        Ok(roots.filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

fn entry(name: &str, address: &str, node: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{address: {address}, serviceAccount: {name}, labels: {{kubernetes.io/hostname: {node}}}}}\n"
    )
}

/// The keys of the cluster's token issuer.
fn jwks(key: &KeyPair) -> Result<String> {
    let (x, y) = key.der_bytes().get(1..).context("a point")?.split_at(32);
    let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
    Ok(json!({"keys": [{"kty": "EC", "use": "sig", "kid": "k", "crv": "P-256", "x": x, "y": y}]}).to_string())
}

fn token(key: &KeyPair, audience: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": [audience], "iat": now, "nbf": now, "exp": now + 3_600,
        "sub": "system:serviceaccount:istio-system:ztunnel",
        "kubernetes.io": {
            "namespace": "istio-system", "serviceaccount": {"name": "ztunnel", "uid": "2b4e"},
            "pod": {"name": "ztunnel-x7", "uid": "9d1c"}, "node": {"name": NODE, "uid": "77aa"},
        },
    });
    let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::ES256) };
    Ok(encode(&header, &claims, &EncodingKey::from_ec_der(&key.serialize_der()))?)
}
