//! `palisade.agents.v1`: what agents need beyond a certificate of their own.
//!
//! `Follow` tells each agent the whole state of trust at once and after every change, and learns from it which bundle it has
//! installed: by that a new root is known to be known before it signs. `IssueX509` signs certificates, `IssueJwt` tokens, for the
//! workloads of the agent's entries.

use std::sync::Arc;

use palisade_identity::VerifiedPeer;
use palisade_wire::Caller;
use palisade_wire::agents::agents_server::{Agents, AgentsServer};
use palisade_wire::agents::{
    AgentReport, AgentState, IssueJwtRequest, IssueJwtResponse, IssueX509Request, IssueX509Response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

mod follow;
pub(crate) mod followers;
pub(crate) mod issue;
mod renewals;
mod source;
mod token;

pub use source::{EntryChanges, EntrySource, NoEntries};

use crate::admission::{Admission, Turn};
use crate::authority::Authority;
use follow::Follow;
use issue::MOST_ORDERS;
use renewals::Renewals;

/// 500 requests of RSA keys fit.
const MAX_MESSAGE: usize = 4 * 1_024 * 1_024;

/// The service in front of an [`Authority`] and the entries.
#[derive(Clone, Debug)]
pub struct AgentsService {
    authority: Arc<Authority>,
    entries: Arc<dyn EntrySource>,
    admission: Admission,
    renewals: Arc<Renewals>,
    closing: CancellationToken,
}

impl AgentsService {
    /// Serves `authority` and `entries`; streams end with `closing`.
    #[must_use]
    pub fn new(authority: Arc<Authority>, entries: Arc<dyn EntrySource>, closing: CancellationToken) -> Self {
        Self { authority, entries, admission: Admission::default(), renewals: Arc::default(), closing }
    }

    /// Serves agents in turn with the other callers of `admission`.
    #[must_use]
    pub fn with_admission(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// The caller's turn to be issued to, so many times.
    async fn turn<T>(&self, request: &Request<T>, orders: usize) -> Result<Turn, Status> {
        let caller = Caller::of(request).cloned().unwrap_or_default();
        // What is too much for one call is refused, and costs as much as the most.
        let orders = u32::try_from(orders.clamp(1, MOST_ORDERS)).unwrap_or(u32::MAX);
        self.admission.admit(&caller, orders).await.map_err(|later| {
            self.authority.metrics().refused(later.reason);
            later.status()
        })
    }

    /// For `tonic::service::Routes`. Its listener must put a [`Caller`] into the requests, as
    /// `palisade_wire::serve` does.
    #[must_use]
    pub fn into_server(self) -> AgentsServer<Self> {
        AgentsServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    /// The agent that calls, by its certificate, and where it calls from.
    fn agent<T>(&self, request: &Request<T>) -> Result<(Arc<VerifiedPeer>, String), Status> {
        let caller = Caller::of(request).cloned().unwrap_or_default();
        let address = caller.describe();
        let peer =
            caller.peer.ok_or_else(|| Status::unauthenticated("a certificate of this trust domain is needed"))?;
        self.admit(&peer)?;
        Ok((peer, address))
    }

    /// Whether a certificate that was good at the handshake still is.
    fn admit(&self, peer: &VerifiedPeer) -> Result<(), Status> {
        let realm = self.authority.realm();
        if peer.id().trust_domain_name() != realm.bundle.trust_domain().as_str() {
            return Err(Status::permission_denied("an agent of another trust domain"));
        }
        if realm.denies(peer.serial()) {
            return Err(palisade_wire::revoked(peer.serial()));
        }
        if peer.not_after().as_secs() < self.authority.now() {
            return Err(Status::unauthenticated("the certificate has expired"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Agents for AgentsService {
    type FollowStream = ReceiverStream<Result<AgentState, Status>>;

    async fn follow(&self, request: Request<Streaming<AgentReport>>) -> Result<Response<Self::FollowStream>, Status> {
        let (peer, address) = self.agent(&request)?;
        // One state may wait: what comes after it is the whole state again.
        let (states, stream) = mpsc::channel(1);
        let follow = Follow::new(self.clone(), peer, address, states);
        tokio::spawn(follow.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn issue_x509(&self, request: Request<IssueX509Request>) -> Result<Response<IssueX509Response>, Status> {
        let (peer, _) = self.agent(&request)?;
        let _turn = self.turn(&request, request.get_ref().orders.len()).await?;
        let answers = self.issue_all(&peer, request.into_inner().orders).await?;
        Ok(Response::new(IssueX509Response { answers }))
    }

    async fn issue_jwt(&self, request: Request<IssueJwtRequest>) -> Result<Response<IssueJwtResponse>, Status> {
        let (peer, _) = self.agent(&request)?;
        let _turn = self.turn(&request, 1).await?;
        Ok(Response::new(self.token(&peer, &request.into_inner()).await?))
    }
}
