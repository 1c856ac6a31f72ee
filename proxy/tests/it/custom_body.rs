//! Bodies that a provider wants to see: read before the decision, forwarded whole after it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use palisade_authz::reason;
use palisade_policies::AppProtocol;

use crate::app::App;
use crate::certificates::until;
use crate::client::plain;
use crate::provider::{Grpc, custom};
use crate::world::{Cast, World, inbound_to};

async fn world(partial: bool) -> (Grpc, App, World) {
    let (provider, app) = (Grpc::start().await, App::mirror().await);
    let body = format!(", includeRequestBodyInCheck: {{maxRequestBytes: 10, allowPartialMessage: {partial}}}");
    let config = inbound_to(app.address, Some(AppProtocol::Http));
    let (policies, mesh) = (custom("paths: [/a, /no]"), provider.mesh(&body));
    let world = World::start_meshed(&config, Cast::new().cart(), Some(&policies), Some(&mesh));
    (provider, app, world)
}

async fn bodies(provider: &Grpc, n: usize) -> Vec<String> {
    let asked = provider.asked(n).await;
    let http = asked.into_iter().map(|asked| asked.attributes.unwrap().request.unwrap().http.unwrap());
    http.map(|http| http.body).collect()
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: cart\r\n{fields}\r\n\r\n{body}")
}

#[tokio::test]
async fn what_the_provider_saw_is_forwarded_whole() {
    let (provider, _app, world) = world(false).await;
    let mut client = plain(world.address()).await;
    let chunks = "3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nx-sum: 5\r\n\r\n";
    for (request, forwarded) in [
        (post("Content-Length: 5", "hello"), "content-length: 5\r\n\r\nhello".to_owned()),
        (post("Content-Length: 10", "0123456789"), "content-length: 10\r\n\r\n0123456789".to_owned()),
        (post("Transfer-Encoding: chunked", chunks), "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned()),
        (
            post("Transfer-Encoding: chunked", "a\r\n0123456789\r\n0\r\n\r\n"),
            "\r\na\r\n0123456789\r\n0\r\n\r\n".to_owned(),
        ),
        (post("Content-Length: 0", ""), "content-length: 0\r\n\r\n".to_owned()),
    ] {
        // Followed at once by another request, which is none of the provider's business.
        client.send(&format!("{request}GET /next HTTP/1.1\r\nHost: cart\r\n\r\n")).await;
        let answer = client.answer().await;
        assert!(answer.status == 200 && answer.body.to_ascii_lowercase().ends_with(&forwarded), "{answer:?}");
        let next = client.answer().await;
        assert!(next.body.starts_with("GET /next HTTP/1.1\r\n"), "{next:?}");
    }
    assert_eq!(bodies(&provider, 5).await, ["hello", "0123456789", "hello", "0123456789", ""]);
}

#[tokio::test]
async fn a_client_that_holds_its_body_back_is_told_to_go_on() {
    let (provider, _app, world) = world(false).await;
    let mut client = plain(world.address()).await;
    let go_on = client.ask(&post("Content-Length: 5\r\nExpect: 100-continue", "")).await;
    assert_eq!(go_on.status, 100);
    client.send("hello").await;
    let answer = client.answer().await;
    assert!(answer.status == 200 && answer.body.ends_with("hello"), "{answer:?}");
    assert!(!answer.body.to_ascii_lowercase().contains("expect"), "nobody asks again: {answer:?}");
    assert_eq!(bodies(&provider, 1).await, ["hello"]);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_or_shown_in_part() {
    let (provider, app, world) = world(false).await;
    for request in
        [post("Content-Length: 11", "0123456789x"), post("Transfer-Encoding: chunked", "b\r\n0123456789x\r\n0\r\n\r\n")]
    {
        let mut client = plain(world.address()).await;
        assert_eq!(client.ask(&request).await.status, 413);
        assert_eq!(client.get("/next").await.status, 200, "the small body was read to its end");
    }
    assert!(provider.asked.lock().unwrap().is_empty());
    let records = world.records.wait(4).await;
    assert_eq!((records[0].reason, records[0].facts.status), (reason::CUSTOM_DENIED, 413));
    drop(app);
    let (provider, _app, world) = self::world(true).await;
    let mut client = plain(world.address()).await;
    let long = "0123456789".repeat(20_000);
    let answer = client.ask(&post(&format!("Content-Length: {}", long.len()), &long)).await;
    assert!(answer.status == 200 && answer.body.ends_with(&format!("\r\n\r\n{long}")), "{}", answer.head);
    let chunked = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    let answer = client.ask(&post("Transfer-Encoding: chunked", &chunked)).await;
    assert_eq!((answer.status, answer.body.matches("0123456789").count()), (200, 20_000 - split_tens(&answer.body)));
    assert_eq!(bodies(&provider, 2).await, ["0123456789", "0123456789"]);
}

/// Tens that the chunks as forwarded cut in two.
fn split_tens(body: &str) -> usize {
    let body = body.split_once("\r\n\r\n").unwrap().1;
    let mut rest = body;
    let (mut whole, mut cut) = (0usize, 0);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole += size;
        cut += usize::from(!whole.is_multiple_of(10));
        rest = &after[size + 2..];
    }
    cut
}

/// What only looks like an upgrade is a request with a body, and what is one has none.
#[tokio::test]
async fn an_upgrade_hides_no_body() {
    let (provider, _app, world) = world(false).await;
    for (version, upgrade, status) in [
        ("1.1", "Upgrade: websocket, x", 200),
        ("1.1", "Upgrade: websocket\r\nUpgrade: x", 200),
        ("1.0", "Upgrade: websocket", 200),
        ("1.1", "Upgrade: websocket", 400),
        ("1.1", "Upgrade: echo", 400),
    ] {
        let mut client = plain(world.address()).await;
        let fields = format!("Host: cart\r\nConnection: upgrade\r\n{upgrade}\r\nContent-Length: 4");
        let answer = client.ask(&format!("POST /a HTTP/{version}\r\n{fields}\r\n\r\nEVIL")).await;
        assert_eq!(answer.status, status, "{version} {upgrade}: {answer:?}");
        assert_eq!(answer.body == "upgrade-with-body", status == 400, "{answer:?}");
    }
    assert_eq!(bodies(&provider, 3).await, ["EVIL"; 3]);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_without_end() {
    let (provider, app) = (Grpc::start().await, App::mirror().await);
    let mut config = inbound_to(app.address, Some(AppProtocol::Http));
    config.limits.header_timeout = Duration::from_secs(2);
    let mesh = provider.mesh(", includeRequestBodyInCheck: {maxRequestBytes: 10}");
    let world = World::start_meshed(&config, Cast::new().cart(), Some(&custom("paths: [/a]")), Some(&mesh));
    let mut client = plain(world.address()).await;
    let answer = client.ask(&post("Content-Length: 5", "h")).await;
    assert_eq!((answer.status, answer.body.as_str()), (408, "request-body-timeout"));
    assert!(answer.has("connection: close"), "{answer:?}");
    assert!(provider.asked.lock().unwrap().is_empty());
    assert_eq!(app.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn nobody_is_asked_about_half_a_body() {
    let (provider, app, world) = world(false).await;
    let mut client = plain(world.address()).await;
    client.send(&post("Content-Length: 5", "he")).await;
    drop(client);
    until("the connection to be gone", || {
        let connections = world.status.status()["connections"].clone();
        if connections["registered"] == 0 { Ok(()) } else { Err(connections.to_string()) }
    })
    .await;
    let mut client = plain(world.address()).await;
    let answer = client.ask(&post("Transfer-Encoding: chunked", "g\r\n")).await;
    assert_eq!((answer.status, answer.body.as_str()), (400, "request-body"));
    assert!(answer.has("connection: close"), "{answer:?}");
    assert!(provider.asked.lock().unwrap().is_empty() && world.records.all().is_empty());
    assert_eq!(app.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_refused_body_leaves_the_connection_in_order() {
    let (_provider, _app, world) = world(false).await;
    let mut client = plain(world.address()).await;
    let refused = "POST /no HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(client.ask(refused).await.status, 402);
    assert!(client.get("/next").await.body.starts_with("GET /next HTTP/1.1\r\n"));
}
