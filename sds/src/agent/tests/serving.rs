//! From the server's word to a process on the socket.

use palisade_wire::channel;
use palisade_wire::envoy::envoy::service::discovery::v3::DiscoveryRequest;
use palisade_wire::envoy::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use palisade_wire::envoy::google::rpc;
use palisade_wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use palisade_wire::workload::{JwtsvidRequest, X509svidRequest};
use tokio::time::{Instant, timeout};
use tonic::Request;
use tonic::transport::Channel;

use super::*;
use crate::fixtures::entry;

fn own_user() -> String {
    format!("unix:uid:{}", rustix::process::geteuid().as_raw())
}

/// An agent whose socket is served; this process is what calls it.
async fn served() -> (Scripted, Home, Running) {
    let scripted = Scripted::with_agents(Arc::new(Authority::new("a")), Behaviour::Issue(ID, 3600)).await;
    scripted.entries(vec![entry("web", &[&own_user()])]);
    let mut home = Home::pinned(&scripted);
    home.config.socket = Some(home.dir.path().join("run/workload.sock"));
    let agent = home.agent();
    agent.open_socket().unwrap();
    let running = Running::start(agent);
    running.until("a certificate", |agent| agent.inner.roster.now().svids.len() == 1).await;
    (scripted, home, running)
}

fn workload(home: &Home) -> SpiffeWorkloadApiClient<Channel> {
    SpiffeWorkloadApiClient::new(channel::unix(home.config.socket.as_ref().unwrap()))
}

fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// Trap 46: a stream whose last identity is withdrawn ends, and says so.
#[tokio::test]
async fn trap_46_an_entry_comes_and_goes_within_a_second_and_the_streams_end() {
    let (scripted, home, running) = served().await;
    let mut svids = workload(&home).fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let first = svids.message().await.unwrap().unwrap();
    assert_eq!(first.svids[0].spiffe_id, "spiffe://a.test/web");
    let mut secrets = SecretDiscoveryServiceClient::new(channel::unix(home.config.socket.as_ref().unwrap()));
    let asked = DiscoveryRequest { resource_names: vec!["default".to_owned()], ..DiscoveryRequest::default() };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([asked]), tokio_stream::pending());
    let mut stream = secrets.stream_secrets(requests).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().resources.len(), 1);
    let told = Instant::now();
    scripted.entries(vec![entry("web", &[&own_user()]), entry("db", &[&own_user()])]);
    let second = svids.message().await.unwrap().unwrap();
    assert_eq!(second.svids.len(), 2);
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    let told = Instant::now();
    scripted.entries(vec![entry("web", &["unix:uid:none"])]);
    let end = timeout(Duration::from_secs(20), svids.message()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::PermissionDenied);
    let end = timeout(Duration::from_secs(20), stream.message()).await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::PermissionDenied);
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    running.stop().await;
    scripted.stop().await;
}

/// Envoy keeps the bundle before and would refuse what the new root signs.
#[tokio::test]
async fn a_root_that_a_subscriber_rejects_is_reported_so_and_not_acknowledged() {
    let (scripted, home, running) = served().await;
    let (ours, other) = (scripted.authority.clone(), Authority::new("next"));
    let (send, requests) = tokio::sync::mpsc::unbounded_channel();
    let ask = |nonce: &str, error: Option<&str>| DiscoveryRequest {
        resource_names: vec!["ROOTCA".to_owned()],
        response_nonce: nonce.to_owned(),
        error_detail: error.map(|text| rpc::Status { code: 13, message: text.to_owned(), details: Vec::new() }),
        ..DiscoveryRequest::default()
    };
    send.send(ask("", None)).unwrap();
    let mut secrets = SecretDiscoveryServiceClient::new(channel::unix(home.config.socket.as_ref().unwrap()));
    let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(requests);
    let mut stream = secrets.stream_secrets(requests).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    send.send(ask(&first.nonce, None)).unwrap();
    running.until("one", |_| scripted.reports().last().is_some_and(|last| !last.bundle_digest.is_empty())).await;
    let old = scripted.reports().pop().unwrap().bundle_digest;
    scripted.tell(&[&ours, &other], |_| {});
    let second = stream.message().await.unwrap().unwrap();
    send.send(ask(&second.nonce, Some("what is this?"))).unwrap();
    running.until("reported", |_| scripted.reports().last().is_some_and(|last| !last.rejected.is_empty())).await;
    let last = scripted.reports().pop().unwrap();
    assert_eq!(last.bundle_digest, old);
    assert!(last.rejected.contains("ROOTCA") && last.rejected.contains("what is this?"), "{last:?}");
    // It goes, and is not waited for.
    drop((send, stream));
    running.until("two", |_| scripted.reports().last().is_some_and(|last| last.rejected.is_empty())).await;
    assert_ne!(scripted.reports().pop().unwrap().bundle_digest, old);
    running.stop().await;
    scripted.stop().await;
}

fn token(audience: &str) -> Request<JwtsvidRequest> {
    call(JwtsvidRequest { audience: vec![audience.to_owned()], spiffe_id: String::new() })
}

#[tokio::test]
async fn tokens_are_kept_for_half_their_life_and_for_all_of_it_without_the_server() {
    let (scripted, home, running) = served().await;
    let mut client = workload(&home);
    let first = client.fetch_jwtsvid(token("db")).await.unwrap().into_inner();
    assert_eq!(first.svids[0].spiffe_id, "spiffe://a.test/web");
    let again = client.fetch_jwtsvid(token("db")).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = client.fetch_jwtsvid(token("cache")).await.unwrap().into_inner();
    assert_ne!(first.svids[0].svid, other.svids[0].svid);
    assert_eq!(*scripted.agents().tokens.lock().unwrap(), Ok(2));
    *scripted.agents().tokens.lock().unwrap() = Err(Code::Unavailable);
    assert_eq!(client.fetch_jwtsvid(token("new")).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(client.fetch_jwtsvid(token("db")).await.unwrap().into_inner(), first);
    *scripted.agents().tokens.lock().unwrap() = Err(Code::NotFound);
    let refused = client.fetch_jwtsvid(token("new")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "no identity issued"));
    running.stop().await;
    scripted.stop().await;
}

/// Trap 25: a stream that ends makes its client connect again, and a thousand of them a storm.
#[tokio::test]
async fn trap_25_streams_outlive_the_server() {
    let (scripted, home, running) = served().await;
    let (send, requests) = tokio::sync::mpsc::unbounded_channel();
    let ask = |name: &str, answering: &str| DiscoveryRequest {
        resource_names: vec![name.to_owned()],
        response_nonce: answering.to_owned(),
        ..DiscoveryRequest::default()
    };
    send.send(ask("default", "")).unwrap();
    let mut secrets = SecretDiscoveryServiceClient::new(channel::unix(home.config.socket.as_ref().unwrap()));
    let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(requests);
    let mut stream = secrets.stream_secrets(requests).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    scripted.stop().await;
    running.agent.renew_now();
    running.until("a failed renewal", |agent| agent.health().last_error.is_some()).await;
    running.until("alone", |agent| !agent.inner.following.load(std::sync::atomic::Ordering::Acquire)).await;
    send.send(ask("ROOTCA", &first.nonce)).unwrap();
    let second = timeout(Duration::from_secs(20), stream.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((second.resources.len(), second.nonce == first.nonce), (1, false), "the same stream, and it answers");
    running.stop().await;
}

#[tokio::test]
async fn trap_25_everybody_has_what_they_had_after_a_restart_without_the_server() {
    let (scripted, home, running) = served().await;
    let mut svids = workload(&home).fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    let before = svids.message().await.unwrap().unwrap();
    running.until("kept", |_| home.config.state_dir.join("svids").is_dir()).await;
    running.stop().await;
    scripted.stop().await;
    let agent = home.agent();
    agent.open_socket().unwrap();
    let running = Running::start(agent);
    let mut svids = workload(&home).fetch_x509svid(call(X509svidRequest {})).await.unwrap().into_inner();
    assert_eq!(svids.message().await.unwrap().unwrap(), before);
    running.stop().await;
}

/// Trap 13: a root that signs before every validator has it. The validators are the Envoys, not the agent.
#[tokio::test]
async fn trap_13_a_bundle_is_acknowledged_when_the_subscribers_have_it() {
    let (scripted, home, running) = served().await;
    let mut secrets = SecretDiscoveryServiceClient::new(channel::unix(home.config.socket.as_ref().unwrap()));
    let roots = DiscoveryRequest { resource_names: vec!["ROOTCA".to_owned()], ..DiscoveryRequest::default() };
    let (requests, sent) = tokio::sync::mpsc::unbounded_channel();
    requests.send(roots.clone()).unwrap();
    let sent = tokio_stream::wrappers::UnboundedReceiverStream::new(sent);
    let mut stream = secrets.stream_secrets(sent).await.unwrap().into_inner();
    let answer = |response_nonce| DiscoveryRequest { response_nonce, ..roots.clone() };
    let first = stream.message().await.unwrap().unwrap();
    requests.send(answer(first.nonce)).unwrap();
    let (ours, next) = (scripted.authority.clone(), Authority::new("next"));
    scripted.tell(&[&ours, &next], |state| state.entries = vec![entry("web", &[&own_user()])]);
    let second = stream.message().await.unwrap().unwrap();
    let bundle = running.agent.current().unwrap().bundles.get("a.test").unwrap().clone();
    let digest: String = bundle.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    let acknowledged = |_: &Agent| scripted.reports().iter().any(|report| report.bundle_digest == digest);
    // Whatever else the agent had to say it has said by then.
    let seen = scripted.seen().len();
    running.agent.renew_now();
    running.until("another certificate", |_| scripted.seen().len() > seen).await;
    assert!(!acknowledged(&running.agent), "Envoy has not answered");
    requests.send(answer(second.nonce)).unwrap();
    running.until("the acknowledgement", acknowledged).await;
    running.stop().await;
    scripted.stop().await;
}

#[tokio::test]
async fn after_a_restart_those_who_were_served_get_the_time_to_come_back() {
    let (scripted, mut home, running) = served().await;
    running.stop().await;
    scripted.stop().await;
    assert_eq!(home.agent().inner.coming_back(), Duration::from_secs(30), "as long as Envoy pauses at most");
    home.config.socket = None;
    assert_eq!(home.agent().inner.coming_back(), Duration::ZERO, "it serves nobody");
    home.config.state_dir = home.dir.path().join("another");
    home.config.socket = Some(home.dir.path().join("run/workload.sock"));
    assert_eq!(home.agent().inner.coming_back(), Duration::ZERO, "it has served nobody yet");
}
