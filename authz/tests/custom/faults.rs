//! Providers that fail, each in its own way: the configuration decides what becomes of the request, and no part of a
//! broken answer reaches anybody.

use std::time::Duration;

use palisade_authz::provider::{Limits, Providers, Verdict};
use palisade_policies::ProviderKind;
use palisade_wire::envoy::envoy::service::auth::v3::OkHttpResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Status;

use crate::support::{
    GrpcServer, RawServer, grpc, http, limited, nobody, option, providers, read_request, refusing, request, setting,
    short, yes,
};

/// An empty SETTINGS frame: the beginning of HTTP/2.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Both forms, once closed with 503 and once open.
async fn fails(address: std::net::SocketAddr, timeout: Duration, case: &str) {
    for open in [false, true] {
        let (mut http, mut grpc) = (http(address), grpc(address));
        (http.timeout, http.fail_open, http.status_on_error) = (timeout, open, Some(503));
        (grpc.timeout, grpc.fail_open, grpc.status_on_error) = (timeout, open, Some(503));
        for kind in [ProviderKind::ExtAuthzHttp(http), ProviderKind::ExtAuthzGrpc(grpc)] {
            let case = format!("{case}, {kind:?}");
            let providers = providers(kind);
            refused_or_open(&providers.check("ext", &request()).await, open, &case);
            let (_, counts) = providers.counts().next().unwrap();
            let unreached = u64::from(case.starts_with("nobody"));
            assert_eq!((counts.error, counts.failure_mode_allowed, counts.ok), (1, open.into(), 0), "{case}");
            assert_eq!((counts.connections, counts.retries), (1 - unreached, 0), "{case}");
            assert_eq!(counts.timeout, u64::from(case.starts_with("silent")), "{case}");
        }
    }
}

fn refused_or_open(verdict: &Verdict, open: bool, case: &str) {
    match verdict {
        Verdict::Approved { edits, response_headers, metadata, .. } if open => {
            assert!(edits.is_empty() && response_headers.is_empty() && metadata.is_none(), "{case}");
        }
        refused => assert!(!open && short(refused) == "custom-error 503 [] ", "{case}: {}", short(refused)),
    }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_provider_that_is_not_there() {
    fails(nobody().await, LONG, "nobody listens").await;
}

#[tokio::test]
async fn a_provider_that_never_answers() {
    let server = RawServer::start(|_, mut stream| async move {
        while stream.read_buf(&mut Vec::new()).await.is_ok_and(|n| n > 0) {}
    });
    fails(server.await.address, Duration::from_millis(50), "silent").await;
}

#[tokio::test]
async fn a_provider_whose_answer_never_ends() {
    let server = RawServer::start(|_, mut stream| async move {
        drop(read_request(&mut stream).await);
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await);
        while stream.read_buf(&mut Vec::new()).await.is_ok_and(|n| n > 0) {}
    });
    let server = server.await;
    let mut config = http(server.address);
    config.timeout = Duration::from_millis(50);
    let providers = providers(ProviderKind::ExtAuthzHttp(config));
    assert_eq!(short(&providers.check("ext", &request()).await), "custom-error 403 [] ");
    assert_eq!(providers.counts().next().unwrap().1.timeout, 1);
}

#[tokio::test]
async fn a_provider_that_hears_but_no_longer_speaks() {
    let server = RawServer::start(|_, mut stream| async move {
        drop(stream.shutdown().await);
        while stream.read_buf(&mut Vec::new()).await.is_ok_and(|n| n > 0) {}
    });
    fails(server.await.address, LONG, "half-open").await;
}

#[tokio::test]
async fn a_provider_that_hangs_up() {
    let server = RawServer::start(|_, stream: TcpStream| async move { drop(stream) });
    fails(server.await.address, LONG, "hung up").await;
}

#[tokio::test]
async fn a_provider_that_breaks_off() {
    for answer in ["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "HTTP/1.1 200 OK\r\nx-a", "H"] {
        let server = RawServer::start(move |_, mut stream| async move {
            drop(stream.read_buf(&mut Vec::with_capacity(4096)).await);
            drop(stream.write_all(answer.as_bytes()).await);
        });
        fails(server.await.address, LONG, answer).await;
    }
    let server = RawServer::start(|_, mut stream| async move {
        drop(stream.write_all(SETTINGS).await);
        drop(stream.read_buf(&mut Vec::with_capacity(4096)).await);
    });
    fails(server.await.address, LONG, "settings").await;
}

#[tokio::test]
async fn a_provider_that_speaks_something_else() {
    for garbage in [
        &b"\x00\xff\x10garbage without end of line and without sense ............................................"[..],
        b"HTTP/1.1 200 OK\r\nx-a: b\0c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n x-folded: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx a: 1\r\n\r\n",
        b"HTTP/1.1 99 What\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"\x00\x00\x05\x00\x00\x00\x00\x00\x00hello",
    ] {
        let server = RawServer::start(move |_, mut stream| async move {
            drop(stream.read_buf(&mut Vec::with_capacity(4096)).await);
            drop(stream.write_all(garbage).await);
            drop(stream.shutdown().await);
            while stream.read_buf(&mut Vec::new()).await.is_ok_and(|n| n > 0) {}
        });
        fails(server.await.address, LONG, &String::from_utf8_lossy(garbage)).await;
    }
}

#[tokio::test]
async fn errors_of_the_provider_itself() {
    for status in [Status::permission_denied("no"), Status::unavailable("no"), Status::ok("odd")] {
        let code = status.code();
        let server = GrpcServer::start(move |_| Err(status.clone())).await;
        let verdict = providers(ProviderKind::ExtAuthzGrpc(grpc(server.address))).check("ext", &request()).await;
        assert_eq!(short(&verdict), "custom-error 403 [] ", "{code:?}");
    }
}

#[tokio::test]
async fn grpc_answers_that_cannot_be_obeyed() {
    let response = |name, value| {
        let headers = vec![option(name, value, None, 0)];
        yes(OkHttpResponse { response_headers_to_add: headers, ..OkHttpResponse::default() })
    };
    let many: Vec<_> = (0..101).map(|n| option(&format!("x-{n}"), "v", None, 0)).collect();
    let long = "v".repeat(61 * 1024);
    for answer in [
        setting(&[("x-a", "p\r\nx-evil: 1")]),
        setting(&[("x a", "p")]),
        setting(&[("", "p")]),
        setting(&[("x-a", "a\0b")]),
        setting(&[(":path", "no-slash")]),
        setting(&[(":path", "/a b")]),
        setting(&[(":path", "/a#b")]),
        setting(&[(":path", "/é")]),
        setting(&[(":authority", "user@host")]),
        setting(&[("host", "")]),
        setting(&[(":method", "CONNECT")]),
        setting(&[(":method", "get it")]),
        setting(&[("x-long", &long)]),
        yes(OkHttpResponse { headers: many, ..OkHttpResponse::default() }),
        response("x-up", "1\r\nx-evil: 1"),
        response("x up", "1"),
        response("x-up", &long),
        refusing(403, vec![option("x-d", "1\r\nx-evil: 1", None, 0)], ""),
        refusing(100, Vec::new(), ""),
        refusing(1000, Vec::new(), ""),
        refusing(-1, Vec::new(), ""),
    ] {
        let server = GrpcServer::saying(answer.clone()).await;
        let providers = providers(ProviderKind::ExtAuthzGrpc(grpc(server.address)));
        assert_eq!(short(&providers.check("ext", &request()).await), "custom-error 403 [] ", "{answer:?}");
        assert_eq!(providers.counts().next().unwrap().1.invalid, 1, "{answer:?}");
    }
}

#[tokio::test]
async fn answers_that_are_too_long() {
    let limits = || Limits { max_answer: 1000, ..Limits::default() };
    let server = GrpcServer::saying(refusing(403, Vec::new(), &"x".repeat(2000))).await;
    let verdict = limited(ProviderKind::ExtAuthzGrpc(grpc(server.address)), limits()).check("ext", &request()).await;
    assert_eq!(short(&verdict), "custom-error 403 [] ");
    let body = format!("HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{}", "x".repeat(2000));
    let chunked =
        format!("HTTP/1.1 401 No\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", "1\r\nx\r\n".repeat(2000));
    let head = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(70_000));
    // One that never ends is not read for ever.
    let endless = format!("HTTP/1.1 200 OK\r\nx-long: {}", "x".repeat(300_000));
    for (answer, whole_head) in [(body, true), (chunked, true), (head, false), (endless, false)] {
        let server = RawServer::start(move |_, mut stream| {
            let answer = answer.clone();
            async move {
                drop(read_request(&mut stream).await);
                drop(stream.write_all(answer.as_bytes()).await);
                while stream.read_buf(&mut Vec::new()).await.is_ok_and(|n| n > 0) {}
            }
        });
        let server = server.await;
        let mut config = http(server.address);
        config.timeout = Duration::from_secs(20);
        let providers = limited(ProviderKind::ExtAuthzHttp(config), limits());
        assert_eq!(short(&providers.check("ext", &request()).await), "custom-error 403 [] ");
        let (_, counts) = providers.counts().next().unwrap();
        assert_eq!((counts.connections, counts.timeout), (1, 0));
        assert!(!whole_head || counts.invalid == 1, "the provider is there");
    }
}

#[tokio::test]
async fn what_cannot_be_put_to_a_provider() {
    let (server, seen) = crate::support::http_server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let over_http = providers(ProviderKind::ExtAuthzHttp(http(server.address)));
    let mut connect = request();
    (connect.method, connect.target) = (Some("CONNECT".into()), None);
    let mut bare = request();
    (bare.method, bare.target, bare.tcp) = (None, None, true);
    for check in [connect, bare] {
        assert_eq!(short(&over_http.check("ext", &check).await), "custom-error 403 [] ");
    }
    assert!(seen.lock().unwrap().is_empty());
    assert_eq!(
        short(&over_http.check("other", &request()).await),
        "no-provider 403 [content-type=text/plain] RBAC: access denied"
    );
    assert_eq!(
        short(&Providers::none().check("ext", &request()).await),
        "no-provider 403 [content-type=text/plain] RBAC: access denied"
    );
    let mut nowhere = grpc(nobody().await);
    nowhere.service = "not a host".into();
    let verdict = providers(ProviderKind::ExtAuthzGrpc(nowhere)).check("ext", &request()).await;
    assert_eq!(short(&verdict), "custom-error 403 [] ");
}

/// Statuses that end no exchange are not what a refused caller gets.
#[tokio::test]
async fn an_informational_status_on_error_is_none() {
    let mut config = grpc(nobody().await);
    config.status_on_error = Some(100);
    let verdict = providers(ProviderKind::ExtAuthzGrpc(config)).check("ext", &request()).await;
    assert_eq!(short(&verdict), "custom-error 403 [] ");
}
