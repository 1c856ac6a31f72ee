//! HTTP/1.1 inbound: decided, sanitised, normalised, answered.

use std::sync::atomic::Ordering;
use std::time::Duration;

use palisade_authz::Verdict;
use palisade_policies::AppProtocol;

use crate::app::App;
use crate::client::{plain, sidecar};
use crate::world::{Cast, OPEN, WEB_READS, World, inbound_to};

async fn world(policies: &str) -> (App, World, Cast) {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(policies));
    (app, world, cast)
}

#[tokio::test]
async fn a_get_is_allowed_and_a_post_denied_on_one_connection() {
    let (_app, world, cast) = world(WEB_READS).await;
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let mut client = sidecar(world.address(), &web).await;
    let allowed = client.get("/v1/cart?x=1").await;
    assert_eq!(allowed.status, 200, "{allowed:?}");
    let denied = client.ask("POST /v1/cart HTTP/1.1\r\nHost: cart\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!((denied.status, denied.body.as_str()), (403, "RBAC: access denied"));
    let again = client.get("/").await;
    assert_eq!(again.status, 200, "a denial keeps the connection: {again:?}");
    let records = world.records.wait(3).await;
    assert_eq!(records.len(), 3, "one record a request: {records:#?}");
    assert_eq!(records.iter().map(|r| r.verdict).collect::<Vec<_>>(), [Verdict::Allow, Verdict::Deny, Verdict::Allow]);
    let first = &records[0];
    assert_eq!((first.reason, first.facts.status, first.facts.transport), ("allow-matched", 200, "mtls"));
    assert_eq!(first.facts.source.principal.as_deref(), Some("cluster.local/ns/shop/sa/web"));
    assert_eq!(first.facts.destination.principal.as_deref(), Some("cluster.local/ns/shop/sa/cart"));
    assert_eq!(first.facts.http.as_ref().unwrap().path.as_deref(), Some("/v1/cart"));
    assert_eq!((records[1].reason, records[1].facts.status), ("no-allow-matched", 403));
    assert!(
        world
            .metrics()
            .contains("palisade_proxy_requests_total{direction=\"inbound\",verdict=\"deny\",response_class=\"4xx\"} 1")
    );
}

#[tokio::test]
async fn identity_headers_are_ours_alone() {
    let (_app, world, cast) = world(OPEN).await;
    let forged = "GET / HTTP/1.1\r\nHost: cart\r\nX-Forwarded-Client-Cert: By=x;URI=spiffe://cluster.local/ns/shop/sa/root\r\n\
                  X-Envoy-Peer: evil\r\nL5D-Client-Id: evil\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n";
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let seen = sidecar(world.address(), &web).await.ask(forged).await.body.to_ascii_lowercase();
    assert_eq!(seen.matches("x-forwarded-client-cert").count(), 1, "{seen}");
    assert!(seen.contains("x-forwarded-client-cert: by=spiffe://cluster.local/ns/shop/sa/cart;hash="), "{seen}");
    assert!(seen.contains(";subject=\"\";uri=spiffe://cluster.local/ns/shop/sa/web\r\n"), "{seen}");
    assert!(!seen.contains("evil") && !seen.contains("sa/root"), "{seen}");
    assert!(seen.contains("x-forwarded-for: 1.2.3.4"), "{seen}");
    let seen = plain(world.address()).await.ask(forged).await.body.to_ascii_lowercase();
    assert!(!seen.contains("x-forwarded-client-cert"), "plaintext has no identity: {seen}");
}

#[tokio::test]
async fn what_is_decided_is_what_is_forwarded() {
    let (_app, world, cast) = world(WEB_READS).await;
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let mut client = sidecar(world.address(), &web).await;
    let answer = client.get("/x/../v1/%63art?q=%41").await;
    assert!(answer.body.starts_with("GET /v1/cart?q=%41 HTTP/1.1\r\n"), "{answer:?}");
    for hidden in ["/x/../admin", "/%61dmin", "/./admin/a", "/x\\..\\admin"] {
        assert_eq!(client.get(hidden).await.status, 403, "{hidden}");
    }
    let absolute = client.ask("GET http://other:99/a HTTP/1.1\r\nHost: cart\r\n\r\n").await;
    assert!(absolute.body.starts_with("GET /a HTTP/1.1\r\nHost: other:99\r\n"), "{absolute:?}");
    assert!(!absolute.body.contains("Host: cart"), "{absolute:?}");
}

#[tokio::test]
async fn smuggling_and_nonsense_are_refused_before_any_decision() {
    let (app, world, _cast) = world(OPEN).await;
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    ] {
        let mut client = plain(world.address()).await;
        let answer = client.ask(request).await;
        assert_eq!(answer.status, status, "{request:?}");
        assert!(answer.has("connection: close"), "{answer:?}");
        assert_eq!(client.rest().await, Ok(vec![]), "{request:?}");
    }
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert!(world.records.all().is_empty(), "nothing was decided");
}

#[tokio::test]
async fn heads_over_the_limit_get_431() {
    let (_app, world, _cast) = world(OPEN).await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    assert_eq!(plain(world.address()).await.ask(&long).await.status, 431);
    let many: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    assert_eq!(plain(world.address()).await.ask(&many).await.status, 431);
}

#[tokio::test]
async fn a_head_that_never_ends_is_not_waited_for() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let mut config = inbound_to(app.address, Some(AppProtocol::Http));
    config.limits.header_timeout = Duration::from_millis(200);
    let world = World::start(&config, cast.cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    client.send("GET / HTTP/1.1\r\nHost:").await;
    assert_eq!(client.answer().await.status, 408);
}

#[tokio::test]
async fn bodies_of_every_framing_pass_unchanged() {
    let (_app, world, cast) = world(WEB_READS).await;
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let mut client = sidecar(world.address(), &web).await;
    let long = "b".repeat(300_000);
    let answer = client.ask(&format!("PUT /a HTTP/1.1\r\nHost: cart\r\nContent-Length: 300000\r\n\r\n{long}")).await;
    assert!(answer.body.ends_with(&long), "{} bytes", answer.body.len());
    let answer = client
        .ask("PUT /a HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
        .await;
    assert!(
        answer.body.ends_with("\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
        "extensions go, trailers stay: {answer:?}"
    );
    client.send("PUT /a HTTP/1.1\r\nHost: cart\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 100);
    client.send("ok").await;
    assert!(client.answer().await.body.ends_with("ok"));
}

#[tokio::test]
async fn expectations_are_decided_before_the_body_is_asked_for() {
    let (_app, world, cast) = world(WEB_READS).await;
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let mut client = sidecar(world.address(), &web).await;
    let answer =
        client.ask("POST /a HTTP/1.1\r\nHost: cart\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(answer.status, 403, "no 100 before the denial");
    assert!(answer.has("connection: close"), "the body may still come: {answer:?}");
}

#[tokio::test]
async fn grpc_is_denied_in_its_own_words() {
    let (_app, world, cast) = world(WEB_READS).await;
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let mut client = sidecar(world.address(), &web).await;
    let answer = client
        .ask("POST /s/M HTTP/1.1\r\nHost: cart\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(answer.status, 200);
    assert!(answer.has("grpc-status: 7\r\n") && answer.has("grpc-message: rbac: access denied\r\n"), "{answer:?}");
}

#[tokio::test]
async fn connect_is_decided_without_a_path_and_never_served() {
    let (_app, world, _cast) = world(OPEN).await;
    let answer = plain(world.address()).await.ask("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n").await;
    assert_eq!(answer.status, 405);
    let record = &world.records.wait(1).await[0];
    assert_eq!(record.facts.http.as_ref().unwrap().path, None);
}

/// HTTP/1.0 knows no Host, but the application would get an empty one that policies had not seen.
#[tokio::test]
async fn no_host_is_made_up_for_http_1_0() {
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: hosts, namespace: shop}\n\
                spec:\n  action: DENY\n  rules:\n  - to: [{operation: {hosts: ['*']}}]\n";
    let (app, world, _cast) = world(deny).await;
    for (request, status) in [
        ("GET /h HTTP/1.0\r\n\r\n", 400),
        ("GET /h HTTP/1.0\r\nHost:\r\n\r\n", 403),
        ("GET http://a/h HTTP/1.0\r\n\r\n", 403),
    ] {
        assert_eq!(plain(world.address()).await.ask(request).await.status, status, "{request}");
    }
    assert_eq!(app.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn http_1_0_clients_get_no_chunks() {
    let app = App::of(|mut tcp| async move {
        use tokio::io::AsyncWriteExt;
        let mut buf = Vec::new();
        crate::app::read_request(&mut tcp, &mut buf).await?;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await
    })
    .await;
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), Cast::new().cart(), Some(OPEN));
    let mut client = plain(world.address()).await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let text = String::from_utf8(client.rest().await.unwrap()).unwrap();
    assert!(text.ends_with("\r\n\r\nhello") && !text.to_ascii_lowercase().contains("chunked"), "{text}");
}
