//! Istio's ztunnel, unmodified, as a client of the authority: the most demanding there is, because it asks on behalf of the
//! workloads of its node. It is asked itself what it holds (`/config_dump`).

#![expect(clippy::indexing_slicing, reason = "tests")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

#[path = "interop_ztunnel/cluster.rs"]
mod cluster;
#[path = "interop_ztunnel/namespace.rs"]
mod namespace;
#[path = "interop_ztunnel/pods.rs"]
mod pods;
#[path = "interop_ztunnel/ztunnel.rs"]
mod ztunnel;

use cluster::Cluster;
use palisade_tests::mesh::TRUST_DOMAIN;
use pods::{Cni, Pods};
use ztunnel::Ztunnel;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const DB: &str = "spiffe://cluster.local/ns/shop/sa/db";

#[test]
fn ztunnel_gets_the_certificates_of_its_node_and_renews_them() -> Result<()> {
    const TEST: &str = "ztunnel_gets_the_certificates_of_its_node_and_renews_them";
    let Some(binary) = ztunnel::binary(TEST) else { return Ok(()) };
    if !namespace::inside(TEST)? {
        return Ok(());
    }
    let cluster = Cluster::start(&[("web", "10.0.0.1", "worker-1"), ("db", "10.0.0.2", "worker-1")], "8s")?;
    let told = [("web", "10.0.0.1", TRUST_DOMAIN), ("db", "10.0.0.2", TRUST_DOMAIN)];
    let mut ztunnel = Ztunnel::start(&binary, &cluster, &told)?;
    for id in [WEB, DB] {
        let held = ztunnel.certificate(&cluster, id)?;
        assert_eq!(held.peer.id().as_str(), id);
        assert_eq!((held.chain.len(), held.roots.len()), (2, 1), "leaf and intermediate; the root apart");
        assert!(!held.chain.contains(&held.roots[0]));
    }
    let first = ztunnel.certificate(&cluster, WEB)?;
    assert_eq!(ztunnel.renewed(&cluster, &first)?.peer.id().as_str(), WEB);
    Ok(())
}

#[test]
fn ztunnel_says_what_it_is_refused() -> Result<()> {
    const TEST: &str = "ztunnel_says_what_it_is_refused";
    let Some(binary) = ztunnel::binary(TEST) else { return Ok(()) };
    if !namespace::inside(TEST)? {
        return Ok(());
    }
    let cluster = Cluster::start(&[("web", "10.0.0.1", "worker-1"), ("bank", "10.0.0.2", "worker-2")], "60s")?;
    let told =
        [("web", "10.0.0.1", TRUST_DOMAIN), ("bank", "10.0.0.2", TRUST_DOMAIN), ("far", "10.0.0.3", "other.example")];
    let mut ztunnel = Ztunnel::start(&binary, &cluster, &told)?;
    for (id, reason) in [
        ("spiffe://cluster.local/ns/shop/sa/bank", "impersonation-not-on-node"),
        ("spiffe://other.example/ns/shop/sa/far", "impersonation-foreign-trust-domain"),
    ] {
        let state = ztunnel.refused(id)?;
        assert!(state.contains("permission") && state.contains(reason), "{state}");
    }
    ztunnel.certificate(&cluster, WEB)?;
    Ok(())
}

#[test]
fn ztunnel_goes_on_when_its_token_is_good_again() -> Result<()> {
    const TEST: &str = "ztunnel_goes_on_when_its_token_is_good_again";
    let Some(binary) = ztunnel::binary(TEST) else { return Ok(()) };
    if !namespace::inside(TEST)? {
        return Ok(());
    }
    let mut cluster = Cluster::start(&[("web", "10.0.0.1", "worker-1")], "60s")?;
    let token = cluster.project_token("somebody-else")?;
    let mut ztunnel = Ztunnel::start(&binary, &cluster, &[("web", "10.0.0.1", TRUST_DOMAIN)])?;
    let state = ztunnel.refused(WEB)?;
    assert!(state.contains("attestation failed"), "{state}");
    cluster.project_token("istio-ca")?;
    ztunnel.certificate(&cluster, WEB)?;
    for text in [state, ztunnel.log(), cluster.mesh.server()?.log()] {
        assert!(!text.contains(&token), "the token is in {text}");
    }
    Ok(())
}

/// Two pods, one ztunnel, and requests without a pause, every other one with a handshake: none may fail while the root is replaced,
/// nor while the server is away afterwards.
#[test]
fn ztunnel_carries_traffic_through_a_rotation_of_the_root() -> Result<()> {
    const TEST: &str = "ztunnel_carries_traffic_through_a_rotation_of_the_root";
    let Some(binary) = ztunnel::binary(TEST) else { return Ok(()) };
    if !namespace::inside(TEST)? {
        return Ok(());
    }
    let mut cluster = Cluster::start(&[("web", "10.0.0.1", "worker-1"), ("db", "10.0.0.2", "worker-1")], "12s")?;
    let (pods, cni) = (Pods::new()?, Cni::listen(&cluster.file("cni.sock"))?);
    let told = [("web", "10.0.0.1", TRUST_DOMAIN), ("db", "10.0.0.2", TRUST_DOMAIN)];
    let mut ztunnel = Ztunnel::start(&binary, &cluster, &told)?;
    let _conversation = pods.hand_over(&cni)?;
    pods.until_served();
    let old = ztunnel.certificate(&cluster, WEB)?;

    let rotate = cluster.mesh.palisade(&["ca", "rotate", "--auto"])?;
    ensure!(rotate.status.success(), "{}", String::from_utf8_lossy(&rotate.stderr));
    let (began, mut requests) = (Instant::now(), 0);
    let new = loop {
        requests += 1;
        pods.request().map_err(|error| error.context(format!("request {requests}; log:\n{}", ztunnel.log())))?;
        let held = ztunnel.certificate(&cluster, WEB)?;
        if held.roots.len() == 1 && held.roots != old.roots {
            break held;
        }
        ensure!(began.elapsed() < Duration::from_secs(120), "{requests} requests, and {} roots", held.roots.len());
    };
    assert!(new.chain[1] != old.chain[1], "signed by the new authority");
    let log = ztunnel.log();
    let (web, db) = (format!("src.identity={WEB:?}"), format!("dst.identity={DB:?}"));
    assert!(log.contains(&web) && log.contains(&db), "{log}");
    assert!(!log.contains("certificate renewal failed") && !log.contains("handshake error"), "{log}");

    // It has to connect anew, and only the agent's file tells it of the root that is left.
    cluster.mesh.server()?.kill_9()?;
    pods.request()?;
    cluster.mesh.start_server()?;
    ztunnel.renewed(&cluster, &new)?;
    pods.request()
}
