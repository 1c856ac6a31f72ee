//! The wire itself, spoken by hand where the client would be too polite.

use std::sync::Arc;
use std::time::Duration;

use palisade_identity::Clock;
use palisade_wire::SNAPSHOT_TYPE_URL;
use palisade_wire::envoy::envoy::config::core::v3::Node;
use palisade_wire::envoy::envoy::service::discovery::v3 as xds;
use rustls_pki_types::UnixTime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use xds::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

use crate::mesh::{CART, Mesh, SystemClock, policy};

fn first(node: &str) -> xds::DeltaDiscoveryRequest {
    xds::DeltaDiscoveryRequest {
        type_url: SNAPSHOT_TYPE_URL.to_owned(),
        node: Some(Node { id: node.to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

type Stream = (mpsc::Sender<xds::DeltaDiscoveryRequest>, Streaming<xds::DeltaDiscoveryResponse>);

async fn open(mesh: &Mesh, request: xds::DeltaDiscoveryRequest) -> Result<Stream, Status> {
    let channel = (mesh.authority.channels(mesh.address, CART.id))().expect("channel");
    let (sender, receiver) = mpsc::channel(4);
    sender.send(request).await.expect("queue");
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await?;
    Ok((sender, responses.into_inner()))
}

async fn next(stream: &mut Stream) -> Result<Option<xds::DeltaDiscoveryResponse>, Status> {
    tokio::time::timeout(Duration::from_secs(30), stream.1.message()).await.expect("an answer or an end in time")
}

async fn refusal(mesh: &Mesh, request: xds::DeltaDiscoveryRequest) -> Status {
    match open(mesh, request).await {
        Err(status) => status,
        Ok(mut stream) => next(&mut stream).await.expect_err("a refusal"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused_by_name() {
    let mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    for node in ["", "cart-0", "shop/cart-0/x", "Shop/cart-0"] {
        assert_eq!(refusal(&mesh, first(node)).await.code(), Code::InvalidArgument, "{node}");
    }
    let other_type = xds::DeltaDiscoveryRequest { type_url: "type.googleapis.com/x.Y".into(), ..first("shop/cart-0") };
    let status = refusal(&mesh, other_type).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("x.Y"), "{}", status.message());
    let other_name =
        xds::DeltaDiscoveryRequest { resource_names_subscribe: vec!["web/front-0".into()], ..first("shop/cart-0") };
    let status = refusal(&mesh, other_name).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    let mut large = first("shop/cart-0");
    large.resource_names_subscribe = vec!["*".repeat(100_000)];
    assert_eq!(refusal(&mesh, large).await.code(), Code::OutOfRange);
    let channel = (mesh.authority.channels(mesh.address, CART.id))().expect("channel");
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let requests = tokio_stream::iter([xds::DiscoveryRequest::default()]);
    let status = client.stream_aggregated_resources(requests).await.expect_err("not served");
    assert_eq!(status.code(), Code::Unimplemented);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_answers_nothing_and_silence_ends_the_stream() {
    let deadline = |config: &mut palisade_control::ControlConfig| config.ack_deadline = Duration::from_secs(2);
    let mesh = Mesh::start_with(&[("shop.yaml", &policy("shop", "first"))], deadline, Arc::new(SystemClock)).await;
    let mut stream = open(&mesh, first("shop/cart-0")).await.expect("accepted");
    let response = next(&mut stream).await.expect("pushed").expect("a snapshot");
    let stale = xds::DeltaDiscoveryRequest {
        type_url: SNAPSHOT_TYPE_URL.to_owned(),
        response_nonce: format!("{}-stale", response.nonce),
        ..Default::default()
    };
    stream.0.send(stale).await.expect("queue");
    mesh.write("shop.yaml", &policy("shop", "second"));
    let ended = next(&mut stream).await.expect_err("unanswered, nothing more is pushed");
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_of_too_many_streams_gives_way() {
    let mesh = Mesh::start(&[("shop.yaml", &policy("shop", "first"))]).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(open(&mesh, first("shop/cart-0")).await.expect("accepted"));
    }
    let oldest = &mut streams[0];
    next(oldest).await.expect("pushed").expect("a snapshot");
    let ended = next(oldest).await.expect_err("superseded");
    assert_eq!(ended.code(), Code::Aborted);
    mesh.until("four streams", |status| (status.proxies.len() == 4).then_some(()));
    drop(streams);
    mesh.until("no stream", |status| status.proxies.is_empty().then_some(()));
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_refuses_and_a_stopping_one_says_so() {
    let full = |config: &mut palisade_control::ControlConfig| config.max_proxies = 1;
    let mut mesh = Mesh::start_with(&[], full, Arc::new(SystemClock)).await;
    let mut stream = open(&mesh, first("shop/cart-0")).await.expect("accepted");
    next(&mut stream).await.expect("pushed").expect("a snapshot");
    assert_eq!(refusal(&mesh, first("shop/cart-0")).await.code(), Code::ResourceExhausted);
    mesh.stop_server().await;
    let ended = next(&mut stream).await.expect_err("ended");
    assert_eq!(ended.code(), Code::Unavailable);
}

/// A clock that runs ahead.
#[derive(Debug)]
struct Ahead(Duration);

impl Clock for Ahead {
    fn now(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + self.0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_certificate_it_was_opened_with() {
    // The test's certificates are good for an hour.
    let clock = Arc::new(Ahead(Duration::from_secs(3598)));
    let mesh = Mesh::start_with(&[], |_| {}, clock).await;
    let mut stream = open(&mesh, first("shop/cart-0")).await.expect("accepted");
    let response = next(&mut stream).await.expect("pushed").expect("a snapshot");
    let ack = xds::DeltaDiscoveryRequest {
        type_url: SNAPSHOT_TYPE_URL.to_owned(),
        response_nonce: response.nonce,
        ..Default::default()
    };
    stream.0.send(ack).await.expect("queue");
    let ended = next(&mut stream).await.expect_err("expired");
    assert_eq!(ended.code(), Code::Unauthenticated);
    mesh.stop().await;
}
