//! The gRPC door: Envoy's aggregated discovery service, delta variant.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use palisade_identity::Clock;
use palisade_wire::Caller;
use palisade_wire::envoy::envoy::service::discovery::v3 as xds;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use xds::aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer};

use crate::authorize::{Node, Refusal, authorize};
use crate::index::Index;
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::stream::{ProxyStream, answers};

/// What a proxy says is small; a NACK's message is its longest part.
const LARGEST_REQUEST: usize = 64 * 1024;
/// A snapshot beyond this is an error of the configuration, better said than sent.
const LARGEST_RESPONSE: usize = 128 * 1024 * 1024;
/// An opened stream must say who it is within this time.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// The service as it is mounted on the server's gRPC listener.
pub type DiscoveryServer = AggregatedDiscoveryServiceServer<DiscoveryService>;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Delta xDS for Palisade's proxies. Takes [`Caller`] from the request's extensions, where the TLS listener put it.
#[derive(Clone, Debug)]
pub struct DiscoveryService {
    pub(crate) shared: Shared,
}

/// What every stream needs.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) index: watch::Receiver<Option<Arc<Index>>>,
    pub(crate) proxies: Proxies,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) closing: CancellationToken,
    /// How long a pushed snapshot may stay unanswered.
    pub(crate) ack_deadline: Duration,
}

impl DiscoveryService {
    pub(crate) fn into_server(self) -> DiscoveryServer {
        AggregatedDiscoveryServiceServer::new(self)
            .max_decoding_message_size(LARGEST_REQUEST)
            .max_encoding_message_size(LARGEST_RESPONSE)
    }

    async fn open(&self, request: Request<Streaming<xds::DeltaDiscoveryRequest>>) -> Result<ProxyStream, Status> {
        let caller = Caller::of(&request).cloned();
        let caller = caller.filter(|caller| caller.peer.is_some()).ok_or(Refusal::NoPeer)?;
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(FIRST_REQUEST, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no request on the stream"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("stream ended before its first request"))?;
        let node = Node::parse(first.node.as_ref().map_or("", |node| node.id.as_str()))?;
        // Read and marked as seen before authorising: a change after this moment is judged again by the stream.
        let mut index = self.shared.index.clone();
        let current = index.borrow_and_update().clone();
        let identity = authorize(current.as_deref(), &caller, &node)?;
        let now = self.shared.clock.now().as_secs();
        let session = self.shared.proxies.register(&node, &identity, now);
        let session = session.ok_or_else(|| Status::resource_exhausted("too many proxies on this server"))?;
        tracing::info!(proxy = %node, identity = %identity, "proxy connected");
        let mut stream = ProxyStream::new(self.shared.clone(), index, caller, node, session, requests);
        stream.receive(first)?;
        Ok(stream)
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for DiscoveryService {
    type StreamAggregatedResourcesStream = Answers<xds::DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<xds::DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<xds::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state-of-the-world xDS is not served: use DeltaAggregatedResources"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<xds::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let address = Caller::of(&request).and_then(|caller| caller.address);
        match self.open(request).await {
            Ok(stream) => Ok(Response::new(Box::pin(answers(stream)))),
            Err(status) => {
                tracing::warn!(?address, code = ?status.code(), reason = status.message(), "proxy refused");
                Err(status)
            }
        }
    }
}
