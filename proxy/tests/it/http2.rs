//! HTTP/2: the same decisions, the same sanitising, streams cut one by one.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use palisade_authz::Verdict;
use palisade_policies::AppProtocol;
use tokio_stream::wrappers::ReceiverStream;

use crate::app::App;
use crate::client::mtls;
use crate::world::{CLOSED, Cast, OPEN, WEB_READS, World, inbound_to};

pub(crate) type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// Answers with the request's target, headers and body; `/stream` with a body that never ends.
pub(crate) async fn app() -> App {
    App::of(|tcp| async move {
        let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
            if request.uri().path() == "/stream" {
                let (sender, receiver) = tokio::sync::mpsc::channel(1);
                sender.send(Ok(Frame::data(Bytes::from_static(b"first")))).await.unwrap();
                tokio::spawn(async move { sender.closed().await });
                return Ok::<_, Infallible>(Response::new(StreamBody::new(ReceiverStream::new(receiver)).boxed()));
            }
            let mut text = format!("{} {}\n", request.method(), request.uri());
            for (name, value) in request.headers() {
                text += &format!("{name}: {}\n", value.to_str().unwrap());
            }
            let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            text += &String::from_utf8_lossy(&body);
            Ok(Response::new(Full::from(text).boxed()))
        });
        let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        server.http1().keep_alive(true);
        server.serve_connection(TokioIo::new(tcp), service).await.map_err(std::io::Error::other)
    })
    .await
}

pub(crate) async fn client(world: &World, cast: &Cast, account: &str) -> SendRequest<Body> {
    let identity = cast.authority.identity("shop", account, 3600, &[]);
    let tls = mtls(world.address(), &identity, &[b"istio-h2", b"istio", b"h2"]).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://cart{path}"))
}

pub(crate) fn nothing() -> Body {
    Empty::new().boxed()
}

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn requests_are_decided_sanitised_and_normalised() {
    let (app, cast) = (app().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(WEB_READS));
    let mut web = client(&world, &cast, "web").await;
    let forged = request("GET", "/x/../a?q")
        .header("x-forwarded-client-cert", "URI=forged")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(nothing())
        .unwrap();
    let (status, seen) = text(web.send_request(forged).await.unwrap()).await;
    assert_eq!(status, 200, "{seen}");
    assert!(seen.starts_with("GET http://cart/a?q\n"), "{seen}");
    assert!(
        seen.contains("uri=spiffe://cluster.local/ns/shop/sa/web")
            || seen.contains("URI=spiffe://cluster.local/ns/shop/sa/web"),
        "{seen}"
    );
    assert!(!seen.contains("forged") && seen.contains("cookie: a=1; b=2\n"), "{seen}");
    let (status, body) = text(web.send_request(request("POST", "/").body(nothing()).unwrap()).await.unwrap()).await;
    assert_eq!((status.as_u16(), body.as_str()), (403, "RBAC: access denied"));
    let records = world.records.wait(2).await;
    assert_eq!(records.iter().map(|r| r.verdict).collect::<Vec<_>>(), [Verdict::Allow, Verdict::Deny]);
    assert_eq!(records[0].facts.http.as_ref().unwrap().host.as_deref(), Some("cart"));
}

#[tokio::test]
async fn grpc_is_denied_with_trailers_alone() {
    let (app, cast) = (app().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Grpc)), cast.cart(), Some(WEB_READS));
    let mut web = client(&world, &cast, "web").await;
    let call = request("POST", "/s/M")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(nothing())
        .unwrap();
    let response = web.send_request(call).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        (&response.headers()["grpc-status"], &response.headers()["grpc-message"]),
        (&http::HeaderValue::from_static("7"), &http::HeaderValue::from_static("RBAC: access denied"))
    );
    assert_eq!(world.records.wait(1).await[0].facts.status, 200);
}

#[tokio::test]
async fn a_long_stream_is_cut_when_policy_denies_it_and_others_are_not() {
    let (app, cast) = (app().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(OPEN));
    let mut web = client(&world, &cast, "web").await;
    let mut stream = web.send_request(request("GET", "/stream").body(nothing()).unwrap()).await.unwrap().into_body();
    assert_eq!(stream.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    world.apply(CLOSED);
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.frame()).await.unwrap();
    assert!(ended.unwrap().is_err(), "the stream is reset");
    let records = world.records.wait(2).await;
    assert_eq!((records[1].reason, records[1].verdict), ("policy-changed", Verdict::Deny));
    world.apply(OPEN);
    let (status, _) = text(web.send_request(request("GET", "/").body(nothing()).unwrap()).await.unwrap()).await;
    assert_eq!(status, 200, "the connection is still there");
}

#[tokio::test]
async fn an_http1_application_gets_http1() {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http1)), cast.cart(), Some(OPEN));
    let mut web = client(&world, &cast, "web").await;
    let body = Full::new(Bytes::from_static(b"hello")).boxed();
    let (status, seen) = text(web.send_request(request("POST", "/a").body(body).unwrap()).await.unwrap()).await;
    assert_eq!(status, 200);
    let seen = seen.to_ascii_lowercase();
    assert!(
        seen.starts_with("post /a http/1.1\r\n") && seen.contains("host: cart\r\n") && seen.ends_with("hello"),
        "{seen}"
    );
}

/// What the HTTP/1.1 door refuses is refused here: behind it may stand the same application.
#[tokio::test]
async fn what_http1_refuses_http2_refuses() {
    let cast = Cast::new();
    let (plain, modern) = (App::mirror().await, app().await);
    for (app, protocol) in [(&plain, AppProtocol::Http1), (&modern, AppProtocol::Http)] {
        let world = World::start(&inbound_to(app.address, Some(protocol)), cast.cart(), Some(OPEN));
        let mut web = client(&world, &cast, "web").await;
        let get = || request("GET", "/");
        for (asked, status) in [
            (get().header("x-role", "guest "), 400),
            (get().header("x-role", "\tguest"), 400),
            (request("delete", "/"), 400),
            (request("BREW", "/"), 400),
            (get().header("content-length", "0").header("content-length", "0"), 400),
            (get().header("expect", "tea"), 417),
            (get().header("x-role", "a guest"), 200),
        ] {
            let asked = asked.body(nothing()).unwrap();
            let what = format!("{asked:?}");
            let (answered, body) = text(web.send_request(asked).await.unwrap()).await;
            assert_eq!(answered.as_u16(), status, "{what}: {body}");
        }
        let (status, seen) = text(
            web.send_request(
                get()
                    .header("http2-settings", "AAMAAABk")
                    .header("x_forwarded_client_cert", "evil")
                    .body(nothing())
                    .unwrap(),
            )
            .await
            .unwrap(),
        )
        .await;
        let seen = seen.to_ascii_lowercase();
        assert!(status == 200 && !seen.contains("http2-settings") && !seen.contains("evil"), "{status} {seen}");
    }
}

#[tokio::test]
async fn trailers_say_nothing_about_who_calls() {
    let app = App::of(|tcp| async move {
        let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
            let collected = request.into_body().collect().await;
            let trailers = collected.ok().and_then(|body| body.trailers().cloned());
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("{trailers:?}"))))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.serve_connection(TokioIo::new(tcp), service).await.map_err(std::io::Error::other)
    })
    .await;
    let cast = Cast::new();
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(OPEN));
    let mut web = client(&world, &cast, "web").await;
    let mut trailers = http::HeaderMap::new();
    for name in ["x-forwarded-client-cert", "x_forwarded_client_cert", "l5d-client-id", "authorization", "x-sum"] {
        trailers.insert(name, http::HeaderValue::from_static("said"));
    }
    let reads = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: sums, namespace: shop}\n\
                 spec:\n  action: DENY\n  rules:\n  - when: [{key: 'request.headers[x-sum]', values: ['*']}]\n";
    for (policies, expected) in [(OPEN, "Some({\"x-sum\": \"said\"})"), (reads, "None")] {
        world.switch(policies, None).await;
        let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers.clone()))];
        let body = StreamBody::new(tokio_stream::iter(frames)).boxed();
        let (status, seen) = text(web.send_request(request("POST", "/").body(body).unwrap()).await.unwrap()).await;
        assert_eq!((status.as_u16(), seen.as_str()), (200, expected));
    }
}

#[tokio::test]
async fn h2c_with_prior_knowledge_in_plaintext() {
    let (app, cast) = (app().await, Cast::new());
    let world = World::start(&inbound_to(app.address, None), cast.cart(), Some(OPEN));
    let tcp = tokio::net::TcpStream::connect(world.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().uri("http://cart/a").body(nothing()).unwrap();
    let (status, _) = text(sender.send_request(request).await.unwrap()).await;
    assert_eq!(status, 200);
    assert_eq!(world.records.wait(1).await[0].facts.transport, "plaintext");
}

#[tokio::test]
async fn an_application_that_is_down_is_503() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cast = Cast::new();
    let world = World::start(&inbound_to(gone, Some(AppProtocol::Http2)), cast.cart(), Some(OPEN));
    let mut web = client(&world, &cast, "web").await;
    let (status, body) = text(web.send_request(request("GET", "/").body(nothing()).unwrap()).await.unwrap()).await;
    assert_eq!((status.as_u16(), body.as_str()), (503, "upstream-connect"));
    assert_eq!(world.records.wait(1).await[0].facts.status, 503);
}

#[tokio::test]
async fn http2_from_end_to_end_over_one_pooled_connection() {
    let (app, cast) = (app().await, Cast::new());
    let inbound = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(WEB_READS));
    let source = crate::certificates::Source::of(cast.authority.identity("shop", "web", 3600, &[]));
    let registry = crate::outbound::registry(&[inbound.address()], true, "HTTP");
    let outbound = World::start(&crate::world::outbound_to("cart.shop", 80), source.clone(), Some(&registry));
    let tcp = tokio::net::TcpStream::connect(outbound.address()).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    for round in 0..3 {
        let calls = (0..20).map(|n| {
            let mut sender = sender.clone();
            async move {
                let method = if n % 2 == 0 { "GET" } else { "POST" };
                let request = Request::builder().method(method).uri(format!("http://cart.shop/{n}"));
                let response = sender.send_request(request.body(nothing()).unwrap()).await.unwrap();
                (n, text(response).await)
            }
        });
        for (n, (status, body)) in futures_util::future::join_all(calls).await {
            let expected = if n % 2 == 0 { 200 } else { 403 };
            assert_eq!(status.as_u16(), expected, "{body}");
        }
        if round == 1 {
            source.rotate(cast.authority.identity("shop", "web", 3600, &[]));
        }
    }
    assert_eq!(inbound.records.wait(60).await.len(), 60);
    let metrics = inbound.metrics();
    let line = "palisade_mtls_connections_total{security=\"mtls\",direction=\"inbound\"} 2";
    assert!(metrics.contains(line), "one connection a certificate: {metrics}");
}
