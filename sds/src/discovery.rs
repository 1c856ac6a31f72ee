//! Envoy's secret discovery service, version 3.
//!
//! Envoy opens one stream a secret and keeps it for ever. It replies to every response, so answering a reply is a
//! loop, and answering a rejection with the same bytes a hot one. Closing a stream makes every Envoy reconnect, so a
//! stream ends only with the process: while the certificate authority is away, it is simply quiet.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use palisade_wire::envoy::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use palisade_wire::envoy::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::attest::{Attestor, DENIED};
use crate::metrics::Metrics;
use crate::secrets::{Feed, Standing, Who};

mod delta;
mod rejection;
mod stream;
mod whole;

/// The service behind `envoy.service.secret.v3.SecretDiscoveryService`.
pub(crate) struct Discovery {
    pub(crate) feed: Feed,
    pub(crate) attestor: Attestor,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Discovery {
    /// Who calls; whoever has no identity here gets no stream either.
    async fn admit<T: Sync>(&self, request: &Request<T>) -> Result<Arc<Who>, Status> {
        let evidence = self.attestor.admit(request).await?;
        let who = self.feed.caller(&evidence);
        if self.feed.view(&who).standing == Standing::Nobody {
            evidence.log_refusal();
            return Err(Status::permission_denied(DENIED));
        }
        Ok(who)
    }

    fn open<M: stream::Machine>(
        &self,
        who: Arc<Who>,
        inbound: Streaming<M::Request>,
        machine: M,
    ) -> Answers<M::Response> {
        stream::drive(stream::Open {
            machine,
            who,
            inbound,
            changed: self.feed.subscribe(),
            place: self.feed.place(),
            feed: self.feed.clone(),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            _guard: self.metrics.stream(),
        })
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Discovery {
    type StreamSecretsStream = Answers<DiscoveryResponse>;
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let who = self.admit(&request).await?;
        Ok(Response::new(self.open(who, request.into_inner(), whole::Subscription::default())))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let who = self.admit(&request).await?;
        Ok(Response::new(self.open(who, request.into_inner(), delta::Subscription::default())))
    }

    /// One answer for clients that poll. Withheld resources are left out; with none at all the client is to retry.
    async fn fetch_secrets(&self, request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        let who = self.admit(&request).await?;
        let mut once = whole::Subscription::default();
        stream::Machine::hear(&mut once, request.into_inner(), &self.metrics)?;
        stream::Machine::reply(&mut once, &self.feed.view(&who))
            .map(Response::new)
            .ok_or_else(|| Status::unavailable("none of the secrets asked for is available"))
    }
}
