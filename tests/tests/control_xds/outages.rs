//! Outages, restarts and changes of who may connect.

use crate::mesh::{CART, Mesh, WORKLOADS, Who, policy};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_the_proxy_as_it_was() {
    let mut mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let mut proxy = mesh.proxy(CART);
    proxy.until_holding("first").await;
    mesh.kill().await;
    proxy.until("the loss to be noticed", |status| !status.connected).await;
    assert!(proxy.holds("first"));
    proxy.stop().await;

    // Another life of the proxy, with nobody to ask.
    let mut proxy = mesh.proxy(CART);
    assert!(proxy.holds("first"), "loaded from disk before anything else");
    proxy.until("the failure to be named", |status| status.problem.is_some() && status.from_disk).await;

    mesh.write("shop.yaml", &policy("shop", "second"));
    mesh.serve().await;
    proxy.until_holding("second").await;
    proxy.until("the confirmation", |status| status.connected && !status.from_disk).await;
    proxy.stop().await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnecting_proxy_is_not_sent_what_it_has() {
    let mut mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let mut proxy = mesh.proxy(CART);
    proxy.until_holding("first").await;
    let revision = proxy.revision();
    mesh.until("the ACK", |status| (status.proxies.first()?.acked == revision).then_some(()));
    mesh.stop_server().await;
    proxy.until("the loss to be noticed", |status| !status.connected).await;
    mesh.serve().await;
    proxy.until("the connection", |status| status.connected).await;
    let seen = mesh.until("the proxy", |status| status.proxies.first().cloned());
    assert_eq!((seen.acked, seen.sent), (revision, None), "what it said it has, and nothing sent");
    mesh.write("shop.yaml", &policy("shop", "second"));
    proxy.until_holding("second").await;
    assert_eq!(proxy.offers(), 2);
    assert_eq!(mesh.metric("palisade_xds_pushes_total{outcome=\"nack\"}"), 0.0);
    proxy.stop().await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_vanishes_is_no_permission() {
    let mut mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let mut proxy = mesh.proxy(CART);
    proxy.until_holding("first").await;
    std::fs::rename(mesh.config_dir(), mesh.home.path().join("away")).expect("rename");
    mesh.until("the alarm", |status| status.problem.clone());
    assert!(mesh.metric("palisade_config_errors") >= 1.0);
    let mut late = mesh.start_proxy(CART, "state-late", None);
    late.until_holding("first").await;
    late.stop().await;
    assert!(proxy.holds("first"));
    assert_eq!(proxy.offers(), 1);

    // A server that starts without it has nothing to serve, and says so; the proxy keeps what it has.
    mesh.stop_server().await;
    mesh.serve().await;
    assert!(!mesh.is_ready());
    assert!(mesh.until("the reason", |status| status.problem.clone()).to_string().contains("is not a directory"));
    proxy.until_problem("no valid configuration").await;
    assert!(proxy.holds("first"));
    std::fs::rename(mesh.home.path().join("away"), mesh.config_dir()).expect("rename");
    proxy.until("the connection", |status| status.connected).await;
    assert!(mesh.is_ready());
    proxy.stop().await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_workload_itself_is_served() {
    let mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let strangers = [
        (Some("spiffe://cluster.local/ns/shop/sa/other"), "PermissionDenied"),
        (Some("spiffe://cluster.local/ns/web/sa/cart"), "PermissionDenied"),
        (None, "Unauthenticated"),
    ];
    for (id, code) in strangers {
        let mut proxy = mesh.start_proxy(Who { id, ..CART }, "state-stranger", None);
        proxy.until_problem(code).await;
        assert_eq!(proxy.offers(), 0, "{id:?}");
        proxy.stop().await;
    }
    assert_eq!(mesh.metric("palisade_xds_connected_proxies"), 0.0);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_may_appear_change_its_account_and_go() {
    let mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let late = Who { node: ("shop", "late-0"), ..CART };
    let mut proxy = mesh.proxy(late);
    proxy.until_problem("create a WorkloadEntry `late-0`").await;
    let entry = WORKLOADS.replace("cart-0", "late-0");
    mesh.write("late.yaml", &entry);
    proxy.until_holding("first").await;

    mesh.write("late.yaml", &entry.replace("serviceAccount: cart", "serviceAccount: else"));
    proxy.until_problem("PermissionDenied").await;
    mesh.write("late.yaml", &entry);
    proxy.until("the connection", |status| status.connected).await;
    std::fs::remove_file(mesh.config_dir().join("late.yaml")).expect("remove");
    proxy.until_problem("NotFound").await;
    mesh.until("no stream", |status| status.proxies.is_empty().then_some(()));
    assert!(proxy.holds("first"), "who is no longer known keeps its last good snapshot");
    proxy.stop().await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_on_disk_that_cannot_be_trusted_is_left_out() {
    let mut mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let mut proxy = mesh.proxy(CART);
    proxy.until_holding("first").await;
    let revision = proxy.revision();
    mesh.until("the ACK", |status| (status.proxies.first()?.acked == revision).then_some(()));
    proxy.stop().await;
    mesh.kill().await;
    let file = mesh.home.path().join("state-cart-0/snapshot");
    let mut kept = std::fs::read(&file).expect("an acknowledged snapshot is on disk");
    let word = kept.windows(4).position(|four| four == b"DENY").expect("the policy as it was written");
    kept[word..word + 4].copy_from_slice(b"DEMY");
    std::fs::write(&file, kept).expect("write");
    let proxy = mesh.proxy(CART);
    assert_eq!((proxy.revision(), proxy.offers()), (None, 0));
    proxy.stop().await;
}
