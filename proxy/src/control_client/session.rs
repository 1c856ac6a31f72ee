//! One stream: say who we are and what we have, then answer every snapshot with ACK or NACK.

use std::sync::Arc;

use palisade_identity::error_chain;
use palisade_policies::SourceText;
use palisade_wire::envoy::envoy::config::core::v3::Node;
use palisade_wire::envoy::envoy::service::discovery::v3 as xds;
use palisade_wire::envoy::google::rpc;
use palisade_wire::{SNAPSHOT_TYPE_URL, control};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use xds::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

use super::{ControlClient, RawSnapshot};

/// A response beyond this is refused before it is read: the stream ends, the snapshot in use stays.
const LARGEST_RESPONSE: usize = 128 * 1024 * 1024;
/// Answers waiting to be sent: one is outstanding at a time.
const REQUEST_QUEUE: usize = 4;

impl ControlClient {
    /// Runs one stream to its end; `heard` is set when the server sent something. The error is why it ended, for the log.
    pub(super) async fn session(&self, heard: &mut bool) -> Result<(), String> {
        let (requests, mut responses) = self.open().await?;
        self.metrics.connected.set(1);
        tracing::info!(workload = self.config.node(), "connected to the control plane");
        self.status.send_modify(|status| (status.connected, status.problem) = (true, None));
        while let Some(response) = responses.message().await.map_err(|status| describe(&status))? {
            *heard = true;
            let nonce = response.nonce.clone();
            let error_detail = self.receive(response).await.err().map(|message| {
                tracing::error!(reason = message, "snapshot refused, the one in use stays");
                self.status.send_modify(|status| status.problem = Some(message.clone()));
                rpc::Status { code: Code::InvalidArgument as i32, message, details: Vec::new() }
            });
            let answer = xds::DeltaDiscoveryRequest {
                type_url: SNAPSHOT_TYPE_URL.to_owned(),
                response_nonce: nonce,
                error_detail,
                ..Default::default()
            };
            // A closed queue means that the stream is gone; the next message says why.
            let _ = requests.send(answer).await;
        }
        Ok(())
    }

    async fn open(&self) -> Result<Opened, String> {
        let channel = (self.channels)().map_err(|error| error_chain(&*error))?;
        let (requests, queue) = mpsc::channel(REQUEST_QUEUE);
        requests.send(self.first_request()).await.map_err(|error| error.to_string())?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST_RESPONSE);
        let opening = client.delta_aggregated_resources(ReceiverStream::new(queue));
        let opened = tokio::time::timeout(self.config.connect_timeout, opening).await;
        let opened = opened.map_err(|_| "control plane did not answer in time".to_owned())?;
        Ok((requests, opened.map_err(|status| describe(&status))?.into_inner()))
    }

    fn first_request(&self) -> xds::DeltaDiscoveryRequest {
        let id = self.config.node();
        let has = self.publisher.revision().map(|revision| (id.clone(), revision));
        xds::DeltaDiscoveryRequest {
            type_url: SNAPSHOT_TYPE_URL.to_owned(),
            resource_names_subscribe: vec![id.clone()],
            initial_resource_versions: has.into_iter().collect(),
            node: Some(Node { id, user_agent_name: "palisade-proxy".to_owned(), ..Default::default() }),
            ..Default::default()
        }
    }

    /// Takes a response in; the error is the NACK's message.
    async fn receive(&self, response: xds::DeltaDiscoveryResponse) -> Result<(), String> {
        let own = self.config.node();
        if response.removed_resources.contains(&own) {
            tracing::warn!("control plane withdrew the snapshot, the one in use stays");
        }
        let Some(resource) = response.resources.into_iter().find(|resource| resource.name == own) else {
            return Ok(());
        };
        let snapshot = Arc::new(decode(resource)?);
        let revision = snapshot.revision.clone();
        if self.publisher.revision().as_ref() != Some(&revision) {
            self.publisher.offer(snapshot.clone()).await?;
            tracing::info!(revision, documents = snapshot.documents.len(), "snapshot in force");
            // Kept before it is acknowledged: what the control plane believes to be in force must survive a crash.
            self.keep(snapshot).await;
        }
        self.status.send_modify(|status| {
            (status.revision, status.from_disk, status.problem) = (Some(revision), false, None);
        });
        Ok(())
    }

    /// A snapshot that cannot be kept is in force all the same: refusing it would only make the proxy older.
    async fn keep(&self, snapshot: Arc<RawSnapshot>) {
        let (store, now) = (self.store.clone(), self.clock.now().as_secs());
        let kept = tokio::task::spawn_blocking(move || store.save(&snapshot, now)).await;
        let error = match kept {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        let directory = self.config.state_dir.display();
        tracing::error!(%directory, error, "snapshot is in force but cannot be kept for the next start");
    }
}

type Opened = (mpsc::Sender<xds::DeltaDiscoveryRequest>, Streaming<xds::DeltaDiscoveryResponse>);

/// A resource as a snapshot whose content is what its revision says.
fn decode(resource: xds::Resource) -> Result<RawSnapshot, String> {
    let any = resource.resource.ok_or("resource without content")?;
    if any.type_url != SNAPSHOT_TYPE_URL {
        return Err(format!("resource of type `{}`", any.type_url));
    }
    let message = control::Snapshot::decode(any.value.as_slice()).map_err(|error| error.to_string())?;
    let snapshot = from_wire(message);
    if resource.version != snapshot.revision || !snapshot.is_intact() {
        return Err(format!("content is not that of revision `{}`", resource.version));
    }
    Ok(snapshot)
}

/// The wire's form as ours; its revision is not checked here.
pub(super) fn from_wire(message: control::Snapshot) -> RawSnapshot {
    let text = |document: control::Document| SourceText {
        file: document.file.into(),
        first_line: document.first_line,
        text: document.text.into(),
    };
    RawSnapshot {
        revision: message.revision,
        documents: message.documents.into_iter().map(text).collect(),
        mesh: message.mesh.map(text),
    }
}

fn describe(status: &Status) -> String {
    let cause = std::error::Error::source(status).map(error_chain);
    match cause {
        Some(cause) => format!("{:?}: {}: {cause}", status.code(), status.message()),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}

#[cfg(test)]
mod tests;
