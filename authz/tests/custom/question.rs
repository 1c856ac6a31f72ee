//! What a provider is asked. The forms were seen on Envoy 1.40, configured as Istio configures it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use palisade_authz::provider::{CheckRequest, Providers, TcpDial};
use palisade_policies::{CheckBody, ProviderKind};
use palisade_wire::envoy::envoy::config::core::v3::address::Address;
use palisade_wire::envoy::envoy::config::core::v3::socket_address::PortSpecifier;
use palisade_wire::envoy::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer};
use palisade_wire::envoy::envoy::service::auth::v3::{AttributeContext, CheckResponse};

use crate::support::{GrpcServer, grpc, http, http_server, mesh, providers, request};

async fn asked(check: &CheckRequest, pack_as_bytes: bool) -> AttributeContext {
    let server = GrpcServer::saying(CheckResponse::default()).await;
    let mut config = grpc(server.address);
    config.body = Some(CheckBody { max_bytes: 8, allow_partial: true, pack_as_bytes });
    providers(ProviderKind::ExtAuthzGrpc(config)).check("ext", check).await;
    server.seen().remove(0).attributes.unwrap()
}

fn peer(peer: &Option<Peer>) -> (String, &str, &str) {
    let peer = peer.as_ref().unwrap();
    let Some(Address::SocketAddress(socket)) = peer.address.as_ref().and_then(|one| one.address.clone()) else {
        return (String::new(), &peer.principal, &peer.service);
    };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("{socket:?}") };
    (format!("{} {port}", socket.address), &peer.principal, &peer.service)
}

fn head(http: &HttpRequest) -> Vec<String> {
    let mut headers: Vec<String> = http.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    headers.sort();
    headers
}

#[tokio::test]
async fn grpc_providers_are_told_what_envoy_tells() {
    let mut check = request();
    check.time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
    for (name, value) in [
        ("x-odd", &b"a\xff\xfeb\xc3\xa9\xc3("[..]),
        ("X-Envoy-Auth-Partial-Body", b"mine"),
        ("x-envoy-downstream-service-cluster", b"svc"),
        ("cookie", b"d=2"),
        ("accept", b""),
        ("x-b", b""),
    ] {
        check.headers.push((name.to_owned(), value.to_vec()));
    }
    let told = asked(&check, false).await;
    assert_eq!(peer(&told.source), ("10.0.0.7 4711".into(), "spiffe://cluster.local/ns/web/sa/front", "svc"));
    assert_eq!(peer(&told.destination), ("fd00::1 8080".into(), "spiffe://cluster.local/ns/shop/sa/cart", ""));
    assert!(told.tls_session.is_none() && told.context_extensions.is_empty());
    let request = told.request.unwrap();
    let time = request.time.unwrap();
    assert_eq!((time.seconds, time.nanos), (1, 500_000_000));
    let http = request.http.unwrap();
    assert_eq!(
        [&http.method, &http.path, &http.host, &http.scheme, &http.protocol, &http.query, &http.body],
        ["GET", "/pA?b=2&a&c=3&b=4", "Web.example:80", "http", "HTTP/1.1", "", ""]
    );
    assert!(http.id.parse::<u64>().is_ok() && http.size == 0 && http.raw_body.is_empty() && http.header_map.is_none());
    assert_eq!(
        head(&http),
        [
            ":authority: Web.example:80",
            ":method: GET",
            ":path: /pA?b=2&a&c=3&b=4",
            ":scheme: http",
            "accept: a1,a2",
            "cookie: c=1,d=2",
            "x-a: 1,2",
            "x-b: b,",
            "x-envoy-downstream-service-cluster: svc",
            "x-odd: a!!bé!(",
        ]
    );
}

#[tokio::test]
async fn bodies_are_text_or_bytes_and_say_whether_they_are_whole() {
    for (body, partial, pack, expected) in [
        (&b"hello"[..], false, false, ("hello", &b""[..], "false", 5)),
        (b"12345678", true, false, ("12345678", b"", "true", 8)),
        (b"a\xff\xc3\xa9", false, false, ("a!é", b"", "false", 4)),
        (b"a\xff\xc3\xa9", false, true, ("", b"a\xff\xc3\xa9", "false", 4)),
    ] {
        let check = CheckRequest { body: Some(body.to_vec().into()), body_partial: partial, ..request() };
        let http = asked(&check, pack).await.request.unwrap().http.unwrap();
        let said = http.headers.get("x-envoy-auth-partial-body").unwrap().as_str();
        assert_eq!((http.body.as_str(), http.raw_body.as_slice(), said, http.size), expected);
    }
}

#[tokio::test]
async fn connections_are_told_without_http_and_with_the_server_name() {
    let told = asked(&CheckRequest { tcp: true, ..request() }, false).await;
    assert_eq!(peer(&told.source), ("10.0.0.7 4711".into(), "spiffe://cluster.local/ns/web/sa/front", ""));
    assert_eq!(peer(&told.destination).2, "cart.shop");
    assert!(told.request.is_none() && told.tls_session.is_none());
    let bare = asked(&CheckRequest { tcp: true, ..CheckRequest::default() }, false).await;
    assert_eq!(peer(&bare.source), (String::new(), "", ""));
}

/// The one request that an HTTP provider got: request line and head, sorted, and the body.
async fn http_asked(check: &CheckRequest, adjust: impl Fn(&mut palisade_policies::ExtAuthzHttp)) -> (String, String) {
    let (server, seen) = http_server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut config = http(server.address);
    adjust(&mut config);
    providers(ProviderKind::ExtAuthzHttp(config)).check("ext", check).await;
    let request = seen.lock().unwrap().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.split("\r\n").collect();
    lines[1..].sort_unstable();
    (lines.join(" | "), body.to_owned())
}

#[tokio::test]
async fn http_providers_get_the_head_that_is_configured() {
    let mut check = request();
    check.headers.extend([
        ("authorization".to_owned(), b"tok".to_vec()),
        ("my-suf".to_owned(), b"s".to_vec()),
        ("transfer-encoding".to_owned(), b"chunked".to_vec()),
        ("content-length".to_owned(), b"7".to_vec()),
    ]);
    let (bare, _) = http_asked(&check, |_| {}).await;
    assert_eq!(bare, "GET /pA?b=2&a&c=3&b=4 HTTP/1.1 | authorization: tok | content-length: 0 | host: Web.example:80");
    let (full, _) = http_asked(&check, |config| {
        config.path_prefix = "/check".into();
        config.include_headers =
            ["X-A", "*-suf", "transfer-*", "content-length", "Accept", "cookie"].map(str::to_owned).to_vec();
        let more = [("x-add", "v"), ("X-A", "over"), ("x-pct", "100%%")];
        config.include_additional = more.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    })
    .await;
    assert_eq!(
        full,
        "GET /check/pA?b=2&a&c=3&b=4 HTTP/1.1 | accept: a1,a2 | authorization: tok | content-length: 0 | cookie: c=1 | \
         host: Web.example:80 | my-suf: s | x-a: over | x-add: v | x-pct: 100%"
    );
}

#[tokio::test]
async fn http_providers_get_the_body_as_it_is() {
    let check =
        CheckRequest { method: Some("POST".into()), body: Some("12345678".into()), body_partial: true, ..request() };
    let (head, body) = http_asked(&check, |_| {}).await;
    assert!(head.contains(" | content-length: 8 | ") && head.contains(" | x-envoy-auth-partial-body: true"), "{head}");
    assert_eq!((head.split(' ').next(), body.as_str()), (Some("POST"), "12345678"));
}

/// What may stand in a query that browsers send, but not in a request line.
#[tokio::test]
async fn odd_characters_of_a_target_reach_http_providers_escaped() {
    let check = CheckRequest { target: Some("/a?q=<x>&r=^`{|}\"\\".into()), ..request() };
    let (head, _) = http_asked(&check, |_| {}).await;
    assert!(head.starts_with("GET /a?q=%3Cx%3E&r=%5E%60%7B|%7D%22%5C HTTP/1.1 | "), "{head}");
}

#[tokio::test]
async fn services_are_found_by_what_was_told_then_by_address_then_by_name() {
    let server = GrpcServer::saying(CheckResponse::default()).await;
    let port = server.address.port();
    let told = TcpDial::new([(("ext.foo.svc.cluster.local".to_owned(), 9000), vec![server.address])].into());
    for (service, port, reached) in [
        ("foo/Ext.foo.svc.cluster.local", 9000, 1),
        ("ext.foo.svc.cluster.local", 9001, 1),
        ("127.0.0.1", port, 2),
        ("localhost", port, 3),
    ] {
        let mut config = grpc(server.address);
        (config.service, config.port) = (service.into(), port);
        let mesh = mesh(vec![("ext", ProviderKind::ExtAuthzGrpc(config))]);
        Providers::new(&mesh, Arc::new(told.clone())).check("ext", &request()).await;
        assert_eq!(server.seen().len(), reached, "{service}");
    }
}
