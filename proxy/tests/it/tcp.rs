//! Opaque connections: half-closed, reset, server-first, denied, and cut when policy changes.

use std::time::{Duration, Instant};

use palisade_authz::Verdict;
use palisade_policies::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::App;
use crate::client::{mtls, plain};
use crate::world::{CLOSED, Cast, OPEN, World, inbound_to};

#[tokio::test]
async fn a_half_closed_connection_still_answers() {
    let app = App::of(|mut tcp| async move {
        let mut all = Vec::new();
        tcp.read_to_end(&mut all).await?;
        tcp.write_all(&vec![b'x'; 1 << 20]).await?;
        tcp.shutdown().await
    })
    .await;
    let cast = Cast::new();
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Tcp)), cast.cart(), Some(OPEN));
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let mut tls = mtls(world.address(), &web, &[b"istio"]).await.unwrap();
    tls.write_all(b"question").await.unwrap();
    tls.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), 1 << 20);
    let record = &world.records.wait(1).await[0];
    assert_eq!((record.facts.protocol, record.verdict), ("tcp", Verdict::Allow));
    assert_eq!(record.facts.source.principal.as_deref(), Some("cluster.local/ns/shop/sa/web"));
}

#[tokio::test]
async fn a_reset_stays_a_reset() {
    let app = App::of(|mut tcp| async move {
        let mut one = [0; 1];
        tcp.read_exact(&mut one).await?;
        tcp.write_all(b"half an ans").await?;
        tcp.read_exact(&mut one).await?;
        tcp.set_zero_linger()
    })
    .await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Tcp)), Cast::new().cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    client.send("?").await;
    let mut half = [0; 11];
    client.io.read_exact(&mut half).await.unwrap();
    client.send("!").await;
    assert_eq!(client.rest().await, Err(std::io::ErrorKind::ConnectionReset));
}

/// Trap 43, answered more strictly: Envoy lets the banner out and closes when the client speaks.
#[tokio::test]
async fn trap_43_who_is_denied_does_not_even_hear_a_server_that_speaks_first() {
    let app = App::of(|mut tcp| async move { tcp.write_all(b"220 ready\r\n").await }).await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Tcp)), Cast::new().cart(), Some(CLOSED));
    let mut client = plain(world.address()).await;
    assert_eq!(client.rest().await, Err(std::io::ErrorKind::ConnectionReset));
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(world.records.wait(1).await[0].verdict, Verdict::Deny);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_at_once() {
    let app = App::of(|mut tcp| async move {
        tcp.write_all(b"220 ready\r\n").await?;
        let mut all = Vec::new();
        tcp.read_to_end(&mut all).await?;
        Ok(())
    })
    .await;
    let cast = Cast::new();
    let mut config = inbound_to(app.address, None);
    config.limits.detect_timeout = Duration::from_millis(100);
    let world = World::start(&config, cast.cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    let began = Instant::now();
    let mut banner = [0; 11];
    client.io.read_exact(&mut banner).await.unwrap();
    assert_eq!(&banner, b"220 ready\r\n");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_denied_connection_never_reaches_the_application() {
    let app = App::echo().await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Tcp)), Cast::new().cart(), Some(CLOSED));
    let mut client = plain(world.address()).await;
    client.send("hello").await;
    assert!(!matches!(client.rest().await, Ok(bytes) if !bytes.is_empty()));
    let record = &world.records.wait(1).await[0];
    assert_eq!((record.reason, record.verdict, record.facts.protocol), ("no-allow-matched", Verdict::Deny, "tcp"));
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_policy_change_ends_what_it_denies_and_nothing_else() {
    let (app, cast) = (App::echo().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Tcp)), cast.cart(), Some(OPEN));
    let (web, ops) =
        (cast.authority.identity("shop", "web", 3600, &[]), cast.authority.identity("shop", "ops", 3600, &[]));
    let mut web = mtls(world.address(), &web, &[b"istio"]).await.unwrap();
    let mut ops = mtls(world.address(), &ops, &[b"istio"]).await.unwrap();
    let mut echo = [0; 2];
    for tls in [&mut web, &mut ops] {
        tls.write_all(b"hi").await.unwrap();
        tls.read_exact(&mut echo).await.unwrap();
    }
    world.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no-web, namespace: shop}\n\
         spec:\n  action: DENY\n  rules:\n  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]\n",
    );
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), web.read_to_end(&mut rest)).await.unwrap();
    assert!(ended.is_err() || rest.is_empty());
    ops.write_all(b"on").await.unwrap();
    ops.read_exact(&mut echo).await.unwrap();
    let records = world.records.wait(3).await;
    let cut = records.iter().find(|r| r.reason == "policy-changed").unwrap();
    assert_eq!(cut.verdict, Verdict::Deny);
    assert_eq!(cut.evaluation.policy.as_ref().unwrap().id(), "ns[shop]-policy[no-web]-rule[0]");
    assert!(world.metrics().contains("palisade_proxy_policy_cuts_total 1"));
}

#[tokio::test]
async fn a_busy_port_is_named_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut config = inbound_to(address, None);
    config.inbound[0].listen = address;
    let snapshots = palisade_proxy::Snapshots::new(&config);
    let error = palisade_proxy::Proxy::new(
        &config,
        Cast::new().cart(),
        std::sync::Arc::new(crate::world::Records::default()),
        snapshots.subscribe(),
        std::sync::Arc::new(crate::world::SystemClock),
        &mut prometheus_client::registry::Registry::default(),
    )
    .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&address.to_string()) && text.contains("inbound[0]") && text.contains("choose another port"),
        "{text}"
    );
}
