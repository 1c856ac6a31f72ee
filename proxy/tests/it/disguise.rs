//! HTTP that does not want to be taken for HTTP: on a detected port it is served as what it is, or not at all.

use std::time::Duration;

use palisade_policies::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::App;
use crate::client::{Client, mtls, plain};
use crate::world::{Cast, OPEN, World, inbound_to};

const REST: &str = "Host: a\r\nX-Forwarded-Client-Cert: By=x;URI=spiffe://cluster.local/ns/shop/sa/boss\r\n\r\n";

/// A detected port that waits for a moment only.
fn detected(app: &App, cast: &Cast) -> World {
    let mut config = inbound_to(app.address, None);
    config.limits.detect_timeout = Duration::from_millis(30);
    config.limits.header_timeout = Duration::from_millis(500);
    World::start(&config, cast.cart(), Some(OPEN))
}

/// Says the pieces, each after the proxy's patience with the one before is over.
async fn say(client: &mut Client<TcpStream>, pieces: &[&str]) {
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            tokio::time::sleep(Duration::from_millis(120)).await;
        }
        // A proxy that has heard enough may have closed already.
        let _ = client.io.write_all(piece.as_bytes()).await;
    }
}

fn is_cut(rest: &Result<Vec<u8>, std::io::ErrorKind>) -> bool {
    matches!(rest, Err(std::io::ErrorKind::ConnectionReset)) || rest.as_ref().is_ok_and(Vec::is_empty)
}

#[tokio::test]
async fn http_on_a_detected_port_is_served_as_http_however_it_begins() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = detected(&app, &cast);
    let endless = format!("GET /{}", "a".repeat(100_000));
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000));
    for (pieces, status) in [
        (&["GET /f HTTP/1.1\r\n", REST][..], 200),
        (&["GE", "T /f HTTP/1.1\r\n", REST], 200),
        (&["GET /f HTTP/1.1", "\r\n", REST], 200),
        (&["\r\nGET /f HTTP/1.1\r\n", REST], 200),
        (&["\r\n", "\r\nGET /f HTTP/1.1\r\n", REST], 200),
        (&["", "GET /f HTTP/1.1\r\n", REST], 200),
        (&["", "GE", "T /f HTTP/1.1\r\n", REST], 200),
        (&[&long, REST], 200),
        (&[&long[..8500], &long[8500..], REST], 200),
        (&["", &endless], 431),
        (&["GET /f HTTP/1.1 \t\r\n", REST], 400),
        (&["GET /f HTTP/1.1\n", REST], 400),
        (&[" GET /f HTTP/1.1\r\n", REST], 400),
        (&["get /f HTTP/1.1\r\n", REST], 400),
        (&["BREW /f HTTP/1.1\r\n", REST], 400),
        (&["GET /f HTTP/1.2\r\n", REST], 505),
        (&["GET /f HTTP/3\r\n", REST], 505),
        (&["GET /f\r\n"], 408),
        (&["GE"], 408),
    ] {
        let mut client = plain(world.address()).await;
        say(&mut client, pieces).await;
        let answer = client.try_answer().await.unwrap_or_else(|e| panic!("{pieces:?}: {e}"));
        assert_eq!(answer.status, status, "{pieces:?}: {answer:?}");
        assert!(!answer.body.contains("boss"), "{pieces:?}: {answer:?}");
    }
}

#[tokio::test]
async fn what_was_passed_on_as_bytes_cannot_become_http() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = detected(&app, &cast);
    for pieces in
        [&["BREW", " /f HTTP/1.1\r\n", REST][..], &["get /f HTTP", "/1.1\r\n", REST], &["*", "x / http/1.1\n", REST]]
    {
        let mut client = plain(world.address()).await;
        say(&mut client, pieces).await;
        assert!(is_cut(&client.rest().await), "{pieces:?} was carried");
    }
    let refused = world.records.all().into_iter().filter(|r| r.reason == "http-undetected").count();
    assert_eq!(refused, 3, "{:#?}", world.records.all());
}

#[tokio::test]
async fn a_server_that_speaks_first_is_answered_and_gets_no_http() {
    let app = App::of(|mut tcp| async move {
        tcp.write_all(b"220 ready\r\n").await?;
        let mut buf = [0; 256];
        loop {
            match tcp.read(&mut buf).await? {
                0 => return Ok(()),
                n => tcp.write_all(&buf[..n]).await?,
            }
        }
    })
    .await;
    let cast = Cast::new();
    let world = detected(&app, &cast);
    for (says, back) in [
        ("EHLO me\r\n", "EHLO me\r\n"),
        ("G", "G"),
        ("GET / HTTP/1.1\r\n", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
    ] {
        let mut client = plain(world.address()).await;
        let mut banner = [0; 11];
        client.io.read_exact(&mut banner).await.unwrap();
        assert_eq!(&banner, b"220 ready\r\n");
        client.send(says).await;
        let mut echo = vec![0; back.len()];
        client.io.read_exact(&mut echo).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&echo), back);
        if back.is_empty() {
            assert!(is_cut(&client.rest().await), "{says:?} was carried");
        }
    }
}

#[tokio::test]
async fn opaque_clients_of_a_detected_port_are_not_kept_waiting() {
    let (app, cast) = (App::echo().await, Cast::new());
    let mut config = inbound_to(app.address, None);
    config.limits.detect_timeout = Duration::from_secs(60);
    let world = World::start(&config, cast.cart(), Some(OPEN));
    for says in
        ["hello", "get key\r\n", "PING\r\n", "*1\r\n$4\r\nPING\r\n", "GET key\r\n", "{\"a\": 1}", "RTSP", "\u{1}\u{2}"]
    {
        let mut client = plain(world.address()).await;
        client.send(says).await;
        let mut echo = vec![0; says.len()];
        let read = tokio::time::timeout(Duration::from_secs(10), client.io.read_exact(&mut echo)).await;
        assert!(read.is_ok_and(|read| read.is_ok()), "{says:?} was kept");
        assert_eq!(String::from_utf8_lossy(&echo), says);
    }
}

#[tokio::test]
async fn mutual_tls_that_promised_bytes_brings_no_http() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = detected(&app, &cast);
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let mut client = Client::new(mtls(world.address(), &web, &[b"istio"]).await.unwrap());
    let answer = client.ask(&format!("GET /f HTTP/1.1\r\n{REST}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.body.contains("boss") && answer.body.contains("sa/web"), "{answer:?}");
}

/// Accepts any upgrade, with its own idea of what to.
async fn eager(to: &'static str) -> App {
    App::of(move |mut tcp| async move {
        let mut buf = Vec::new();
        while let Some((head, _)) = crate::app::read_request(&mut tcp, &mut buf).await? {
            if head.to_ascii_lowercase().contains("\r\nupgrade:") {
                let switch = format!("HTTP/1.1 101 Switching Protocols\r\n{to}Connection: Upgrade\r\n\r\n");
                tcp.write_all(switch.as_bytes()).await?;
            } else {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
                tcp.write_all(answer.as_bytes()).await?;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn upgrades_to_http_or_to_a_choice_are_ignored() {
    let (app, cast) = (eager("Upgrade: h2c\r\n").await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(OPEN));
    for value in [
        "h2c",
        "websocket, h2c",
        "h2c,websocket",
        "websocket h2c",
        ", websocket",
        "TLS/1.2",
        "HTTP/2.0",
        "h2c-14",
        "a/b/c",
        "\"x\"",
    ] {
        let request = format!(
            "GET /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {value}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        );
        let answer = plain(world.address()).await.ask(&request).await;
        assert_eq!(answer.status, 200, "{value}: {answer:?}");
        let seen = answer.body.to_ascii_lowercase();
        assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{value}: {seen}");
    }
}

#[tokio::test]
async fn a_switch_to_something_else_than_asked_for_is_no_success() {
    let cast = Cast::new();
    for to in ["Upgrade: h2c\r\n", "Upgrade: websocket, h2c\r\n", "Upgrade: websocket\r\nUpgrade: h2c\r\n", ""] {
        let app = eager(to).await;
        let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(OPEN));
        let mut client = plain(world.address()).await;
        let answer =
            client.ask("GET /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        assert_eq!(answer.status, 502, "{to:?}: {answer:?}");
        client.send("GET /admin HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.rest().await.unwrap_or_default().is_empty(), "{to:?}");
    }
    let app = eager("upgrade: WebSocket\r\n").await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(OPEN));
    let ask = "GET /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(plain(world.address()).await.ask(ask).await.status, 101);
}

#[tokio::test]
async fn identity_fields_are_ours_in_every_spelling_an_application_may_read() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(OPEN));
    let forged = "PUT / HTTP/1.1\r\nHost: a\r\nX_Forwarded_Client_Cert: evil\r\nx-forwarded_client-CERT: evil\r\n\
                  X.Forwarded.Client.Cert: evil\r\nX_Envoy_Peer: evil\r\nX-Envoy_Peer: evil\r\nX_Palisade-A: evil\r\n\
                  L5D_Client_Id: evil\r\nX_Other: kept\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx_forwarded_client_cert: evil\r\n\r\n";
    let answer = plain(world.address()).await.ask(forged).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.body.contains("evil") && answer.body.contains("X_Other: kept"), "{answer:?}");
}
