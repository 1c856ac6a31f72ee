//! PeerAuthentication: who is let in how, and what becomes of those inside when it changes.

use std::time::Duration;

use palisade_authz::Verdict;
use palisade_policies::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::App;
use crate::certificates::{Authority, until};
use crate::client::{mtls, plain, sidecar};
use crate::world::{Cast, OPEN, WEB_READS, World, inbound_to, mode};

#[tokio::test]
async fn permissive_lets_both_in_and_names_the_plaintext_caller() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let caller = "
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: legacy, namespace: shop}
spec: {address: 127.0.0.1, labels: {app: legacy}}
";
    let world =
        World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(&format!("{OPEN}{caller}")));
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    assert_eq!(sidecar(world.address(), &web).await.get("/").await.status, 200);
    let mut legacy = plain(world.address()).await;
    assert_eq!(legacy.get("/").await.status, 200);
    assert_eq!(legacy.get("/").await.status, 200);
    let records = world.records.wait(3).await;
    assert_eq!((records[0].facts.transport, records[1].facts.transport), ("mtls", "plaintext"));
    assert_eq!(records[1].facts.source.hint.as_deref(), Some("shop/legacy"));
    assert_eq!(records[1].facts.source.principal, None);
    let status = world.status.status();
    let seen = &status["plaintextCallers"][0];
    assert_eq!(
        (seen["hint"].as_str(), seen["count"].as_u64(), seen["requests"].as_u64()),
        (Some("shop/legacy"), Some(1), Some(2))
    );
    let metrics = world.metrics();
    for security in ["mtls", "plaintext"] {
        let line = format!("palisade_mtls_connections_total{{security=\"{security}\",direction=\"inbound\"}} 1");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn strict_refuses_plaintext_with_a_record() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(&mode("STRICT")));
    let mut legacy = plain(world.address()).await;
    legacy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(legacy.try_answer().await.is_err(), "closed without an answer");
    let record = &world.records.wait(1).await[0];
    assert_eq!(
        (record.reason, record.verdict, record.facts.transport),
        ("strict-plaintext", Verdict::Deny, "plaintext")
    );
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    assert_eq!(sidecar(world.address(), &web).await.get("/").await.status, 200);
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn disable_takes_plaintext_only() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(&mode("DISABLE")));
    assert_eq!(plain(world.address()).await.get("/").await.status, 200);
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    assert!(mtls(world.address(), &web, &[b"istio-http/1.1"]).await.is_err());
}

#[tokio::test]
async fn only_certificates_of_our_trust_domain_that_hold_now() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let foreign = Authority::new("other.test");
    let trusting = cast.authority.identity("shop", "cart", 3600, &[&foreign]);
    let source = crate::certificates::Source::of(trusting);
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), source, Some(&mode("STRICT")));
    let expired = cast.authority.identity("shop", "web", -60, &[]);
    let stranger = foreign.identity("shop", "web", 3600, &[&cast.authority]);
    for (index, identity) in [expired, stranger].into_iter().enumerate() {
        // TLS 1.3: a client learns of the refusal with its first reading.
        if let Ok(mut tls) = mtls(world.address(), &identity, &[b"istio-http/1.1"]).await {
            let _ = tls.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let mut answer = Vec::new();
            let read = tls.read_to_end(&mut answer).await;
            assert!(read.is_err() || answer.is_empty(), "{answer:?}");
        }
        assert_eq!(world.records.wait(index + 1).await[index].reason, "peer-invalid");
    }
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn tls_of_the_application_passes_untouched_under_permissive() {
    let (app, cast) = (App::echo().await, Cast::new());
    let world = World::start(&inbound_to(app.address, None), cast.cart(), Some(OPEN));
    let (_, hello) = client_hello().await;
    let mut client = plain(world.address()).await;
    client.io.write_all(&hello).await.unwrap();
    let mut back = vec![0; hello.len()];
    client.io.read_exact(&mut back).await.unwrap();
    assert_eq!(back, hello);
}

/// A ClientHello without mesh names.
async fn client_hello() -> (tokio::task::JoinHandle<()>, Vec<u8>) {
    let (authority, capture) = (Authority::new("x.test"), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    let identity = authority.identity("a", "b", 60, &[]);
    let address = capture.local_addr().unwrap();
    let dialling = tokio::spawn(async move {
        let _ = mtls(address, &identity, &[b"h2"]).await;
    });
    let (mut tcp, _) = capture.accept().await.unwrap();
    let mut hello = vec![0; 5];
    tcp.read_exact(&mut hello).await.unwrap();
    let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
    tcp.read_exact(&mut rest).await.unwrap();
    hello.extend(rest);
    (dialling, hello)
}

#[tokio::test]
async fn a_handshake_that_never_comes_is_not_waited_for() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let mut config = inbound_to(app.address, Some(AppProtocol::Http));
    config.limits.handshake_timeout = Duration::from_millis(150);
    let world = World::start(&config, cast.cart(), Some(&mode("STRICT")));
    let mut slow = plain(world.address()).await;
    slow.io.write_all(&[22, 3, 1]).await.unwrap();
    assert_eq!(slow.rest().await, Ok(vec![]));
    assert_eq!(world.records.wait(1).await[0].reason, "handshake-failed");
    let mut silent = plain(world.address()).await;
    assert_eq!(silent.rest().await, Ok(vec![]));
}

#[tokio::test]
async fn strict_ends_plaintext_connections_that_are_open() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(OPEN));
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let (mut legacy, mut mesh) = (plain(world.address()).await, sidecar(world.address(), &web).await);
    assert_eq!(legacy.get("/").await.status, 200);
    assert_eq!(mesh.get("/").await.status, 200);
    world.apply(&mode("STRICT"));
    assert!(!matches!(legacy.rest().await, Err(std::io::ErrorKind::TimedOut)), "the idle plaintext connection ends");
    assert_eq!(mesh.get("/").await.status, 200, "the mesh is not disturbed");
    let records = until("the record of the cut", || {
        let all = world.records.all();
        if all.iter().any(|r| r.reason == "policy-changed") { Ok(all) } else { Err(format!("{all:#?}")) }
    })
    .await;
    assert_eq!(records.iter().filter(|r| r.reason == "policy-changed").count(), 1);
}

#[tokio::test]
async fn nobody_is_served_before_the_first_snapshot() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), None);
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let mut client = sidecar(world.address(), &web).await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("no-snapshot"), "{answer:?}");
    let mut legacy = plain(world.address()).await;
    legacy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(legacy.try_answer().await.is_err());
    assert!(world.records.wait(2).await.iter().all(|r| r.reason == "no-snapshot"));
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::Relaxed), 0);
    world.apply(WEB_READS);
    assert_eq!(client.get("/").await.status, 200, "the same connection, once there is policy");
}
