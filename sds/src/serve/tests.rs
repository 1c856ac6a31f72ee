//! Both services over a real socket.

use std::os::unix::fs::PermissionsExt;

use palisade_identity::SvidSource;
use palisade_wire::channel;
use palisade_wire::envoy::envoy::extensions::transport_sockets::tls::v3::Secret;
use palisade_wire::envoy::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use palisade_wire::envoy::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use palisade_wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use palisade_wire::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest,
};
use prometheus_client::registry::Registry;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::*;
use crate::fixtures::{Authority, START, TestClock, TestSource, entry, register};
use crate::roster::Roster;
use crate::workload::PATIENCE;

const ID: &str = "spiffe://a.test/ns/web/sa/front";

/// A served socket; stopped and awaited by [`Served::stop`].
struct Served {
    dir: tempfile::TempDir,
    authority: Authority,
    source: Arc<TestSource>,
    clock: Arc<TestClock>,
    roster: Arc<Roster>,
    registry: Registry,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start(allowed_uids: Vec<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (authority, source, clock) = (Authority::new("a"), TestSource::new(None), TestClock::new());
        let mut registry = Registry::default();
        let roster = Arc::new(Roster::default());
        roster.update(|state| state.entries = Some(Arc::default()));
        let feed = Feed::new(source.clone(), roster.clone(), clock.clone(), &allowed_uids);
        // Nobody listens there: these tests have no server.
        let tokens = Arc::new(Tokens::new(|| Ok(channel::unix("/nowhere/nobody.sock")), clock.clone()));
        let service = Service { feed, attestor: Attestor::new(), tokens, metrics: Metrics::register(&mut registry) };
        let shutdown = CancellationToken::new();
        let (path, stop) = (dir.path().join("run/workload.sock"), shutdown.clone());
        let task = tokio::spawn(serve(service, bind(&path).unwrap(), stop));
        Self { dir, authority, source, clock, roster, registry, shutdown, task }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("run/workload.sock")
    }

    fn workload(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(channel::unix(self.path()))
    }

    fn secrets(&self) -> SecretDiscoveryServiceClient<Channel> {
        SecretDiscoveryServiceClient::new(channel::unix(self.path()))
    }

    fn rotate(&self) -> String {
        let identity = self.authority.identity(ID);
        let serial = identity.svid.serial().to_owned();
        self.source.set(identity);
        serial
    }

    fn metric(&self, line: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines().any(|found| found == line)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
        assert!(!self.dir.path().join("run/workload.sock").exists());
    }
}

/// A request with the security header.
fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

#[tokio::test]
async fn the_socket_is_for_everybody_and_its_directory_is_not() {
    let served = Served::start(Vec::new()).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&served.path()), 0o666);
    assert_eq!(mode(served.path().parent().unwrap()), 0o755);
    served.stop().await;
}

#[tokio::test]
async fn trap_35_a_live_socket_is_not_taken_over() {
    let served = Served::start(Vec::new()).await;
    let error = bind(&served.path()).unwrap_err();
    assert!(matches!(error, ServeError::Socket(SocketError::InUse(_))), "{error:?}");
    let below_a_file = bind(&served.path().join("x/y.sock")).unwrap_err();
    assert!(matches!(below_a_file, ServeError::Directory { .. }), "{below_a_file:?}");
    served.stop().await;
}

#[tokio::test]
async fn trap_46_calls_without_the_exact_header_are_invalid() {
    let served = Served::start(Vec::new()).await;
    served.rotate();
    let mut client = served.workload();
    for value in [None, Some("True"), Some(""), Some("true ,")] {
        let mut svid = Request::new(X509svidRequest {});
        let mut bundles = Request::new(X509BundlesRequest {});
        if let Some(value) = value {
            svid.metadata_mut().insert("workload.spiffe.io", value.parse().unwrap());
            bundles.metadata_mut().insert("workload.spiffe.io", value.parse().unwrap());
        }
        assert_eq!(client.fetch_x509svid(svid).await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(client.fetch_x509_bundles(bundles).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(served.metric("palisade_workload_api_requests_total{code=\"INVALID_ARGUMENT\"} 8"));
    served.stop().await;
}

#[tokio::test]
async fn other_users_get_nothing() {
    let other = rustix::process::geteuid().as_raw() + 1;
    let served = Served::start(vec![other]).await;
    served.rotate();
    let denied = served.workload().fetch_x509svid(call(X509svidRequest {})).await.unwrap_err();
    assert_eq!((denied.code(), denied.message()), (Code::PermissionDenied, "no identity issued"));
    let denied = served.workload().fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let denied = served.secrets().fetch_secrets(DiscoveryRequest::default()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let stream = tokio_stream::iter([DiscoveryRequest::default()]);
    assert_eq!(served.secrets().stream_secrets(stream).await.unwrap_err().code(), Code::PermissionDenied);
    let stream = tokio_stream::iter([DeltaDiscoveryRequest::default()]);
    assert_eq!(served.secrets().delta_secrets(stream).await.unwrap_err().code(), Code::PermissionDenied);
    served.stop().await;
}

#[tokio::test]
async fn trap_46_an_svid_comes_at_once_without_its_root_and_again_at_each_change() {
    let served = Served::start(Vec::new()).await;
    let early = served.workload().fetch_x509svid(call(X509svidRequest {})).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    served.rotate();
    let mut stream = served.workload().fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let current = served.source.current().unwrap();
    let [svid] = first.svids.as_slice() else { panic!("one identity") };
    assert_eq!(svid.spiffe_id, ID);
    let chain: Vec<u8> = current.svid.chain().iter().flat_map(|c| c.to_vec()).collect();
    assert_eq!(svid.x509_svid, chain, "leaf and intermediate, no root");
    assert_eq!(svid.x509_svid_key, current.svid.key().as_pkcs8_der());
    assert_eq!(svid.bundle, served.authority.root_der().to_vec());
    assert!(first.federated_bundles.is_empty() && svid.hint.is_empty());
    served.source.set(current);
    served.rotate();
    let second = stream.message().await.unwrap().unwrap();
    assert_ne!(second.svids[0].x509_svid, svid.x509_svid, "the same identity again was no news");
    served.stop().await;
    assert!(stream.message().await.is_ok_and(|end| end.is_none()), "a stop ends streams in order");
}

#[tokio::test]
async fn trap_46_bundles_are_the_whole_map_and_survive_the_certificate() {
    let served = Served::start(Vec::new()).await;
    served.rotate();
    served.clock.set(START + 100_000);
    let expired = served.workload().fetch_x509svid(call(X509svidRequest {})).await.unwrap_err();
    assert_eq!(expired.code(), Code::Unavailable);
    assert!(expired.message().contains(ID), "{}", expired.message());
    let mut stream = served.workload().fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let root = served.authority.root_der().to_vec();
    assert_eq!(first.bundles, [("spiffe://a.test".to_owned(), root)].into());
    served.stop().await;
}

#[tokio::test]
async fn every_call_wants_the_header_and_a_token_somebody_it_is_for() {
    let served = Served::start(Vec::new()).await;
    served.rotate();
    let mut client = served.workload();
    let bare = [
        client.fetch_jwtsvid(JwtsvidRequest::default()).await.unwrap_err().code(),
        client.fetch_jwt_bundles(JwtBundlesRequest {}).await.unwrap_err().code(),
        client.validate_jwtsvid(ValidateJwtsvidRequest::default()).await.unwrap_err().code(),
    ];
    assert_eq!(bare, [Code::InvalidArgument; 3]);
    for audience in [vec![], vec![String::new()]] {
        let fetch = JwtsvidRequest { audience, spiffe_id: String::new() };
        assert_eq!(client.fetch_jwtsvid(call(fetch)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let nobody = ValidateJwtsvidRequest { audience: String::new(), svid: "a.b.c".to_owned() };
    assert_eq!(client.validate_jwtsvid(call(nobody)).await.unwrap_err().code(), Code::InvalidArgument);
    let broken = ValidateJwtsvidRequest { audience: "db".to_owned(), svid: "a.b.c".to_owned() };
    assert_eq!(client.validate_jwtsvid(call(broken)).await.unwrap_err().code(), Code::InvalidArgument);
    let fetch = |spiffe_id: &str| JwtsvidRequest { audience: vec!["db".to_owned()], spiffe_id: spiffe_id.to_owned() };
    let foreign = client.fetch_jwtsvid(call(fetch("spiffe://a.test/other"))).await.unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied);
    assert_eq!(client.fetch_jwtsvid(call(fetch(ID))).await.unwrap_err().code(), Code::Unavailable, "no server");
    let mut bundles = client.fetch_jwt_bundles(call(JwtBundlesRequest {})).await.unwrap().into_inner();
    let none = [("spiffe://a.test".to_owned(), br#"{"keys":[]}"#.to_vec())];
    assert_eq!(bundles.message().await.unwrap().unwrap().bundles, none.into());
    served.roster.update(|state| state.jwks = Arc::new([("a.test".to_owned(), "KEYS".to_owned())].into()));
    let some = [("spiffe://a.test".to_owned(), b"KEYS".to_vec())];
    assert_eq!(bundles.message().await.unwrap().unwrap().bundles, some.into());
    served.stop().await;
}

#[tokio::test]
async fn nothing_is_given_out_before_it_is_known_who_gets_what() {
    let served = Served::start(Vec::new()).await;
    served.rotate();
    served.roster.update(|state| state.entries = None);
    let early = served.secrets().fetch_secrets(ask("default", None)).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    let mut client = served.workload();
    let waiting = tokio::spawn(async move { client.fetch_x509svid(call(X509svidRequest {})).await });
    served.roster.update(|state| state.entries = Some(Arc::default()));
    assert!(waiting.await.unwrap().is_ok(), "it waited");
    served.stop().await;
}

/// Trap 46: the first message is delayed by nothing but the default identity itself.
#[tokio::test]
async fn trap_46_an_entry_that_is_refused_delays_nobody() {
    let served = Served::start(Vec::new()).await;
    served.rotate();
    let user = format!("unix:uid:{}", rustix::process::geteuid().as_raw());
    register(&served.roster, &served.authority, vec![entry("good", &[&user]), entry("refused", &[&user])]);
    let without = |name: &str| {
        served.roster.update(|state| {
            let kept = state.svids.iter().filter(|(id, _)| *id != name).map(|(id, held)| (id.clone(), held.clone()));
            state.svids = Arc::new(kept.collect());
        });
    };
    without("refused");
    let begun = std::time::Instant::now();
    let mut stream = served.workload().fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().svids[0].spiffe_id, "spiffe://a.test/good");
    without("good");
    let mut bundles = served.workload().fetch_x509_bundles(call(X509BundlesRequest {})).await.unwrap().into_inner();
    assert_eq!(bundles.message().await.unwrap().unwrap().bundles.len(), 1, "bundles wait for no certificate");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    served.stop().await;
}

fn ask(name: &str, answering: Option<&DiscoveryResponse>) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: vec![name.to_owned()],
        version_info: answering.map(|r| r.version_info.clone()).unwrap_or_default(),
        response_nonce: answering.map(|r| r.nonce.clone()).unwrap_or_default(),
        ..DiscoveryRequest::default()
    }
}

#[tokio::test]
async fn a_secret_stream_waits_follows_and_ends_with_the_process() {
    let served = Served::start(Vec::new()).await;
    let (send, requests) = mpsc::unbounded_channel();
    send.send(ask("default", None)).unwrap();
    let answer = served.secrets().stream_secrets(UnboundedReceiverStream::new(requests)).await.unwrap();
    let mut stream = answer.into_inner();
    assert!(served.metric("palisade_sds_streams 1"));
    served.rotate();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(Secret::decode(first.resources[0].value.as_slice()).unwrap().name, "default");
    send.send(ask("default", Some(&first))).unwrap();
    served.rotate();
    let second = stream.message().await.unwrap().unwrap();
    assert_ne!(first.version_info, second.version_info);
    assert!(served.metric("palisade_sds_pushes_total 2"));
    served.shutdown.cancel();
    assert!(stream.message().await.unwrap().is_none());
    served.stop().await;
}

#[tokio::test]
async fn delta_and_fetch_serve_the_same() {
    let served = Served::start(Vec::new()).await;
    let early = served.secrets().fetch_secrets(ask("default", None)).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
    served.rotate();
    let fetched = served.secrets().fetch_secrets(ask("default", None)).await.unwrap().into_inner();
    let subscribe = DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["default".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    let (send, requests) = mpsc::unbounded_channel();
    send.send(subscribe).unwrap();
    let answer = served.secrets().delta_secrets(UnboundedReceiverStream::new(requests)).await.unwrap();
    let delta = answer.into_inner().message().await.unwrap().unwrap();
    assert_eq!(delta.resources[0].resource.as_ref(), fetched.resources.first());
    assert_eq!(delta.resources[0].version, fetched.version_info);
    served.stop().await;
}
