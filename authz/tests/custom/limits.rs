//! What a provider may cost: checks at once, checks that wait, and the circuit that opens when it is down.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use palisade_authz::provider::{Dial, Dialing, Io, Limits, Providers};
use palisade_policies::ProviderKind;
use palisade_wire::envoy::envoy::service::auth::v3::CheckResponse;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::support::{
    GrpcServer, RawServer, grpc, http, http_server, limited, mesh, nobody, read_request, request, short, soon,
};

const YES: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

async fn check(providers: &Providers) -> String {
    short(&providers.check("ext", &request()).await)
}

/// A provider that tells of each request and answers when it is let.
async fn held() -> (RawServer, mpsc::UnboundedReceiver<()>, Arc<Notify>) {
    let ((tell, told), go) = (mpsc::unbounded_channel(), Arc::new(Notify::new()));
    let let_go = Arc::clone(&go);
    let server = RawServer::start(move |_, mut stream| {
        let (tell, go) = (tell.clone(), Arc::clone(&let_go));
        async move {
            while read_request(&mut stream).await.is_some() {
                tell.send(()).unwrap();
                go.notified().await;
                drop(stream.write_all(YES).await);
            }
        }
    });
    (server.await, told, go)
}

#[tokio::test]
async fn more_checks_than_may_wait_are_errors_at_once() {
    let (server, mut told, go) = held().await;
    let limits = Limits { max_concurrent: 1, max_pending: 1, ..Limits::default() };
    let providers = Arc::new(limited(ProviderKind::ExtAuthzHttp(http(server.address)), limits));
    let mut checks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let providers = Arc::clone(&providers);
        checks.spawn(async move { check(&providers).await });
    }
    soon(told.recv()).await.unwrap();
    // One is under way and one waits; the third comes back before anybody is answered.
    assert_eq!(soon(checks.join_next()).await.unwrap().unwrap(), "custom-error 403 [] ");
    go.notify_one();
    assert_eq!(soon(checks.join_next()).await.unwrap().unwrap(), "ok ext");
    soon(told.recv()).await.unwrap();
    go.notify_one();
    assert_eq!(soon(checks.join_next()).await.unwrap().unwrap(), "ok ext");
    assert_eq!(providers.counts().next().unwrap().1.rejected, 1);
    assert_eq!(server.connections(), 1);
}

static LATER: AtomicU64 = AtomicU64::new(0);

fn clock() -> Instant {
    static BASE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *BASE.get_or_init(Instant::now) + Duration::from_secs(LATER.load(Ordering::SeqCst))
}

/// Connects where it is told, if it is up.
struct Switch(Arc<AtomicBool>, std::net::SocketAddr);

impl Dial for Switch {
    fn dial<'a>(&'a self, _: &'a str, _: u16) -> Dialing<'a> {
        Box::pin(async move {
            if !self.0.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(Box::new(TcpStream::connect(self.1).await?) as Box<dyn Io>)
        })
    }
}

fn switched(up: &Arc<AtomicBool>, server: &RawServer, failures: u32) -> Providers {
    let limits = Limits { failures, open_for: Duration::from_secs(1), now: clock, ..Limits::default() };
    let mesh = mesh(vec![("ext", ProviderKind::ExtAuthzHttp(http(server.address)))]);
    Providers::with_limits(&mesh, Arc::new(Switch(Arc::clone(up), server.address)), limits)
}

#[tokio::test]
async fn the_circuit_opens_when_a_provider_is_down_and_closes_when_it_is_back() {
    let (server, seen) = http_server("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let up = Arc::new(AtomicBool::new(false));
    let providers = switched(&up, &server, 2);
    let counts = || providers.counts().next().unwrap().1;
    for rejected in [0, 0, 1, 2] {
        assert_eq!(check(&providers).await, "custom-error 403 [] ");
        assert_eq!(counts().rejected, rejected);
    }
    up.store(true, Ordering::SeqCst);
    assert_eq!(check(&providers).await, "custom-error 403 [] ", "still open");
    assert!(seen.lock().unwrap().is_empty());
    LATER.fetch_add(1, Ordering::SeqCst);
    assert_eq!([check(&providers).await, check(&providers).await], ["ok ext", "ok ext"]);
    assert_eq!((counts().rejected, counts().error, counts().ok), (3, 5, 2));
}

/// One that rests for a minute may be forgotten on the way, and an old one may lead where nobody is any more.
#[tokio::test]
async fn connections_are_used_for_a_while_only() {
    thread_local! {
        static LATER: Cell<Duration> = const { Cell::new(Duration::ZERO) };
        static BASE: Instant = Instant::now();
    }
    let later = |seconds| LATER.set(LATER.get() + Duration::from_secs(seconds));
    let limits = || Limits { now: || BASE.with(|base| *base) + LATER.get(), ..Limits::default() };
    let (server, _) = http_server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let over_http = limited(ProviderKind::ExtAuthzHttp(http(server.address)), limits());
    for (passed, connections) in [(0, 1), (59, 1), (60, 2), (0, 2)].into_iter().chain([(59, 2); 61]).chain([(59, 3)]) {
        later(passed);
        assert_eq!(check(&over_http).await, "ok ext");
        assert_eq!(server.connections(), connections, "{passed} s, at {:?}", LATER.get());
    }
    let server = GrpcServer::saying(CheckResponse::default()).await;
    let over_grpc = limited(ProviderKind::ExtAuthzGrpc(grpc(server.address)), limits());
    for (passed, connections) in [(0, 1), (3599, 1), (1, 2), (0, 2)] {
        later(passed);
        assert_eq!(check(&over_grpc).await, "ok ext");
        assert_eq!(over_grpc.counts().next().unwrap().1.connections, connections, "{passed}");
    }
}

/// A provider that says 500 is there: nobody is spared anything by not asking it.
#[tokio::test]
async fn errors_that_are_answers_open_nothing() {
    let (server, seen) = http_server("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
    let providers = switched(&Arc::new(AtomicBool::new(true)), &server, 1);
    for _ in 0..3 {
        assert_eq!(check(&providers).await, "custom-error 403 [] ");
    }
    assert_eq!((seen.lock().unwrap().len(), server.connections()), (3, 1));
}

/// A connection that does not come about is given up before the check is.
#[tokio::test(start_paused = true)]
async fn connecting_takes_no_longer_than_it_may() {
    struct Never;
    impl Dial for Never {
        fn dial<'a>(&'a self, _: &'a str, _: u16) -> Dialing<'a> {
            Box::pin(std::future::pending())
        }
    }
    let address = nobody().await;
    for kind in [ProviderKind::ExtAuthzHttp(http(address)), ProviderKind::ExtAuthzGrpc(grpc(address))] {
        let providers = Providers::new(&mesh(vec![("ext", kind)]), Arc::new(Never));
        let began = Instant::now();
        assert_eq!(check(&providers).await, "custom-error 403 [] ");
        assert_eq!(began.elapsed().as_secs(), 10);
        assert_eq!(providers.counts().next().unwrap().1.timeout, 0);
    }
}
