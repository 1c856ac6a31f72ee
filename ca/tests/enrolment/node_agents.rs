//! A node's proxy (ztunnel) asks for the certificates of the workloads on its node, and for no others.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use palisade_ca::attest::kubernetes::{Bound, KeySource};
use palisade_ca::{Impersonation, NodeWorkloads};
use palisade_identity::SpiffeId;
use palisade_wire::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::{Struct, Value, value::Kind};
use rcgen::KeyPair;
use tonic::{Code, Request, Status};

use crate::harness::{Server, WEB, certificates, csr, identity, web};
use crate::issuer::{Issuer, claims, jwks};
use crate::kubernetes::{now, reviewer};

#[derive(Debug)]
struct Pods(BTreeSet<(&'static str, &'static str, &'static str)>);

impl NodeWorkloads for Pods {
    fn runs(&self, node: &Bound, agent: &Bound, namespace: &str, service_account: &str) -> bool {
        agent.uid == "pod-uid" && self.0.contains(&(node.name.as_str(), namespace, service_account))
    }
}

struct Node {
    server: Server,
    issuer: Issuer,
    _dir: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (issuer, path) = (Issuer::ec("e", "ES256"), dir.path().join("jwks.json"));
        fs::write(&path, jwks(&[&issuer])).unwrap();
        let tokens = reviewer(KeySource::File(path)).await;
        let pods = Pods([("worker-1", "shop", "web"), ("worker-2", "shop", "bank")].into());
        let trusted = [("istio-system".to_owned(), "ztunnel".to_owned())];
        let rule = Impersonation::new(trusted, Arc::new(pods));
        let configure =
            |service: palisade_ca::CaService| service.with_attestor(Box::new(tokens)).with_impersonation(rule);
        Self { server: Server::start_service(configure).await, issuer, _dir: dir }
    }

    /// As ztunnel asks: an empty subject, one URI, 86,400 seconds, its own token.
    async fn ask(
        &self,
        claims: &serde_json::Value,
        wanted: &str,
        key: &KeyPair,
    ) -> Result<IstioCertificateResponse, Status> {
        let value = Value { kind: Some(Kind::StringValue(wanted.into())) };
        let metadata = Some(Struct { fields: [("ImpersonatedIdentity".to_owned(), value)].into() });
        let message = IstioCertificateRequest { csr: csr(key, &[wanted]), validity_duration: 86_400, metadata };
        let mut request = Request::new(message);
        let token = self.issuer.token(claims);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request.metadata_mut().insert("clusterid", "Kubernetes".parse().unwrap());
        self.server.connect(None).send_whole(request).await
    }
}

#[tokio::test]
async fn a_node_agent_gets_the_certificates_of_its_node() {
    let node = Node::start().await;
    let (key, agent) = (KeyPair::generate().unwrap(), claims("istio-system", "ztunnel", now()));
    let answer = node.ask(&agent, WEB, &key).await.unwrap();
    assert_eq!(identity(&answer, &key).svid.id(), &web(), "the ID asked for, one certificate an element, roots last");
    let row = node.server.issued(&web(), 1).await.remove(0);
    assert_eq!(row.attestor, "kubernetes");
    assert!(row.caller.ends_with(" for spiffe://cluster.local/ns/istio-system/sa/ztunnel"), "{}", row.caller);
    assert_eq!(row.not_after - row.issued_at, 86_400);
    let own = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";
    node.ask(&agent, own, &key).await.expect("its own identity is no impersonation");
    node.server.stop().await;
}

/// Trap 16: ztunnel reads one certificate an element, the leaf first. Trap 17: no root in the chain. Trap 18: all roots last.
#[tokio::test]
async fn trap_16_17_18_the_chain_is_packed_as_ztunnel_unpacks_it() {
    let node = Node::start().await;
    let key = KeyPair::generate().unwrap();
    let answer = node.ask(&claims("istio-system", "ztunnel", now()), WEB, &key).await.unwrap();
    let (roots, chain) = answer.cert_chain.split_last().unwrap();
    let bundle = node.server.authority.bundle();
    assert_eq!(certificates(roots), bundle.authorities());
    let chain: Vec<_> = chain.iter().map(|element| certificates(element)).collect();
    assert!(chain.len() == 2 && chain.iter().all(|element| element.len() == 1));
    assert!(chain.iter().flatten().all(|certificate| !bundle.authorities().contains(certificate)));
    assert_eq!(identity(&answer, &key).svid.chain(), chain.concat());
    node.server.stop().await;
}

#[tokio::test]
async fn trap_12_every_condition_of_impersonation_is_checked() {
    let node = Node::start().await;
    let agent = || claims("istio-system", "ztunnel", now());
    let without = |place: &str, field: &str| {
        let mut claims = agent();
        claims.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(field).unwrap();
        claims
    };
    let mut elsewhere = agent();
    elsewhere["kubernetes.io"]["node"]["name"] = "worker-2".into();
    let mut gone = agent();
    gone["kubernetes.io"]["pod"]["uid"] = "an-older-pod".into();
    let other = "spiffe://other.example/ns/shop/sa/web";
    for (claims, wanted, reason) in [
        (claims("shop", "web", now()), "spiffe://cluster.local/ns/shop/sa/bank", "impersonation-not-trusted"),
        (claims("istio-system", "other", now()), WEB, "impersonation-not-trusted"),
        (claims("istio", "ztunnel", now()), WEB, "impersonation-not-trusted"),
        (agent(), "spiffe://cluster.local/ns/shop/sa/bank", "impersonation-not-on-node"),
        (elsewhere, WEB, "impersonation-not-on-node"),
        (gone, WEB, "impersonation-not-on-node"),
        (agent(), other, "impersonation-foreign-trust-domain"),
        (agent(), "spiffe://cluster.local.evil/ns/shop/sa/web", "impersonation-foreign-trust-domain"),
        (agent(), "spiffe://cluster.local/ns/shop/sa/web/x", "impersonation-not-a-workload"),
        (agent(), "spiffe://cluster.local", "impersonation-not-a-workload"),
        (agent(), "spiffe://cluster.local/ns/shop/sa/web/", "impersonation-not-an-id"),
        (without("/kubernetes.io", "node"), WEB, "impersonation-without-node"),
        (without("/kubernetes.io", "pod"), WEB, "impersonation-without-pod"),
        (without("/kubernetes.io/pod", "uid"), WEB, "impersonation-without-pod"),
    ] {
        let status = node.ask(&claims, wanted, &KeyPair::generate().unwrap()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{reason}");
        assert!(status.message().contains(reason), "{}", status.message());
        assert!(node.server.counted(&format!("palisade_ca_refused_total{{reason=\"{reason}\"}}")), "{reason}");
    }
    assert!(node.server.issued(&SpiffeId::parse(WEB).unwrap(), 9).await.is_empty());
    node.server.stop().await;
}
