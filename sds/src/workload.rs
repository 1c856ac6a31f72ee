//! The SPIFFE Workload API.
//!
//! SPIFFE Workload Endpoint and Workload API standards. Calls without the security header are refused before anything
//! else, so that no browser or proxy can be talked into fetching keys. Every message of a stream is the whole state.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use palisade_identity::{SpiffeId, error_chain};
use palisade_wire::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use palisade_wire::workload::{
    JwtBundlesRequest, JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::attest::{Attestor, DENIED};
use crate::jwt;
use crate::metrics::Metrics;
use crate::secrets::{Feed, Standing, View, Who};
use crate::tokens::Tokens;

/// Name and value that every call carries, exactly so.
const SECURITY_HEADER: (&str, &str) = ("workload.spiffe.io", "true");
/// A certificate that is being made is waited for so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The service behind `SpiffeWorkloadAPI`.
pub(crate) struct Workload {
    pub(crate) feed: Feed,
    pub(crate) attestor: Attestor,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Takes a stream's message out of a view, with the version by which a change is recognised.
type Take<T> = fn(&View) -> Result<(String, T), Status>;

impl Workload {
    async fn guard<T: Sync>(&self, request: &Request<T>) -> Result<Arc<Who>, Status> {
        let (name, value) = SECURITY_HEADER;
        if request.metadata().get(name).is_none_or(|found| found.as_bytes() != value.as_bytes()) {
            return Err(Status::invalid_argument("security header missing from request"));
        }
        let evidence = self.attestor.admit(request).await?;
        let who = self.feed.caller(&evidence);
        if self.feed.view(&who).standing == Standing::Nobody {
            evidence.log_refusal();
            return Err(Status::permission_denied(DENIED));
        }
        Ok(who)
    }

    /// The first answer at once, or the status that says why there is none; then one at each change.
    async fn open<Q: Sync, T: Send + 'static>(
        &self,
        request: &Request<Q>,
        take: Take<T>,
        default_matters: bool,
    ) -> Result<Response<Answers<T>>, Status> {
        let who = self.guard(request).await?;
        let changed = self.feed.subscribe();
        let (feed, shutdown) = (self.feed.clone(), self.shutdown.clone());
        let mut watcher = Watcher { feed, who, changed, shutdown, take, default_matters, version: String::new() };
        let first = watcher.first().await?;
        let answers = stream::unfold((Some(first), Some(watcher)), |(first, watcher)| async {
            let mut watcher = watcher?;
            if let Some(first) = first {
                return Some((Ok(first), (None, Some(watcher))));
            }
            match watcher.next().await? {
                Ok(next) => Some((Ok(next), (None, Some(watcher)))),
                Err(end) => Some((Err(end), (None, None))),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    fn counted<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        let code = answer.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        self.metrics.workload_request(code);
        answer
    }

    async fn tokens(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        let who = self.guard(&request).await?;
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        let audience = jwt::audience(audience).ok_or_else(|| Status::invalid_argument("audience must be specified"))?;
        let wanted = match spiffe_id.as_str() {
            "" => None,
            text => Some(SpiffeId::parse(text).map_err(|error| Status::invalid_argument(error_chain(&error)))?),
        };
        let view = self.feed.view(&who);
        if view.standing == Standing::Unknown {
            return Err(Status::unavailable("the server has not said yet who gets what"));
        }
        let mut svids = Vec::new();
        for slot in &view.slots {
            // The agent's own identity has no entry; its certificate says who it is.
            let (entry, id, hint) = match (&slot.entry, &slot.served) {
                (Some(entry), _) => (entry.id.as_str(), &entry.spiffe_id, entry.hint.clone()),
                (None, Ok(own)) => ("", own.svid.id(), String::new()),
                (None, Err(reason)) => return Err(Status::unavailable(reason.to_string())),
            };
            if wanted.as_ref().is_none_or(|wanted| wanted == id) {
                let svid = self.tokens.get(entry, id, &audience).await?;
                svids.push(Jwtsvid { spiffe_id: id.to_string(), svid, hint });
            }
        }
        if svids.is_empty() {
            return Err(Status::permission_denied(DENIED));
        }
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn validate(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let who = self.guard(&request).await?;
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        if audience.is_empty() {
            return Err(Status::invalid_argument("audience must be specified"));
        }
        let view = self.feed.view(&who);
        let trust = view.trust.as_ref().ok_or_else(|| Status::unavailable("no trust bundle yet"))?;
        let token = jwt::validate(&svid, &audience, &trust.jwks, self.feed.clock().now())
            .map_err(|error| Status::invalid_argument(error_chain(&error)))?;
        let claims = Some(jwt::to_struct(token.claims));
        Ok(Response::new(ValidateJwtsvidResponse { spiffe_id: token.id.to_string(), claims }))
    }
}

/// One subscriber.
struct Watcher<T> {
    feed: Feed,
    who: Arc<Who>,
    changed: watch::Receiver<()>,
    shutdown: CancellationToken,
    take: Take<T>,
    /// Clients take the first identity for theirs: it is waited for though there are others.
    default_matters: bool,
    /// Of the last state sent.
    version: String,
}

impl<T> Watcher<T> {
    /// The first state. Certificates that are being made are worth a moment; an outage is not.
    async fn first(&mut self) -> Result<T, Status> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.changed.mark_unchanged();
            let view = self.feed.view(&self.who);
            if view.standing == Standing::Nobody {
                return Err(Status::permission_denied(DENIED));
            }
            let taken = (self.take)(&view);
            let wait = match &taken {
                Err(_) => view.standing == Standing::Unknown || view.is_being_made(),
                Ok(_) => self.default_matters && view.is_default_being_made(),
            };
            if wait && Instant::now() < deadline {
                tokio::select! {
                    _ = self.changed.changed() => {}
                    () = tokio::time::sleep_until(deadline) => {}
                    () = self.shutdown.cancelled() => return Err(Status::unavailable("the agent is stopping")),
                }
                continue;
            }
            let (version, state) = taken?;
            self.version = version;
            return Ok(state);
        }
    }

    /// The next state that differs from the last one sent, or the status that ends the stream; `None` when the process stops.
    ///
    /// While the identity cannot be served the stream is quiet: the client keeps what it has until that expires.
    async fn next(&mut self) -> Option<Result<T, Status>> {
        loop {
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = self.shutdown.cancelled() => return None,
            }
            let view = self.feed.view(&self.who);
            if view.standing == Standing::Nobody {
                return Some(Err(Status::permission_denied(DENIED)));
            }
            if let Ok((version, state)) = (self.take)(&view)
                && version != self.version
            {
                self.version = version;
                return Some(Ok(state));
            }
        }
    }
}

fn withheld(view: &View) -> Status {
    Status::unavailable(view.withheld().map_or_else(|| "no identity yet".to_owned(), |why| why.to_string()))
}

fn svids(view: &View) -> Result<(String, X509svidResponse), Status> {
    let svids = view.svids().ok_or_else(|| withheld(view))?;
    Ok((view.version().to_owned(), svids.clone()))
}

fn bundles(view: &View) -> Result<(String, X509BundlesResponse), Status> {
    let trust = view.trust.as_ref().ok_or_else(|| Status::unavailable("no trust bundle yet"))?;
    Ok((trust.version.clone(), X509BundlesResponse { crl: Vec::new(), bundles: trust.x509().clone() }))
}

fn jwt_bundles(view: &View) -> Result<(String, JwtBundlesResponse), Status> {
    let trust = view.trust.as_ref().ok_or_else(|| Status::unavailable("no trust bundle yet"))?;
    Ok((trust.jwks_version.clone(), JwtBundlesResponse { bundles: trust.jwt() }))
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Workload {
    type FetchX509SVIDStream = Answers<X509svidResponse>;
    type FetchX509BundlesStream = Answers<X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.counted(self.open(&request, svids, true).await)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.counted(self.open(&request, bundles, false).await)
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        self.counted(self.tokens(request).await)
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.counted(self.open(&request, jwt_bundles, false).await)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        self.counted(self.validate(request).await)
    }
}
