//! The SPIFFE Workload API, its X.509 half.
//!
//! SPIFFE Workload Endpoint and Workload API standards. Calls without the security header are refused before anything
//! else, so that no browser or proxy can be talked into fetching keys. Every message of a stream is the whole state.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use palisade_wire::workload::spiffe_workload_api_server::SpiffeWorkloadApi;
use palisade_wire::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::attest::Attestor;
use crate::metrics::Metrics;
use crate::secrets::{Encoded, Feed, Offer};

/// Name and value that every call carries, exactly so.
const SECURITY_HEADER: (&str, &str) = ("workload.spiffe.io", "true");

/// The service behind `SpiffeWorkloadAPI`.
pub(crate) struct Workload {
    pub(crate) feed: Feed,
    pub(crate) attestor: Attestor,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Takes a stream's message out of an offer, with the version by which a change is recognised.
type View<T> = fn(&Offer) -> Result<(String, T), Status>;

impl Workload {
    async fn guard<T: Sync>(&self, request: &Request<T>) -> Result<(), Status> {
        let (name, value) = SECURITY_HEADER;
        if request.metadata().get(name).is_none_or(|found| found.as_bytes() != value.as_bytes()) {
            return Err(Status::invalid_argument("security header missing from request"));
        }
        self.attestor.admit(request).await.map(|_| ())
    }

    /// The first answer at once, or the status that says why there is none; then one at each change.
    async fn open<Q: Sync, T: Send + 'static>(
        &self,
        request: &Request<Q>,
        view: View<T>,
    ) -> Result<Response<Answers<T>>, Status> {
        self.guard(request).await?;
        let changed = self.feed.subscribe();
        let (version, first) = view(&self.feed.offer())?;
        let watcher = Watcher { feed: self.feed.clone(), changed, shutdown: self.shutdown.clone(), view, version };
        let answers = stream::unfold((Some(first), watcher), |(first, mut watcher)| async {
            match first {
                Some(first) => Some((Ok(first), (None, watcher))),
                None => watcher.next().await.map(|next| (Ok(next), (None, watcher))),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    fn counted<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        let code = answer.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        self.metrics.workload_request(code);
        answer
    }

    async fn no_jwt<Q: Sync, T>(&self, request: &Request<Q>) -> Result<T, Status> {
        let refused = self.guard(request).await.and(Err(Status::unimplemented("JWT-SVIDs are not supported")));
        self.counted(refused)
    }
}

/// The rest of a stream after its first message.
struct Watcher<T> {
    feed: Feed,
    changed: watch::Receiver<()>,
    shutdown: CancellationToken,
    view: View<T>,
    version: String,
}

impl<T> Watcher<T> {
    /// The next state that differs from the last one sent; `None` when the process stops.
    ///
    /// While the identity cannot be served the stream is quiet: the client keeps what it has until that expires.
    async fn next(&mut self) -> Option<T> {
        loop {
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = self.shutdown.cancelled() => return None,
            }
            if let Ok((version, state)) = (self.view)(&self.feed.offer())
                && version != self.version
            {
                self.version = version;
                return Some(state);
            }
        }
    }
}

fn svids(offer: &Offer) -> Result<(String, X509svidResponse), Status> {
    match offer {
        Offer::Whole(encoded) => Ok((version(encoded), encoded.svids.clone())),
        Offer::RootsOnly(_, reason) => Err(Status::unavailable(reason.to_string())),
        Offer::Nothing => Err(Status::unavailable("no identity yet")),
    }
}

fn bundles(offer: &Offer) -> Result<(String, X509BundlesResponse), Status> {
    match offer {
        Offer::Whole(encoded) | Offer::RootsOnly(encoded, _) => {
            Ok((encoded.bundles_version.clone(), encoded.bundles.clone()))
        }
        Offer::Nothing => Err(Status::unavailable("no trust bundle yet")),
    }
}

/// An SVID response carries the bundles too, so it is new when either is.
fn version(encoded: &Arc<Encoded>) -> String {
    format!("{}{}", encoded.certificate.version, encoded.bundles_version)
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
        self.counted(self.open(&request, svids).await)
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.counted(self.open(&request, bundles).await)
    }

    async fn fetch_jwtsvid(&self, request: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        self.no_jwt(&request).await
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.no_jwt(&request).await
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        self.no_jwt(&request).await
    }
}
