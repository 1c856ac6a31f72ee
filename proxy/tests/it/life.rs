//! Connections over time: pooled, upgraded, rotated under load, failing upstreams, drained.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use palisade_authz::Verdict;
use palisade_policies::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::{App, read_request};
use crate::certificates::until;
use crate::client::{Client, plain, sidecar};
use crate::world::{CLOSED, Cast, OPEN, World, inbound_to};

#[tokio::test]
async fn an_application_that_is_down_is_503_with_a_reason_and_a_record() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::start(&inbound_to(gone, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "upstream-connect"));
    let record = &world.records.wait(1).await[0];
    assert_eq!((record.verdict, record.facts.status), (Verdict::Allow, 503));
    assert!(world.metrics().contains("palisade_proxy_upstream_failures_total{reason=\"upstream-connect\"} 1"));
    assert_eq!(client.get("/").await.status, 503, "the caller's connection stays");
}

#[tokio::test]
async fn a_truncated_response_cannot_look_complete() {
    let app = App::of(|mut tcp| async move {
        let mut buf = Vec::new();
        read_request(&mut tcp, &mut buf).await?;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel").await?;
        tcp.set_zero_linger()
    })
    .await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    match client.rest().await {
        Err(kind) => assert_eq!(kind, std::io::ErrorKind::ConnectionReset),
        Ok(bytes) => assert!(!String::from_utf8_lossy(&bytes).contains("0\r\n\r\n"), "looks complete"),
    }
}

/// An application that closes each connection after its first response without saying so: the meanest keep-alive.
async fn one_shot() -> App {
    App::of(|mut tcp| async move {
        let mut buf = Vec::new();
        read_request(&mut tcp, &mut buf).await?;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await
    })
    .await
}

#[tokio::test]
async fn stale_pooled_connections_cost_nobody_a_request() {
    let app = one_shot().await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    for n in 0..200 {
        let method = if n % 2 == 0 { "GET" } else { "DELETE" };
        let answer = client.ask(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "request {n}: {answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_was_half_forwarded_is_not_read_as_a_request() {
    let app = App::of(|mut tcp| async move {
        let mut some = [0; 16];
        tcp.read_exact(&mut some).await?;
        tcp.set_zero_linger()
    })
    .await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    for body in ["Content-Length: 40\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n28\r\n"] {
        let mut client = plain(world.address()).await;
        client.send(&format!("POST /a HTTP/1.1\r\nHost: a\r\n{body}GET /b HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (503, "upstream-reset"));
        assert!(answer.has("connection: close"), "{answer:?}");
        assert!(client.rest().await.unwrap_or_default().is_empty());
    }
    let records = world.records.wait(2).await;
    assert!(
        records.len() == 2 && records.iter().all(|r| r.facts.http.as_ref().unwrap().method == "POST"),
        "{records:#?}"
    );
}

#[tokio::test]
async fn connections_to_the_application_are_used_again() {
    let app = App::mirror().await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    for _ in 0..20 {
        let mut client = plain(world.address()).await;
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(app.connections.load(Ordering::Relaxed) <= 3, "{} connections", app.connections.load(Ordering::Relaxed));
}

/// Accepts a WebSocket-like upgrade, then echoes.
async fn upgrading() -> App {
    App::of(|mut tcp| async move {
        let mut buf = Vec::new();
        let (head, _) = read_request(&mut tcp, &mut buf).await?.unwrap();
        assert!(head.contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"), "{head}");
        tcp.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nwelcome")
            .await?;
        let mut bytes = [0; 64];
        loop {
            match tcp.read(&mut bytes).await? {
                0 => return Ok(()),
                n => tcp.write_all(&bytes[..n]).await?,
            }
        }
    })
    .await
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel_until_policy_denies_it() {
    let app = upgrading().await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    assert_eq!(client.ask(UPGRADE).await.status, 101);
    client.send("ping").await;
    let mut seen = [0; 11];
    let mut read = 0;
    while read < seen.len() {
        read += client.io.read(&mut seen[read..]).await.unwrap();
        if &seen[..read] == b"ping" {
            break;
        }
    }
    assert_eq!(world.records.wait(1).await[0].facts.status, 101);
    world.apply(CLOSED);
    assert!(!matches!(client.rest().await, Err(std::io::ErrorKind::TimedOut)));
    let records = world.records.wait(2).await;
    assert_eq!((records[1].reason, records[1].verdict), ("policy-changed", Verdict::Deny));
}

#[tokio::test]
async fn what_follows_a_refused_upgrade_is_no_request() {
    let app = App::mirror().await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    client.send(&format!("{UPGRADE}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    assert_eq!(client.rest().await, Ok(vec![]), "closed, nothing more was answered");
    assert_eq!(world.records.all().len(), 1);
}

#[tokio::test]
async fn a_request_that_waits_is_denied_by_the_policy_that_comes() {
    let app = App::of(|mut tcp| async move {
        let mut buf = Vec::new();
        read_request(&mut tcp, &mut buf).await?;
        std::future::pending::<std::io::Result<()>>().await
    })
    .await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the application to have it", || match app.connections.load(Ordering::Relaxed) {
        0 => Err("no connection".into()),
        n => Ok(n),
    })
    .await;
    world.apply(CLOSED);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (403, "RBAC: access denied"));
    let records = world.records.wait(1).await;
    assert_eq!((records.len(), records[0].reason), (1, "policy-changed"));
    assert!(world.metrics().contains("verdict=\"deny\",response_class=\"4xx\"} 1"), "{}", world.metrics());
}

#[tokio::test]
async fn rotation_under_load_fails_no_request() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let source = cast.cart();
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), source.clone(), Some(OPEN));
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = Vec::new();
    for n in 0..4 {
        let web = cast.authority.identity("shop", "web", 3600, &[]);
        let (stop, answered, address) = (stop.clone(), answered.clone(), world.address());
        callers.push(tokio::spawn(async move {
            let mut client = sidecar(address, &web).await;
            while !stop.load(Ordering::Relaxed) {
                if n % 2 == 0 {
                    client = sidecar(address, &web).await;
                }
                assert_eq!(client.get("/").await.status, 200);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let first = world.status.status()["identity"]["serial"].clone();
    for _ in 0..5 {
        let mark = answered.load(Ordering::Relaxed);
        source.rotate(cast.authority.identity("shop", "cart", 3600, &[]));
        until("traffic after the rotation", || match answered.load(Ordering::Relaxed) {
            now if now >= mark + 50 => Ok(()),
            now => Err(format!("{now} of {}", mark + 50)),
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_ne!(world.status.status()["identity"]["serial"], first);
}

#[tokio::test]
async fn an_expired_caller_is_shown_out() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(OPEN));
    let mut client = sidecar(world.address(), &cast.authority.identity("shop", "web", 3, &[])).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.rest().await, Ok(vec![]), "closed at the end of its certificate");
}

#[tokio::test]
async fn draining_finishes_what_is_under_way() {
    let release = Arc::new(tokio::sync::Notify::new());
    let gate = release.clone();
    let app = App::of(move |mut tcp| {
        let gate = gate.clone();
        async move {
            let mut buf = Vec::new();
            read_request(&mut tcp, &mut buf).await?;
            gate.notified().await;
            tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await
        }
    })
    .await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    let (address, mut busy, mut idle) = (world.address(), plain(world.address()).await, plain(world.address()).await);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the request to be under way", || match app.connections.load(Ordering::Relaxed) {
        0 => Err("no connection".into()),
        n => Ok(n),
    })
    .await;
    let stopping = tokio::spawn(world.stop());
    assert_eq!(idle.rest().await, Ok(vec![]), "the idle connection ends at once");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody new is let in");
    release.notify_one();
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
    assert!(answer.has("connection: close"), "{answer:?}");
    drop(busy);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let app = App::echo().await;
    let mut config = inbound_to(app.address, Some(AppProtocol::Tcp));
    config.limits.drain_timeout = Duration::from_millis(50);
    let world = World::start(&config, Cast::new().cart(), Some(OPEN));
    let mut client: Client<_> = plain(world.address()).await;
    client.send("x").await;
    let mut one = [0; 1];
    client.io.read_exact(&mut one).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), world.stop()).await.unwrap();
    assert!(!matches!(client.rest().await, Err(std::io::ErrorKind::TimedOut)));
}

#[tokio::test]
async fn no_room_for_the_record_holds_the_request_back() {
    let app = App::mirror().await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    world.records.full.store(true, Ordering::SeqCst);
    let mut client = plain(world.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let early = tokio::time::timeout(Duration::from_millis(100), client.try_answer()).await;
    assert!(early.is_err(), "answered without a record: {early:?}");
    assert_eq!(app.connections.load(Ordering::Relaxed), 0, "the application has seen nothing");
    world.records.full.store(false, Ordering::SeqCst);
    world.records.freed.notify_one();
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(world.records.all().len(), 1);
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away() {
    let (app, cast) = (App::echo().await, Cast::new());
    let mut config = inbound_to(app.address, Some(AppProtocol::Tcp));
    config.limits.max_connections = 1;
    let world = World::start(&config, cast.cart(), Some(OPEN));
    let mut one = [0; 1];
    let mut inside = plain(world.address()).await;
    inside.send("x").await;
    inside.io.read_exact(&mut one).await.unwrap();
    let mut outside = plain(world.address()).await;
    assert!(!matches!(outside.rest().await, Err(std::io::ErrorKind::TimedOut)));
    drop(inside);
    until("room for another", || match world.status.status()["connections"]["accepted"].as_u64() {
        Some(0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let mut next = plain(world.address()).await;
    next.send("x").await;
    next.io.read_exact(&mut one).await.unwrap();
}
