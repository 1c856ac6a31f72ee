//! The control plane and its client on a real loopback connection with real certificates: what an edit of the directory does
//! to a proxy, and what a failure of either side does not do.
#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "control_xds/identity.rs"]
mod identity;
#[path = "control_xds/mesh.rs"]
mod mesh;
#[path = "control_xds/outages.rs"]
mod outages;
#[path = "control_xds/protocol.rs"]
mod protocol;

use std::time::Instant;

use mesh::{CART, Mesh, policy};

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_reaches_the_proxy() {
    let mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let mut proxy = mesh.proxy(CART);
    proxy.until_holding("first").await;
    let began = Instant::now();
    mesh.write("shop.yaml", &policy("shop", "second"));
    proxy.until_holding("second").await;
    eprintln!("from the write of the file to the callback of the proxy: {:?}", began.elapsed());
    let revision = proxy.revision();
    let status = mesh.until("the ACK", |status| {
        let proxy = status.proxies.first()?;
        (proxy.acked == revision).then(|| proxy.clone())
    });
    assert_eq!(status.node, "shop/cart-0");
    assert_eq!(status.identity, "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!((status.sent, status.nack), (revision, None));
    assert!(mesh.metric("palisade_xds_pushes_total{outcome=\"ack\"}") >= 2.0);
    assert_eq!(mesh.metric("palisade_xds_connected_proxies"), 1.0);
    assert!(mesh.metric("palisade_config_revisions_total") >= 2.0);
    assert!(mesh.metric("palisade_xds_ack_lag_seconds_count") >= 2.0);
    proxy.stop().await;
    mesh.until("the proxy to be gone", |status| status.proxies.is_empty().then_some(()));
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_elsewhere_pushes_nothing() {
    let mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first")), ("bank.yaml", &policy("bank", "one"))]).await;
    let mut proxy = mesh.proxy(CART);
    proxy.until_holding("first").await;
    mesh.write("bank.yaml", &policy("bank", "two"));
    mesh.until("the edit to be in force", |status| {
        let documents = &status.configuration.as_ref()?.documents;
        documents.iter().any(|one| one.name == "two").then_some(())
    });
    mesh.write("shop.yaml", &policy("shop", "second"));
    proxy.until_holding("second").await;
    assert_eq!(proxy.offers(), 2, "the first snapshot and the edit of its own namespace");
    assert!(!proxy.holds("two"));
    proxy.stop().await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_edit_keeps_the_last_good_and_says_where() {
    let mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let mut proxy = mesh.proxy(CART);
    proxy.until_holding("first").await;
    let broken = policy("shop", "second").replace("action: DENY", "acton: DENY");
    mesh.write("shop.yaml", &broken);
    let problem = mesh.until("the problem", |status| status.problem.clone());
    let text = problem.to_string();
    for part in ["shop.yaml:4", "acton", "fix:"] {
        assert!(text.contains(part), "{part} missing in: {text}");
    }
    assert!(mesh.metric("palisade_config_errors") >= 1.0);
    assert!(mesh.is_ready(), "the last good configuration is served");
    mesh.write("shop.yaml", &policy("shop", "third"));
    proxy.until_holding("third").await;
    assert_eq!(proxy.offers(), 2, "the broken one was never sent");
    mesh.until("no problem", |status| status.problem.is_none().then_some(()));
    assert_eq!(mesh.metric("palisade_config_errors"), 0.0);
    proxy.stop().await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_snapshot_is_reported_and_not_repeated() {
    let mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let mut proxy = mesh.proxy_refusing(CART, "unwanted");
    proxy.until_holding("first").await;
    let good = proxy.revision();
    mesh.write("shop.yaml", &policy("shop", "unwanted"));
    let proxies = mesh.until("the NACK", |status| status.proxies.first().filter(|one| one.nack.is_some()).cloned());
    let nack = proxies.nack.expect("a NACK");
    assert!(nack.message.contains("does not take unwanted"), "{}", nack.message);
    assert_eq!(Some(nack.revision), proxies.sent);
    assert_eq!(proxies.acked, good, "still what it has");
    assert_eq!(proxy.revision(), good);
    assert_eq!(mesh.metric("palisade_xds_pushes_total{outcome=\"nack\"}"), 1.0);
    mesh.write("shop.yaml", &policy("shop", "wanted"));
    proxy.until_holding("wanted").await;
    assert_eq!(proxy.offers(), 3, "the refused one was offered once");
    mesh.until("the NACK to be forgotten", |status| status.proxies.first()?.nack.is_none().then_some(()));
    proxy.stop().await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_edits_ends_in_the_last_one() {
    let mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let mut proxy = mesh.proxy(CART);
    proxy.until_holding("first").await;
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(10));
    for edit in 0..200 {
        ticks.tick().await;
        mesh.write("shop.yaml", &policy("shop", &format!("storm-{edit}")));
        if edit % 3 == 0 {
            mesh.write("extra.yaml", &policy("shop", &format!("extra-{edit}")));
        }
    }
    proxy.until_holding("storm-199").await;
    proxy.until_holding("extra-198").await;
    eprintln!("200 edits in two seconds cost the proxy {} snapshots", proxy.offers() - 1);
    assert!(proxy.offers() < 100, "edits are debounced: {}", proxy.offers());
    let revision = proxy.revision();
    mesh.until("the last ACK", |status| (status.proxies.first()?.acked == revision).then_some(()));
    proxy.stop().await;
    mesh.stop().await;
}
