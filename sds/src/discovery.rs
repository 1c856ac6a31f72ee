//! Envoy's secret discovery service, version 3.
//!
//! Envoy opens one stream a secret and keeps it for ever. It replies to every response, so answering a reply is a
//! loop, and answering a rejection with the same bytes a hot one. Closing a stream makes every Envoy reconnect, so a
//! stream ends only with the process: while the certificate authority is away, it is simply quiet.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream as streams};
use palisade_wire::envoy::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::attest::{Attestor, DENIED};
use crate::metrics::Metrics;
use crate::secrets::{Feed, Standing, Who};
use grpc::Messages;
pub(crate) use grpc::Server;

mod delta;
mod grpc;
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
    async fn admit(&self, request: &Request<()>) -> Result<Arc<Who>, Status> {
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
        inbound: Messages<M::Request>,
        machine: M,
    ) -> Answers<M::Response> {
        stream::drive(stream::Open {
            machine,
            who,
            inbound,
            changed: self.feed.subscribe(),
            place: self.feed.place(),
            rejection: None,
            feed: self.feed.clone(),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
            _guard: self.metrics.stream(),
        })
    }
}

impl Discovery {
    /// `StreamSecrets`.
    async fn stream(
        &self,
        caller: &Request<()>,
        inbound: Messages<DiscoveryRequest>,
    ) -> Result<Answers<DiscoveryResponse>, Status> {
        let who = self.admit(caller).await?;
        Ok(self.open(who, inbound, whole::Subscription::default()))
    }

    /// `DeltaSecrets`.
    async fn delta(
        &self,
        caller: &Request<()>,
        inbound: Messages<DeltaDiscoveryRequest>,
    ) -> Result<Answers<DeltaDiscoveryResponse>, Status> {
        let who = self.admit(caller).await?;
        Ok(self.open(who, inbound, delta::Subscription::default()))
    }

    /// `FetchSecrets`: one answer for clients that poll. Withheld resources are left out; with none at all the client is to retry.
    async fn fetch(
        &self,
        caller: &Request<()>,
        mut inbound: Messages<DiscoveryRequest>,
    ) -> Result<Answers<DiscoveryResponse>, Status> {
        let request = inbound.next().await?.ok_or_else(|| Status::internal("there is no request"))?;
        let who = self.admit(caller).await?;
        let mut once = whole::Subscription::default();
        stream::Machine::hear(&mut once, request, &self.metrics)?;
        let answer = stream::Machine::reply(&mut once, &self.feed.view(&who))
            .ok_or_else(|| Status::unavailable("none of the secrets asked for is available"))?;
        Ok(Box::pin(streams::iter([Ok(answer)])))
    }
}
