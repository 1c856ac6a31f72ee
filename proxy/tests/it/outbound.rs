//! The application's own calls: found in the registry, sent over mTLS to exactly the workload expected.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use palisade_policies::AppProtocol;

use crate::app::App;
use crate::certificates::{Authority, Source, until};
use crate::client::plain;
use crate::world::{Cast, OPEN, WEB_READS, World, inbound_to, mode, outbound_to};

/// A registry in which `cart.shop` is served by these addresses, in the mesh or not.
pub(crate) fn registry(addresses: &[SocketAddr], mesh: bool, protocol: &str) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: cart, namespace: shop}}\nspec:\n  \
         hosts: [cart.shop]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  \
         ports: [{{number: 80, name: main, protocol: {protocol}}}]\n  endpoints:\n"
    );
    for address in addresses {
        let label = if mesh { "istio" } else { "disabled" };
        text += &format!(
            "  - address: {}\n    ports: {{main: {}}}\n    serviceAccount: cart\n    labels: {{security.istio.io/tlsMode: {label}}}\n",
            address.ip(),
            address.port()
        );
    }
    text
}

struct Pair {
    _app: App,
    cast: Cast,
    inbound: World,
    outbound: World,
}

async fn pair(policies: &str) -> Pair {
    let (app, cast) = (App::mirror().await, Cast::new());
    let inbound = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(policies));
    let web = Source::of(cast.authority.identity("shop", "web", 3600, &[]));
    let registry = registry(&[inbound.address()], true, "HTTP");
    let outbound = World::start(&outbound_to("cart.shop", 80), web, Some(&registry));
    Pair { _app: app, cast, inbound, outbound }
}

#[tokio::test]
async fn two_proxies_carry_identity_from_end_to_end() {
    let pair = pair(&format!("{WEB_READS}---{}", mode("STRICT"))).await;
    let mut client = plain(pair.outbound.address()).await;
    let forged = client.ask("GET /a HTTP/1.1\r\nHost: cart.shop\r\nX-Forwarded-Client-Cert: URI=forged\r\n\r\n").await;
    assert_eq!(forged.status, 200, "{forged:?}");
    let seen = forged.body.to_ascii_lowercase();
    assert!(seen.contains("uri=spiffe://cluster.local/ns/shop/sa/web") && !seen.contains("forged"), "{seen}");
    let denied = client.ask("POST /refund HTTP/1.1\r\nHost: cart.shop\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((denied.status, denied.body.as_str()), (403, "RBAC: access denied"));
    assert_eq!(pair.inbound.records.wait(2).await.len(), 2);
    assert!(pair.outbound.records.all().is_empty(), "decisions are the other side's");
    let metrics = pair.inbound.metrics();
    assert!(
        metrics.contains("palisade_mtls_connections_total{security=\"mtls\",direction=\"inbound\"} 1"),
        "one pooled connection: {metrics}"
    );
}

#[tokio::test]
async fn certificates_rotate_on_both_sides_without_a_failed_request() {
    let pair = pair(OPEN).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = Vec::new();
    for n in 0..4 {
        let (stop, answered, address) = (stop.clone(), answered.clone(), pair.outbound.address());
        callers.push(tokio::spawn(async move {
            let mut client = plain(address).await;
            while !stop.load(Ordering::Relaxed) {
                let request = if n == 0 {
                    "POST / HTTP/1.1\r\nHost: c\r\nContent-Length: 2\r\n\r\nhi"
                } else {
                    "GET / HTTP/1.1\r\nHost: c\r\n\r\n"
                };
                let answer = client.ask(request).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for round in 0..6 {
        let mark = answered.load(Ordering::Relaxed);
        let (world, account) = if round % 2 == 0 { (&pair.inbound, "cart") } else { (&pair.outbound, "web") };
        world.source.rotate(pair.cast.authority.identity("shop", account, 3600, &[]));
        until("traffic after the rotation", || match answered.load(Ordering::Relaxed) {
            now if now >= mark + 100 => Ok(()),
            now => Err(format!("{now} of {}", mark + 100)),
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_with_another_identity_is_not_spoken_to() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let impostor = Source::of(cast.authority.identity("shop", "impostor", 3600, &[]));
    let inbound = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), impostor, Some(OPEN));
    let web = Source::of(cast.authority.identity("shop", "web", 3600, &[]));
    let outbound =
        World::start(&outbound_to("cart.shop", 80), web, Some(&registry(&[inbound.address()], true, "HTTP")));
    let answer = plain(outbound.address()).await.get("/").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "upstream-tls"));
    assert!(inbound.records.all().iter().all(|r| r.facts.http.is_none()), "no request reached it");
}

#[tokio::test]
async fn workloads_outside_the_mesh_are_called_in_plaintext() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let outbound =
        World::start(&outbound_to("cart.shop", 80), cast.cart(), Some(&registry(&[app.address], false, "HTTP")));
    let answer = plain(outbound.address()).await.get("/a/../b").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("GET /a/../b HTTP/1.1"), "the path is the server's to read: {answer:?}");
}

#[tokio::test]
async fn another_endpoint_is_tried_when_one_is_down() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let down = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outbound =
        World::start(&outbound_to("cart.shop", 80), cast.cart(), Some(&registry(&[down, app.address], false, "HTTP")));
    for _ in 0..10 {
        let mut client = plain(outbound.address()).await;
        let answer = client.ask("POST / HTTP/1.1\r\nHost: c\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn an_unknown_service_is_503() {
    let outbound = World::start(&outbound_to("nowhere.shop", 80), Cast::new().cart(), Some(OPEN));
    let answer = plain(outbound.address()).await.get("/").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "no-endpoint"));
}

#[tokio::test]
async fn opaque_services_travel_over_mtls_too() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (app, cast) = (App::echo().await, Cast::new());
    let inbound = World::start(&inbound_to(app.address, Some(AppProtocol::Tcp)), cast.cart(), Some(&mode("STRICT")));
    let web = Source::of(cast.authority.identity("shop", "web", 3600, &[]));
    let outbound = World::start(&outbound_to("cart.shop", 80), web, Some(&registry(&[inbound.address()], true, "TCP")));
    let mut client = plain(outbound.address()).await;
    client.io.write_all(b"over and back").await.unwrap();
    client.io.shutdown().await.unwrap();
    let mut back = String::new();
    client.io.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "over and back");
    assert_eq!(
        inbound.records.wait(1).await[0].facts.source.principal.as_deref(),
        Some("cluster.local/ns/shop/sa/web")
    );
}

#[tokio::test]
async fn waiting_makes_no_bytes_of_a_service_that_speaks_http() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let mut config = outbound_to("cart.shop", 80);
    config.limits.idle_timeout = std::time::Duration::from_millis(50);
    let web = Source::of(cast.authority.identity("shop", "web", 3600, &[]));
    let outbound = World::start(&config, web, Some(&registry(&[app.address], false, "HTTP")));
    let mut client = plain(outbound.address()).await;
    assert_eq!(client.rest().await, Ok(vec![]), "nothing is carried");
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_root_that_is_not_ours_cannot_vouch_for_our_names() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let forger = Authority::new("cluster.local");
    let inbound = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(&mode("STRICT")));
    let forged = Source::of(Arc::new(palisade_identity::Identity {
        svid: Arc::new(forger.issue("shop", "web", 3600)),
        bundles: cast.authority.identity("a", "b", 60, &[]).bundles.clone(),
    }));
    let outbound =
        World::start(&outbound_to("cart.shop", 80), forged, Some(&registry(&[inbound.address()], true, "HTTP")));
    assert_eq!(plain(outbound.address()).await.get("/").await.status, 503);
    assert_eq!(inbound.records.wait(1).await[0].reason, "peer-invalid");
}
