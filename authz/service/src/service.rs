//! The service as a whole: what it is made of, and its two doors.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use palisade_authz::provider::TcpDial;
use palisade_authz::{DecisionSink, JwksConfig};
use palisade_wire::envoy::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceExt as _;

use crate::authzen::Door;
use crate::caller::Callers;
use crate::check::Checks;
use crate::desk::{Desk, Now};
use crate::dial::RegistryDial;
use crate::listen::{Body, Limits, Port};
use crate::metrics::Metrics;
use crate::sets::Sets;
use crate::source::PolicySource;
use crate::upload::Upload;

/// Settings of the service.
#[derive(Clone)]
pub struct ServiceConfig {
    /// What callers can hold, for each port.
    pub limits: Limits,
    /// How keys of token issuers are fetched; which private addresses may be asked is the mesh configuration's to say.
    pub jwks: JwksConfig,
    /// The clock.
    pub now: Now,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { limits: Limits::default(), jwks: JwksConfig::default(), now: Arc::new(std::time::SystemTime::now) }
    }
}

impl std::fmt::Debug for ServiceConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The authorization service. Cheap to clone; clones share compiled policies, keys and metrics.
#[derive(Clone)]
pub struct Service {
    desk: Arc<Desk>,
    limits: Limits,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Service {
    /// A service that decides by `source` and records in `sink`. Registers its metrics.
    pub fn new(
        source: Arc<dyn PolicySource>,
        sink: Arc<dyn DecisionSink>,
        config: ServiceConfig,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::register(registry);
        let dial = Arc::new(RegistryDial { source: Arc::clone(&source), otherwise: TcpDial::default() });
        let sets = Sets::new(config.jwks, dial, metrics.clone());
        let desk = Arc::new(Desk { source, sink, sets, metrics, now: config.now });
        Self { desk, limits: config.limits }
    }

    /// Serves `envoy.service.auth.v3.Authorization` until `shutdown`, then drains.
    pub async fn ext_authz(&self, port: Port, callers: Callers, shutdown: CancellationToken) {
        let checks = Checks { desk: Arc::clone(&self.desk), callers: Arc::new(callers) };
        let server = AuthorizationServer::new(checks).max_decoding_message_size(self.limits.max_message);
        let routes = Routes::new(server).prepare();
        let service = move |request: Request<Upload>| {
            let routes = routes.clone();
            async move {
                match routes.oneshot(request).await {
                    Ok(response) => response.map(|body| body.boxed_unsync()),
                    Err(never) => match never {},
                }
            }
        };
        port.serve(service, self.limits.clone(), self.desk.metrics.clone(), shutdown).await;
    }

    /// Serves the AuthZEN API until `shutdown`, then drains. `url` is where enforcers reach it, for the metadata document;
    /// `None` stands for the port's own address.
    pub async fn authzen(&self, port: Port, callers: Callers, url: Option<String>, shutdown: CancellationToken) {
        let scheme = if port.security().is_mutual() { "https" } else { "http" };
        let own = port.address().map(|address| format!("{scheme}://{address}")).unwrap_or_default();
        let door = Arc::new(Door {
            desk: Arc::clone(&self.desk),
            callers,
            url: url.unwrap_or(own),
            max_body: self.limits.max_body,
            loopback: !port.security().is_mutual(),
        });
        let service = move |request: Request<Upload>| {
            let door = Arc::clone(&door);
            async move { answered(door.answer(request).await) }
        };
        port.serve(service, self.limits.clone(), self.desk.metrics.clone(), shutdown).await;
    }
}

fn answered(response: Response<http_body_util::Full<bytes::Bytes>>) -> Response<Body> {
    response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}
