//! Connections: kept while they live, replaced when they die, and never asked twice once an answer began.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade_authz::provider::{Counts, Providers};
use palisade_policies::ProviderKind;
use palisade_wire::envoy::envoy::service::auth::v3::CheckResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{GrpcServer, RawServer, grpc, http, mesh, providers, read_request, request, short, soon};

const YES: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn counts(providers: &Providers) -> Counts {
    providers.counts().next().unwrap().1
}

async fn check(providers: &Providers) -> String {
    short(&providers.check("ext", &request()).await)
}

fn over_http(server: &RawServer) -> Providers {
    providers(ProviderKind::ExtAuthzHttp(http(server.address)))
}

#[tokio::test]
async fn an_http_connection_is_used_again() {
    let answers = [
        YES,
        b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        YES,
    ];
    let server = RawServer::start(move |_, mut stream| async move {
        for answer in answers {
            drop(read_request(&mut stream).await);
            drop(stream.write_all(answer).await);
        }
    })
    .await;
    let providers = over_http(&server);
    for expected in ["ok ext", "custom-denied 401 [content-type=text/plain] no", "ok ext", "ok ext"] {
        assert_eq!(check(&providers).await, expected);
    }
    assert_eq!((server.connections(), counts(&providers).connections), (1, 1));
}

#[tokio::test]
async fn an_http_provider_that_closes_is_connected_to_anew() {
    for announced in [true, false] {
        let server = RawServer::start(move |_, mut stream| async move {
            drop(read_request(&mut stream).await);
            let close = if announced { "connection: close\r\n" } else { "" };
            drop(stream.write_all(format!("HTTP/1.1 200 OK\r\n{close}content-length: 0\r\n\r\n").as_bytes()).await);
        })
        .await;
        let providers = over_http(&server);
        for _ in 0..3 {
            assert_eq!(check(&providers).await, "ok ext", "announced: {announced}");
        }
        assert_eq!((server.connections(), counts(&providers).error), (3, 0));
    }
}

/// Answers the first request of the first connection; what becomes of its second one is up to `end`.
async fn dying(end: &'static [u8]) -> RawServer {
    RawServer::start(move |number, mut stream: TcpStream| async move {
        drop(read_request(&mut stream).await);
        drop(stream.write_all(YES).await);
        drop(read_request(&mut stream).await);
        drop(stream.write_all(if number == 0 { end } else { YES }).await);
    })
    .await
}

#[tokio::test]
async fn an_http_connection_that_died_unheard_is_replaced_once() {
    let server = dying(b"").await;
    let providers = over_http(&server);
    assert_eq!([check(&providers).await, check(&providers).await], ["ok ext", "ok ext"]);
    assert_eq!((server.connections(), counts(&providers).retries), (2, 1));
}

#[tokio::test]
async fn an_http_answer_that_began_is_not_asked_for_again() {
    for end in [&b"H"[..], b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab"] {
        let server = dying(end).await;
        let providers = over_http(&server);
        assert_eq!([check(&providers).await, check(&providers).await], ["ok ext", "custom-error 403 [] "]);
        assert_eq!((server.connections(), counts(&providers).retries), (1, 0));
    }
}

#[tokio::test]
async fn a_fresh_connection_that_dies_is_not_replaced() {
    let server = RawServer::start(|_, mut stream| async move { drop(read_request(&mut stream).await) }).await;
    let providers = over_http(&server);
    assert_eq!(check(&providers).await, "custom-error 403 [] ");
    assert_eq!((server.connections(), counts(&providers).retries), (1, 0));
}

#[tokio::test]
async fn a_check_that_is_given_up_closes_its_connection() {
    let (asked, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (heard, ended) = (Arc::clone(&asked), Arc::clone(&closed));
    let server = RawServer::start(move |_, mut stream| {
        let (heard, ended) = (Arc::clone(&heard), Arc::clone(&ended));
        async move {
            drop(read_request(&mut stream).await);
            heard.notify_one();
            assert!(read_request(&mut stream).await.is_none());
            ended.notify_one();
        }
    })
    .await;
    let providers = over_http(&server);
    tokio::select! {
        verdict = check(&providers) => panic!("{verdict}"),
        () = soon(asked.notified()) => {}
    }
    soon(closed.notified()).await;
}

/// Passes bytes between a client and the provider behind it; when told, hangs up on the next request of its first
/// connection.
async fn relay(provider: &GrpcServer, hang_up: Arc<AtomicBool>) -> RawServer {
    let provider = provider.address;
    RawServer::start(move |number, client| {
        let hang_up = Arc::clone(&hang_up);
        async move {
            let server = TcpStream::connect(provider).await.unwrap();
            let ((mut from, mut to), (mut back, mut home)) = (client.into_split(), server.into_split());
            let requests = async {
                let mut preface = [0; 24];
                from.read_exact(&mut preface).await?;
                home.write_all(&preface).await?;
                loop {
                    let mut head = [0; 9];
                    from.read_exact(&mut head).await?;
                    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                    from.read_exact(&mut payload).await?;
                    // A HEADERS frame opens a request.
                    if head[3] == 1 && number == 0 && hang_up.load(Ordering::SeqCst) {
                        return std::io::Result::Ok(());
                    }
                    home.write_all(&head).await?;
                    home.write_all(&payload).await?;
                }
            };
            tokio::select! {
                _ = requests => {}
                _ = tokio::io::copy(&mut back, &mut to) => {}
            }
        }
    })
    .await
}

#[tokio::test]
async fn one_grpc_connection_serves_all_and_is_replaced_when_it_dies() {
    let provider = GrpcServer::saying(CheckResponse::default()).await;
    let hang_up = Arc::new(AtomicBool::new(false));
    let relay = relay(&provider, Arc::clone(&hang_up)).await;
    let providers = providers(ProviderKind::ExtAuthzGrpc(grpc(relay.address)));
    let providers = Arc::new(providers);
    let mut checks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let providers = Arc::clone(&providers);
        checks.spawn(async move { check(&providers).await });
    }
    assert!(checks.join_all().await.iter().all(|verdict| verdict == "ok ext"));
    assert_eq!((relay.connections(), counts(&providers).connections), (1, 1));
    hang_up.store(true, Ordering::SeqCst);
    assert_eq!(check(&providers).await, "ok ext");
    assert_eq!((relay.connections(), counts(&providers).retries, provider.seen().len()), (2, 1, 51));
}

#[tokio::test]
async fn a_grpc_provider_that_restarts_between_two_checks_is_found_again() {
    let provider = GrpcServer::saying(CheckResponse::default()).await;
    let (address, cut) = (provider.address, Arc::new(Notify::new()));
    let ends = Arc::clone(&cut);
    let relay = RawServer::start(move |number, mut client| {
        let ends = Arc::clone(&ends);
        async move {
            let mut server = TcpStream::connect(address).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                () = ends.notified(), if number == 0 => {}
            }
        }
    })
    .await;
    let providers = providers(ProviderKind::ExtAuthzGrpc(grpc(relay.address)));
    assert_eq!(check(&providers).await, "ok ext");
    cut.notify_one();
    assert_eq!(check(&providers).await, "ok ext");
    assert_eq!((provider.seen().len(), counts(&providers).error), (2, 0));
}

#[tokio::test]
async fn a_new_configuration_keeps_the_connections_of_what_did_not_change() {
    let server = RawServer::start(|_, mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            drop(stream.write_all(YES).await);
        }
    })
    .await;
    let kind = |fail_open| {
        let mut config = http(server.address);
        config.fail_open = fail_open;
        ProviderKind::ExtAuthzHttp(config)
    };
    let first =
        Providers::new(&mesh(vec![("ext", kind(false))]), Arc::new(palisade_authz::provider::TcpDial::default()));
    assert_eq!(check(&first).await, "ok ext");
    let zipkin = ProviderKind::Other("zipkin".into());
    let same = first.renewed(&mesh(vec![("zip", zipkin), ("ext", kind(false)), ("new", kind(false))]));
    assert_eq!(check(&same).await, "ok ext");
    assert_eq!((server.connections(), counts(&same).ok, same.counts().count()), (1, 2, 2));
    let changed = same.renewed(&mesh(vec![("ext", kind(true))]));
    assert_eq!(check(&changed).await, "ok ext");
    assert_eq!((server.connections(), counts(&changed).ok), (2, 1));
    assert!(changed.body_wanted("ext").is_none() && changed.body_wanted("none").is_none());
}
