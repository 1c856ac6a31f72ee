//! One agent's stream: the whole state at once and after each change, its acknowledgements the other way.

use std::sync::Arc;

use futures_util::StreamExt as _;
use palisade_identity::VerifiedPeer;
use palisade_wire::agents::{AgentReport, AgentState, Bundle};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use super::AgentsService;
use super::followers::Following;
use super::source::EntryChanges;
use crate::authority::Realm;
use crate::signer::{hex, sha256};

/// A stream and what it has said so far.
pub(super) struct Follow {
    service: AgentsService,
    peer: Arc<VerifiedPeer>,
    following: Following,
    states: mpsc::Sender<Result<AgentState, Status>>,
    sent: String,
}

impl Follow {
    pub(super) fn new(
        service: AgentsService,
        peer: Arc<VerifiedPeer>,
        address: String,
        states: mpsc::Sender<Result<AgentState, Status>>,
    ) -> Self {
        let following = service.authority.followers().join(peer.id(), address);
        Self { service, peer, following, states, sent: String::new() }
    }

    /// Until the agent hangs up, is no longer admitted, or the server closes.
    pub(super) async fn run(mut self, reports: Streaming<AgentReport>) {
        tracing::info!(id = %self.peer.id(), "an agent follows");
        // Subscribed before the first state is made: no change is missed between the two.
        let (trust, entries) = (self.service.authority.changes(), self.service.entries.changes(self.peer.id()));
        if let Err(status) = self.serve(reports, trust, entries).await {
            // Nobody listens any more if the agent has hung up.
            let _ = self.states.send(Err(status)).await;
        }
        tracing::info!(id = %self.peer.id(), "an agent follows no more");
        let authority = Arc::clone(&self.service.authority);
        drop(self);
        authority.hurry();
    }

    async fn serve(
        &mut self,
        mut reports: Streaming<AgentReport>,
        mut trust: watch::Receiver<()>,
        mut entries: EntryChanges,
    ) -> Result<(), Status> {
        let closing = self.service.closing.clone();
        let mut entries_live = true;
        loop {
            self.service.admit(&self.peer)?;
            let state = self.state();
            if state.version != self.sent {
                self.sent.clone_from(&state.version);
                let sent = closing.run_until_cancelled(self.states.send(Ok(state))).await;
                if sent.is_none_or(|sent| sent.is_err()) {
                    return Ok(());
                }
            }
            loop {
                tokio::select! {
                    biased;
                    () = closing.cancelled() => return Err(Status::unavailable("the server is closing")),
                    changed = trust.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return Ok(()),
                    },
                    changed = entries.next(), if entries_live => {
                        entries_live = changed.is_some();
                        break;
                    }
                    report = reports.message() => match report? {
                        Some(report) => self.note(&report),
                        None => return Ok(()),
                    },
                }
            }
        }
    }

    fn note(&self, report: &AgentReport) {
        if !report.rejected.is_empty() {
            tracing::warn!(id = %self.peer.id(), reason = report.rejected, "an agent cannot use the state it was sent");
        }
        self.following.report(&report.bundle_digest, &report.rejected);
        self.service.authority.hurry();
    }

    fn state(&self) -> AgentState {
        let realm = self.service.authority.realm();
        let mut state = AgentState {
            version: String::new(),
            bundle: Some(bundle(&realm)),
            entries: self.service.entries.for_agent(self.peer.id()),
            denied_serials: realm.bundles.denied().iter().cloned().collect(),
            tainted_authorities: realm.tainted.clone(),
        };
        state.version = hex(&sha256(&state.encode_to_vec()));
        state
    }
}

fn bundle(realm: &Realm) -> Bundle {
    Bundle {
        x509_authorities: realm.bundle.authorities().iter().map(|der| der.to_vec()).collect(),
        jwt_jwks: realm.documents.jwt_bundle.to_string(),
        sequence: realm.documents.sequence,
        refresh_hint: realm.documents.refresh_hint,
    }
}
