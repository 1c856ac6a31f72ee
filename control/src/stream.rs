//! One proxy's stream: what it has, what is due, and what waits for its answer.
//!
//! At most one push is unanswered at a time, and what is sent next is what is newest then, so that a storm of edits costs a
//! slow proxy two snapshots and not hundreds. The stream is a plain state machine that the transport polls: no task of its
//! own, nothing left behind when the connection goes.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use palisade_wire::envoy::envoy::service::discovery::v3 as xds;
use palisade_wire::envoy::google::protobuf::Any;
use palisade_wire::{Caller, SNAPSHOT_TYPE_URL};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};

use crate::authorize::{Node, authorize};
use crate::index::{Encoded, Index};
use crate::proxies::{Nack, Session};
use crate::service::Shared;

/// Longest NACK message that is kept.
const LONGEST_MESSAGE: usize = 4096;

/// State of one stream.
pub(crate) struct ProxyStream {
    shared: Shared,
    index: watch::Receiver<Option<Arc<Index>>>,
    caller: Caller,
    node: Node,
    session: Session,
    requests: Streaming<xds::DeltaDiscoveryRequest>,
    delivery: Delivery,
    expires: Option<Instant>,
}

/// The delta protocol for the one resource a proxy has.
#[derive(Debug, Default)]
struct Delivery {
    opened: bool,
    subscribed: bool,
    /// The proxy asked for the resource again: send it even if it should have it.
    resend: bool,
    /// Revision the proxy has, or was last sent and refused: not sent again.
    last: Option<String>,
    outstanding: Option<Push>,
    nonces: u64,
}

#[derive(Debug)]
struct Push {
    nonce: String,
    revision: String,
    at: Instant,
}

/// What a request turned out to say about the outstanding push.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    None,
    Ack { revision: String, lag: Duration },
    Nack { revision: String, lag: Duration, message: String },
}

impl ProxyStream {
    pub(crate) fn new(
        shared: Shared,
        index: watch::Receiver<Option<Arc<Index>>>,
        caller: Caller,
        node: Node,
        session: Session,
        requests: Streaming<xds::DeltaDiscoveryRequest>,
    ) -> Self {
        let now = shared.clock.now().as_secs();
        let left = caller.peer.as_ref().map(|peer| peer.not_after().as_secs().saturating_sub(now));
        // Beyond what the timer can express is beyond what matters.
        let expires = left.and_then(|left| Instant::now().checked_add(Duration::from_secs(left)));
        Self { shared, index, caller, node, session, requests, delivery: Delivery::default(), expires }
    }

    /// Takes a request in.
    pub(crate) fn receive(&mut self, request: xds::DeltaDiscoveryRequest) -> Result<(), Status> {
        if request.type_url != SNAPSHOT_TYPE_URL {
            let message = format!("resource type `{}` is not served, only `{SNAPSHOT_TYPE_URL}`", request.type_url);
            return Err(Status::invalid_argument(message));
        }
        if request.node.as_ref().is_some_and(|node| !node.id.is_empty() && node.id != self.node.as_str()) {
            return Err(Status::invalid_argument("a stream belongs to one node: its id cannot change"));
        }
        let other = request.resource_names_subscribe.iter().find(|name| !is_own(&self.node, name));
        if let Some(other) = other {
            let message = format!("workload `{}` cannot subscribe to `{other}`", self.node);
            return Err(Status::permission_denied(message));
        }
        if !self.delivery.opened {
            let has = request.initial_resource_versions.get(self.node.as_str()).cloned();
            self.session.update(|status| status.acked = has);
        }
        match self.delivery.receive(&self.node, &request, Instant::now()) {
            Answer::None => {}
            Answer::Ack { revision, lag } => {
                self.shared.metrics.answered(true, lag);
                tracing::info!(proxy = %self.node, revision, ?lag, "snapshot in force at the proxy");
                self.session.update(|status| (status.acked, status.nack) = (Some(revision), None));
            }
            Answer::Nack { revision, lag, message } => {
                self.shared.metrics.answered(false, lag);
                tracing::error!(proxy = %self.node, revision, message, "proxy refused a snapshot and keeps the one it had");
                self.session.update(|status| status.nack = Some(Nack { revision, message }));
            }
        }
        Ok(())
    }

    /// Waits for the next response that is due. `Ok(None)`: the proxy has ended the stream.
    async fn next(&mut self) -> Result<Option<xds::DeltaDiscoveryResponse>, Status> {
        loop {
            if let Some(response) = self.due() {
                return Ok(Some(response));
            }
            let ack_due = self.delivery.outstanding.as_ref().map(|push| push.at + self.shared.ack_deadline);
            tokio::select! {
                () = self.shared.closing.cancelled() => return Err(Status::unavailable("server is stopping")),
                () = self.session.superseded.cancelled() => {
                    return Err(Status::aborted("newer streams of this workload took its place"));
                }
                () = at(self.expires) => return Err(Status::unauthenticated("the certificate of this connection has expired")),
                () = at(ack_due) => return Err(Status::deadline_exceeded("snapshot was neither accepted nor refused")),
                changed = self.index.changed() => match changed {
                    Ok(()) => self.judge_again()?,
                    Err(_) => return Err(Status::unavailable("server is stopping")),
                },
                request = self.requests.message() => match request? {
                    Some(request) => self.receive(request)?,
                    None => return Ok(None),
                },
            }
        }
    }

    fn judge_again(&mut self) -> Result<(), Status> {
        let index = self.index.borrow_and_update().clone();
        authorize(index.as_deref(), &self.caller, &self.node)?;
        Ok(())
    }

    fn due(&mut self) -> Option<xds::DeltaDiscoveryResponse> {
        let index = self.index.borrow().clone()?;
        let snapshot = index.snapshot(self.node.namespace())?;
        let response = self.delivery.push(&self.node, &snapshot, Instant::now())?;
        tracing::debug!(proxy = %self.node, revision = snapshot.revision, bytes = snapshot.bytes.len(), "snapshot sent");
        self.session.update(|status| status.sent = Some(snapshot.revision.clone()));
        Some(response)
    }
}

impl Delivery {
    fn receive(&mut self, node: &Node, request: &xds::DeltaDiscoveryRequest, now: Instant) -> Answer {
        let names = &request.resource_names_subscribe;
        if !self.opened {
            // An empty first list is the old spelling of `*`.
            self.subscribed = true;
            self.last = request.initial_resource_versions.get(node.as_str()).cloned();
        } else if !names.is_empty() {
            self.subscribed = true;
            self.resend = true;
        }
        if self.opened && request.resource_names_unsubscribe.iter().any(|name| is_own(node, name)) {
            self.subscribed = false;
        }
        self.opened = true;
        self.answer(request, now)
    }

    /// An answer counts if it names the outstanding push; any other nonce is stale.
    fn answer(&mut self, request: &xds::DeltaDiscoveryRequest, now: Instant) -> Answer {
        let matching = |push: &mut Push| push.nonce == request.response_nonce;
        let Some(push) = self.outstanding.take_if(matching) else {
            return Answer::None;
        };
        let (revision, lag) = (push.revision, now.saturating_duration_since(push.at));
        match &request.error_detail {
            None => Answer::Ack { revision, lag },
            Some(error) => {
                let message = error.message.chars().take(LONGEST_MESSAGE).collect();
                Answer::Nack { revision, lag, message }
            }
        }
    }

    fn push(&mut self, node: &Node, snapshot: &Encoded, now: Instant) -> Option<xds::DeltaDiscoveryResponse> {
        let known = self.last.as_ref() == Some(&snapshot.revision) && !self.resend;
        if !self.subscribed || self.outstanding.is_some() || known {
            return None;
        }
        self.nonces += 1;
        self.resend = false;
        self.last = Some(snapshot.revision.clone());
        let (nonce, revision) = (self.nonces.to_string(), snapshot.revision.clone());
        self.outstanding = Some(Push { nonce: nonce.clone(), revision: revision.clone(), at: now });
        let resource = xds::Resource {
            name: node.to_string(),
            version: revision.clone(),
            resource: Some(Any { type_url: SNAPSHOT_TYPE_URL.to_owned(), value: snapshot.bytes.clone() }),
            ..Default::default()
        };
        Some(xds::DeltaDiscoveryResponse {
            system_version_info: revision,
            resources: vec![resource],
            type_url: SNAPSHOT_TYPE_URL.to_owned(),
            nonce,
            ..Default::default()
        })
    }
}

/// The responses of a stream, until either side ends it.
pub(crate) fn answers(stream: ProxyStream) -> impl Stream<Item = Result<xds::DeltaDiscoveryResponse, Status>> + Send {
    stream::unfold(Some(stream), |stream| async move {
        let mut stream = stream?;
        match stream.next().await {
            Ok(Some(response)) => Some((Ok(response), Some(stream))),
            Ok(None) => {
                tracing::info!(proxy = %stream.node, "proxy disconnected");
                None
            }
            Err(status) => {
                tracing::info!(proxy = %stream.node, code = ?status.code(), reason = status.message(), "proxy stream ended");
                Some((Err(status), None))
            }
        }
    })
}

fn is_own(node: &Node, name: &str) -> bool {
    name == "*" || name == node.as_str()
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
