//! Tokens and CUSTOM over HTTP/2, and CUSTOM for opaque connections.

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use palisade_authz::{Phase, Verdict, reason};
use palisade_policies::AppProtocol;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::App;
use crate::certificates::until;
use crate::client::plain;
use crate::http2::{self, Body};
use crate::issuer::Issuer;
use crate::provider::{Grpc, custom};
use crate::world::{CLOSED, Cast, World, inbound_to};

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8_lossy(&response.into_body().collect().await.unwrap().to_bytes()).into_owned()
}

fn body(chunks: &[&'static str]) -> Body {
    let frames: Vec<_> =
        chunks.iter().map(|c| Ok(hyper::body::Frame::data(Bytes::from_static(c.as_bytes())))).collect();
    http_body_util::StreamBody::new(tokio_stream::iter(frames)).boxed()
}

#[tokio::test]
async fn tokens_are_judged_and_stripped() {
    let (app, cast, issuer) = (http2::app().await, Cast::new(), Issuer::new());
    let config = inbound_to(app.address, Some(AppProtocol::Http));
    let rules = issuer.inline("outputClaimToHeaders: [{header: x-sub, claim: sub}]");
    let world = World::start(&config, cast.cart(), Some(&rules));
    let mut web = http2::client(&world, &cast, "web").await;
    let with = |token: &str| {
        let request = http2::request("GET", &format!("/a?access_token={token}&x=1"));
        request.header("x-sub", "root").body(http2::nothing()).unwrap()
    };
    let good = issuer.token(300, &json!({}));
    let seen = text(web.send_request(with(&good)).await.unwrap()).await;
    assert!(seen.starts_with("GET http://cart/a?x=1\n") && seen.contains("x-sub: alice\n"), "{seen}");
    assert!(!seen.contains(&good) && !seen.contains("root"), "{seen}");
    let refused = web.send_request(with("garbage")).await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["www-authenticate"], "Bearer realm=\"https://cart/a\", error=\"invalid_token\"");
    let call = http2::request("POST", "/s/M").header("content-type", "application/grpc");
    let call = call.header("authorization", "Bearer garbage").body(http2::nothing()).unwrap();
    let refused = web.send_request(call).await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["grpc-status"]), (200, &"16".parse().unwrap()));
    let records = world.records.wait(3).await;
    assert_eq!(records.iter().map(|r| r.facts.status).collect::<Vec<_>>(), [200, 401, 200]);
    assert_eq!(records[2].reason, reason::TOKEN_INVALID);
}

#[tokio::test]
async fn a_provider_sees_the_body_and_changes_the_request() {
    let (provider, app, cast) = (Grpc::start().await, http2::app().await, Cast::new());
    let config = inbound_to(app.address, Some(AppProtocol::Http));
    let mesh = provider.mesh(", includeRequestBodyInCheck: {maxRequestBytes: 10}");
    let world = World::start_meshed(&config, cast.cart(), Some(&custom("paths: ['/*']")), Some(&mesh));
    let mut web = http2::client(&world, &cast, "web").await;
    let request = http2::request("POST", "/a").header("x-secret", "s").header("x-user", "mallory");
    let allowed = web.send_request(request.body(body(&["hel", "lo"])).unwrap()).await.unwrap();
    assert_eq!((allowed.status().as_u16(), &allowed.headers()["x-checked"]), (200, &"yes".parse().unwrap()));
    let seen = text(allowed).await;
    assert!(seen.contains("x-user: bob\n") && seen.ends_with("hello"), "{seen}");
    assert!(!seen.contains("mallory") && !seen.contains("x-secret"), "{seen}");
    let refused = web.send_request(http2::request("GET", "/no").body(http2::nothing()).unwrap()).await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["x-why"]), (402, &"poor".parse().unwrap()));
    assert_eq!(text(refused).await, "pay first");
    let long = http2::request("POST", "/a").body(body(&["0123456789", "x"])).unwrap();
    assert_eq!(web.send_request(long).await.unwrap().status(), 413);
    let http = provider.asked(2).await.remove(0).attributes.unwrap();
    assert_eq!(http.source.unwrap().principal, "spiffe://cluster.local/ns/shop/sa/web");
    let http = http.request.unwrap().http.unwrap();
    assert_eq!((http.body.as_str(), http.protocol.as_str()), ("hello", "HTTP/2"));
    let records = world.records.wait(3).await;
    let seen: Vec<_> = records.iter().map(|r| (r.verdict, r.facts.status)).collect();
    assert_eq!(seen, [(Verdict::Allow, 200), (Verdict::Deny, 402), (Verdict::Deny, 413)]);
}

#[tokio::test]
async fn a_stream_that_is_reset_is_not_waited_for_and_a_new_policy_decides_the_others() {
    let (provider, app, cast) = (Grpc::start().await, http2::app().await, Cast::new());
    let config = inbound_to(app.address, Some(AppProtocol::Http));
    let policies = custom("paths: [/wait, /stream]");
    let mesh = provider.mesh("");
    let world = World::start_meshed(&config, cast.cart(), Some(&policies), Some(&mesh));
    let mut web = http2::client(&world, &cast, "web").await;
    let get = |path: &str| http2::request("GET", path).body(http2::nothing()).unwrap();
    let waiting = web.send_request(get("/wait"));
    let mut stream = web.send_request(get("/stream")).await.unwrap().into_body();
    provider.asked(2).await;
    drop(waiting);
    until("the reset stream to be forgotten", || {
        let connections = world.status.status()["connections"].clone();
        if connections["registered"] == 2 { Ok(()) } else { Err(connections.to_string()) }
    })
    .await;
    assert_eq!(stream.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    let waiting = web.send_request(get("/wait"));
    provider.asked(3).await;
    world.switch(&format!("{policies}{CLOSED}"), Some(&mesh)).await;
    assert!(stream.frame().await.unwrap().is_err(), "an approval is no way around an ALLOW");
    provider.answers.add_permits(1);
    assert_eq!(waiting.await.unwrap().status(), 403);
    let records = world.records.wait(3).await;
    assert_eq!(records.iter().filter(|r| r.reason == reason::POLICY_CHANGED).count(), 2);
}

#[tokio::test]
async fn opaque_connections_ask_before_a_byte_passes() {
    let (provider, app, cast) = (Grpc::start().await, App::echo().await, Cast::new());
    let config = inbound_to(app.address, Some(AppProtocol::Tcp));
    let port = app.address.port();
    let policies = custom(&format!("ports: ['{port}']"));
    let world = World::start_meshed(&config, cast.cart(), Some(&policies), Some(&provider.mesh("")));
    let mut client = plain(world.address()).await;
    client.send("early").await;
    let mut echoed = [0; 5];
    client.io.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"early");
    let asked = provider.asked(1).await.remove(0).attributes.unwrap();
    assert!(asked.request.is_none_or(|request| request.http.is_none_or(|http| http.method.is_empty())));
    // Still asked of the same provider: stays. Of another: ends.
    world.switch(&format!("{policies}{}", crate::world::OPEN), Some(&provider.mesh(""))).await;
    client.io.write_all(b"again").await.unwrap();
    client.io.read_exact(&mut echoed).await.unwrap();
    world.switch(&policies.replace("name: asker", "name: other"), Some(&provider.mesh(""))).await;
    assert!(client.rest().await.is_err(), "cut");
    let mut refused = plain(world.address()).await;
    assert!(refused.rest().await.is_err(), "an unknown provider lets nobody in");
    let records = world.records.wait(3).await;
    let seen: Vec<_> = records.iter().map(|r| (r.reason, r.evaluation.phase)).collect();
    assert_eq!(seen[1..], [(reason::POLICY_CHANGED, Phase::Custom), (reason::NO_PROVIDER, Phase::Custom)]);
    assert_eq!(provider.asked(1).await.len(), 1);
}
