//! The process: an unmodified ztunnel in its shared mode, as Istio runs one on each node.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use palisade_identity::{CertificateDer, TrustBundle, TrustBundles, TrustDomain, UnixTime, VerifiedPeer, verify_peer};
use palisade_tests::mesh::TRUST_DOMAIN;
use palisade_tests::{http, poll, skip};
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::cluster::{Cluster, NODE};

/// Its administration port, which is bound in the test's own namespace.
const ADMIN: ([u8; 4], u16) = ([127, 0, 0, 1], 15_000);

/// The binary; `None` after a reported skip.
pub(crate) fn binary(test: &str) -> Option<PathBuf> {
    let found = std::env::var_os("ZTUNNEL_BIN").map(PathBuf::from);
    if found.is_none() {
        skip(test, "ZTUNNEL_BIN does not name a ztunnel");
    }
    found
}

/// A running ztunnel; killed when dropped.
pub(crate) struct Ztunnel {
    child: Child,
    log: PathBuf,
}

impl Ztunnel {
    /// Starts it for workloads of its node: name (and account), address and trust domain each. It asks for certificates of a day.
    pub(crate) fn start(binary: &Path, cluster: &Cluster, workloads: &[(&str, &str, &str)]) -> Result<Self> {
        let (log, local) = (cluster.file("log"), cluster.file("workloads.yaml"));
        let entries: String =
            workloads.iter().map(|(name, address, domain)| local_entry(name, address, domain)).collect();
        std::fs::write(&local, format!("workloads:\n{entries}"))?;
        let server = cluster.mesh.server_address("grpc")?;
        let child = Command::new(binary)
            .env_clear()
            .env("RUST_LOG", "info")
            .env("CA_ADDRESS", format!("https://localhost:{}", server.port()))
            .env("CA_ROOT_CA", cluster.file("trust/bundle.pem"))
            .env("AUTH_TOKEN", cluster.file("token"))
            .env("CLUSTER_ID", "Kubernetes")
            .env("NODE_NAME", NODE)
            .env("PROXY_MODE", "shared")
            .env("XDS_ADDRESS", "")
            .env("LOCAL_XDS_PATH", &local)
            .env("INPOD_UDS", cluster.file("cni.sock"))
            .env("IPV6_ENABLED", "false")
            // Traffic enters here, so that nobody has to redirect it by packet filter; it leaves from ztunnel's own port.
            .env("UNSTABLE_ENABLE_SOCKS5", "true")
            .env("ENABLE_ORIG_SRC", "false")
            // An idle connection is not kept, so that there are many handshakes.
            .env("POOL_UNUSED_RELEASE_TIMEOUT", "1ms")
            .current_dir(cluster.file(""))
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start ztunnel")?;
        Ok(Self { child, log })
    }

    /// Waits until ztunnel reports an identity in such a way that `pick` finds what it looks for.
    pub(crate) fn until<T>(&mut self, what: &str, id: &str, pick: impl Fn(&Value) -> Option<T>) -> Result<T> {
        poll(what, || match self.reported(id) {
            Ok(state) => pick(&state).map(Ok).ok_or_else(|| state.to_string()),
            Err(error) => match self.child.try_wait() {
                Ok(None) => Err(format!("{error:#}")),
                ended => Ok(Err(error.context(format!("{ended:?}; log:\n{}", self.log())))),
            },
        })
    }

    /// Waits for a certificate of the identity, verified with the roots of the moment.
    pub(crate) fn certificate(&mut self, cluster: &Cluster, id: &str) -> Result<Certificate> {
        let state = self.until("a certificate", id, |state| (state["state"] == "Available").then(|| state.clone()))?;
        Certificate::read(&state, &cluster.roots()?)
    }

    /// Waits until there is none of the identity, and returns why, as ztunnel says it.
    pub(crate) fn refused(&mut self, id: &str) -> Result<String> {
        let why = |state: &Value| {
            state["state"].as_str().and_then(|state| state.strip_prefix("Unavailable: ")).map(str::to_owned)
        };
        self.until("a refusal", id, why)
    }

    /// Waits for the successor of a certificate.
    pub(crate) fn renewed(&mut self, cluster: &Cluster, before: &Certificate) -> Result<Certificate> {
        let id = before.peer.id().to_string();
        let held = |state: &Value| Certificate::read(state, &cluster.roots().ok()?).ok();
        self.until("a renewal", &id, |state| held(state).filter(|held| held.peer.serial() != before.peer.serial()))
    }

    fn reported(&self, id: &str) -> Result<Value> {
        let answer = http::request(ADMIN.into(), "GET", "/config_dump", "localhost")?;
        let dump: Value = serde_json::from_str(&answer.body)?;
        let all = dump["certificates"].as_array().context("no certificates")?;
        let Some(one) = all.iter().find(|one| one["identity"] == id) else { bail!("{id} is not managed: {all:?}") };
        Ok(one.clone())
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What ztunnel holds for one identity.
pub(crate) struct Certificate {
    pub(crate) peer: VerifiedPeer,
    /// Leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The roots by which it judges others.
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

impl Certificate {
    /// Of ztunnel's report; the chain has to end in one of `anchors`.
    fn read(state: &Value, anchors: &[String]) -> Result<Self> {
        let (chain, roots) = (certificates(&state["certChain"])?, certificates(&state["rootCerts"])?);
        let bundle = TrustBundle::from_pem(TrustDomain::parse(TRUST_DOMAIN)?, anchors.concat().as_bytes())?;
        let peer = verify_peer(&chain, &TrustBundles::from_iter([bundle]), UnixTime::now())?;
        Ok(Self { peer, chain, roots })
    }
}

/// PEM in Base64, as the report has them.
fn certificates(list: &Value) -> Result<Vec<CertificateDer<'static>>> {
    let list = list.as_array().context("no certificates")?.iter();
    list.map(|one| {
        let pem = STANDARD.decode(one["pem"].as_str().context("no PEM")?)?;
        Ok(CertificateDer::from_pem_slice(&pem)?)
    })
    .collect()
}

fn local_entry(name: &str, address: &str, domain: &str) -> String {
    format!(
        "- {{uid: 'Kubernetes//Pod/shop/{name}', name: {name}, namespace: shop, serviceAccount: {name}, trustDomain: {domain}, \
         workloadIps: ['{address}'], protocol: HBONE, node: {NODE}, network: '', clusterId: Kubernetes, services: {{}}}}\n"
    )
}
