//! What callers can make the service hold and do.

use std::net::SocketAddr;
use std::time::Duration;

use palisade_authz_service::{Callers, Limits, Security};
use palisade_wire::envoy::envoy::service::auth::v3::CheckRequest;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::authzen::{EVALUATION, post, question, send};
use crate::world::{World, get, with_header};

async fn authzen(limits: Limits) -> (World, SocketAddr) {
    let mut world = World::limited(limits);
    world.policies.set("", "");
    let address = world.authzen(Security::Loopback, Callers::default()).await;
    (world, address)
}

/// A small request must not become a large one by its defaults.
#[tokio::test]
async fn defaults_are_not_multiplied_without_end() {
    let (world, address) = authzen(Limits::default()).await;
    let mut asked = question();
    asked["context"] = json!({"metadata": {"a": {"b": "x".repeat(100_000)}}});
    asked["evaluations"] = json!(vec![json!({}); 100]);
    let answer = send(address, post("/access/v1/evaluations", asked.to_string())).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_eq!(answer.body["error"]["field"], "evaluations");
    assert!(world.records().is_empty());
    asked["evaluations"] = json!(vec![json!({}); 10]);
    assert_eq!(send(address, post("/access/v1/evaluations", asked.to_string())).await.status, 200);
    asked["context"] = json!({});
    asked["evaluations"] = json!(vec![json!({}); 1_000]);
    assert_eq!(send(address, post("/access/v1/evaluations", asked.to_string())).await.status, 200);
    world.stop().await;
}

/// Bodies share one budget, and give back what they held.
#[tokio::test]
async fn bodies_hold_no_more_than_there_is_room_for() {
    let (mut world, address) = authzen(Limits { max_held: 2_000, ..Limits::default() }).await;
    let sized = |bytes: usize| post(EVALUATION, format!("{}{}", question(), " ".repeat(bytes)));
    for (bytes, status) in [(3_000, 503), (1_500, 200), (1_500, 200), (3_000, 503), (1_500, 200)] {
        assert_eq!(send(address, sized(bytes)).await.status, status, "{bytes}");
    }
    let mut client = world.client(false).await;
    let asked = |bytes| with_header(get("/"), "x", &"x".repeat(bytes));
    let large = CheckRequest { attributes: Some(asked(3_000)) };
    assert!(client.0.check(large).await.is_err(), "no answer lets nobody pass");
    for _ in 0..3 {
        assert_eq!(client.status(asked(1_000)).await, 200);
    }
    world.stop().await;
}

/// Whoever begins a body and stops is not waited for.
#[tokio::test]
async fn a_half_sent_body_has_an_end() {
    let (world, address) = authzen(Limits { body_timeout: Duration::from_millis(10), ..Limits::default() }).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {EVALUATION} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("did not end in time"), "{answer}");
    assert!(world.records().is_empty());
    world.stop().await;
}

/// In plaintext fewer connections are served at once.
#[tokio::test]
async fn plaintext_connections_are_few() {
    let (world, address) = authzen(Limits { max_plaintext_connections: 1, ..Limits::default() }).await;
    let ask = "GET /.well-known/authzen-configuration HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = [0; 15];
    for _ in 0..20 {
        first.write_all(ask.as_bytes()).await.unwrap();
        let mut read = [0; 4_096];
        assert!(first.read(&mut read).await.unwrap() > 0);
        assert_eq!(second.try_read(&mut answer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
    drop(first);
    second.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    world.stop().await;
}
