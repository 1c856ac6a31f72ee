//! The half of the test double that speaks `palisade.agents.v1`.

use std::pin::Pin;
use std::sync::Mutex;

use futures_util::{Stream, StreamExt, stream};
use palisade_wire::Caller;
use palisade_wire::agents::agents_server;
use palisade_wire::agents::{
    AgentReport, AgentState, Bundle, Entry, IssueJwtRequest, IssueJwtResponse, IssueX509Request, IssueX509Response,
    X509Answer,
};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Code, Request, Response, Status, Streaming};
use x509_cert::der::Decode;
use x509_cert::request::CertReq;

use super::authority::{Requested, Scripted, Service, now};
use crate::fixtures::Authority;

/// What it tells agents, and what they tell it.
pub(super) struct Agents {
    pub(super) state: watch::Sender<AgentState>,
    pub(super) reports: Mutex<Vec<AgentReport>>,
    /// Serial number of the certificate that each batch was asked with.
    pub(super) askers: Mutex<Vec<String>>,
    /// Sizes of the batches asked for.
    pub(super) batches: Mutex<Vec<usize>>,
    /// Larger batches fail.
    pub(super) most: Mutex<usize>,
    /// Lifetime of the certificates and tokens.
    pub(super) life: Mutex<u64>,
    /// The wish when to renew.
    pub(super) renew_at: Mutex<i64>,
    /// Tokens issued, or why none is.
    pub(super) tokens: Mutex<Result<u32, Code>>,
    /// Certificates of agents that are revoked: they are told so, and nothing else.
    pub(super) revoked: watch::Sender<Vec<String>>,
    /// The entries that it refuses.
    pub(super) refused: Mutex<Vec<String>>,
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            state: watch::Sender::default(),
            reports: Mutex::default(),
            askers: Mutex::default(),
            batches: Mutex::default(),
            most: Mutex::new(500),
            life: Mutex::new(3600),
            renew_at: Mutex::default(),
            tokens: Mutex::new(Ok(0)),
            revoked: watch::Sender::default(),
            refused: Mutex::default(),
        }
    }
}

impl Scripted {
    pub(super) fn agents(&self) -> &Agents {
        &self.shared.agents
    }

    /// Tells everybody another state: these authorities, and a change of the rest.
    pub(super) fn tell(&self, authorities: &[&Authority], change: impl FnOnce(&mut AgentState)) {
        let x509_authorities = authorities.iter().map(|one| one.root_der().to_vec()).collect();
        self.agents().state.send_modify(|state| {
            let jwt_jwks = state.bundle.take().map(|bundle| bundle.jwt_jwks).unwrap_or_default();
            state.bundle = Some(Bundle { x509_authorities, jwt_jwks, sequence: 1, refresh_hint: 300 });
            change(state);
            state.version.push('.');
        });
    }

    pub(super) fn entries(&self, entries: Vec<Entry>) {
        let authority = self.authority.clone();
        self.tell(&[&authority], |state| state.entries = entries);
    }

    pub(super) fn reports(&self) -> Vec<AgentReport> {
        self.agents().reports.lock().unwrap().clone()
    }

    pub(super) fn batches(&self) -> Vec<usize> {
        self.agents().batches.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl agents_server::Agents for Service {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<AgentState, Status>> + Send>>;

    async fn follow(&self, request: Request<Streaming<AgentReport>>) -> Result<Response<Self::FollowStream>, Status> {
        let peer = Caller::of(&request).and_then(|caller| caller.peer.clone()).unwrap();
        let mut reports = request.into_inner();
        let shared = self.shared.clone();
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                shared.agents.reports.lock().unwrap().push(report);
            }
        });
        let states = WatchStream::new(self.shared.agents.state.subscribe());
        // Before the test has said anything there is nothing to tell.
        let states = states.filter(|state| std::future::ready(state.bundle.is_some())).map(Ok);
        let mut revoked = self.shared.agents.revoked.subscribe();
        let end = stream::once(async move {
            let serial = peer.serial();
            let told = revoked.wait_for(|revoked| revoked.iter().any(|one| one == serial)).await.map(drop);
            Err(told.map_or_else(|_| Status::unavailable("the test ends"), |()| palisade_wire::revoked(serial)))
        });
        // Nothing comes after the first error.
        let mut over = false;
        let both = stream::select(states, end).take_while(move |said| {
            let more = !std::mem::replace(&mut over, said.is_err());
            std::future::ready(more)
        });
        Ok(Response::new(Box::pin(both)))
    }

    async fn issue_x509(&self, request: Request<IssueX509Request>) -> Result<Response<IssueX509Response>, Status> {
        let agents = &self.shared.agents;
        let peer = Caller::of(&request).and_then(|caller| caller.peer.clone()).unwrap();
        agents.askers.lock().unwrap().push(peer.serial().to_owned());
        let orders = request.into_inner().orders;
        agents.batches.lock().unwrap().push(orders.len());
        if orders.len() > *agents.most.lock().unwrap() {
            return Err(Status::resource_exhausted("the test says too many"));
        }
        let (life, renew_at) = (*agents.life.lock().unwrap(), *agents.renew_at.lock().unwrap());
        let entries = agents.state.borrow().entries.clone();
        let answers = orders.into_iter().map(|order| {
            let refused = agents.refused.lock().unwrap().contains(&order.entry_id);
            let Some(entry) = entries.iter().find(|entry| entry.id == order.entry_id).filter(|_| !refused) else {
                return X509Answer { code: 5, reason: "no such entry".to_owned(), ..X509Answer::default() };
            };
            let csr = CertReq::from_der(&order.csr).unwrap();
            let key = Requested(csr.info.public_key.subject_public_key.raw_bytes().to_vec());
            let leaf = self.authority.sign(&entry.spiffe_id, &key, now() - life / 8, now() + life);
            let chain: [&CertificateDer<'_>; 2] = [leaf.der(), self.authority.intermediate.der()];
            let chain = chain.iter().map(|der| der.to_vec()).collect();
            X509Answer { chain, renew_at, ..X509Answer::default() }
        });
        Ok(Response::new(IssueX509Response { answers: answers.collect() }))
    }

    async fn issue_jwt(&self, request: Request<IssueJwtRequest>) -> Result<Response<IssueJwtResponse>, Status> {
        let agents = &self.shared.agents;
        let entry_id = request.into_inner().entry_id;
        let number = match &mut *agents.tokens.lock().unwrap() {
            Err(code) => return Err(Status::new(*code, "the test says no")),
            Ok(count) => {
                *count += 1;
                *count
            }
        };
        let claims = format!(r#"{{"sub":"spiffe://a.test/{entry_id}","n":{number}}}"#);
        use base64::Engine;
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
        let (issued, life) = (now(), *agents.life.lock().unwrap());
        Ok(Response::new(IssueJwtResponse {
            token: format!("e30.{payload}.AA"),
            issued_at: i64::try_from(issued).unwrap(),
            expires_at: i64::try_from(issued + life).unwrap(),
        }))
    }
}
