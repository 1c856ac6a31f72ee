//! The server's end: batches in, acknowledgements out.
//!
//! Who an event is from is decided here, from the peer's certificate, and written over whatever the event says: nobody can add
//! to another's record. An acknowledgement is sent only after the commit.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use palisade_wire::Caller;
use palisade_wire::audit::audit_ingest_server::{AuditIngest, AuditIngestServer};
use palisade_wire::audit::{Ack, Batch, Event};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::clock::NanoClock;
use crate::limits;
use crate::metrics::IngestMetrics;
use crate::store::{Here, Inserted, Store, StoreError};

/// Decides whether a caller is the enforcer that it claims to be (`<namespace>/<workload>`), and answers the name under which
/// its events are stored, or the refusal.
pub type Authorizer = Arc<dyn Fn(&Caller, &str) -> Result<String, Status> + Send + Sync>;

/// Most events of one batch.
const MAX_EVENTS: usize = 4096;
/// Most bytes of one batch.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The `AuditIngest` service.
#[derive(Clone)]
pub struct IngestService {
    store: Store,
    authorize: Authorizer,
    clock: NanoClock,
    metrics: IngestMetrics,
    closing: CancellationToken,
}

impl std::fmt::Debug for IngestService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IngestService").field("store", &self.store).finish_non_exhaustive()
    }
}

impl IngestService {
    /// A service on `store`. Registers its metrics. Requests need a [`Caller`] among their extensions.
    pub fn new(store: Store, authorize: Authorizer, clock: NanoClock, registry: &mut Registry) -> Self {
        let metrics = IngestMetrics::register(registry);
        Self { store, authorize, clock, metrics, closing: CancellationToken::new() }
    }

    /// Ends every stream, between two batches, once `closing` is cancelled: enforcers never end theirs.
    #[must_use]
    pub fn until(self, closing: CancellationToken) -> Self {
        Self { closing, ..self }
    }

    /// The service as tonic mounts it, with its limit on message size.
    #[must_use]
    pub fn into_server(self) -> AuditIngestServer<Self> {
        AuditIngestServer::new(self).max_decoding_message_size(MAX_BYTES)
    }
}

#[tonic::async_trait]
impl AuditIngest for IngestService {
    type PushStream = Pin<Box<dyn Stream<Item = Result<Ack, Status>> + Send>>;

    async fn push(&self, request: Request<Streaming<Batch>>) -> Result<Response<Self::PushStream>, Status> {
        let caller =
            request.extensions().get::<Caller>().cloned().ok_or_else(|| {
                Status::unauthenticated("audit events are taken only over an authenticated connection")
            })?;
        let push = Push { service: self.clone(), caller, batches: request.into_inner(), here: None };
        // One batch at a time for each stream: what others send meanwhile shares the commit.
        let acks = stream::try_unfold(push, |mut push| async move { Ok(push.next().await?.map(|ack| (ack, push))) });
        Ok(Response::new(Box::pin(acks)))
    }
}

/// One enforcer's stream.
struct Push {
    service: IngestService,
    caller: Caller,
    batches: Streaming<Batch>,
    here: Option<Here>,
}

impl Push {
    /// Reads up to the next batch that is to be acknowledged.
    async fn next(&mut self) -> Result<Option<Ack>, Status> {
        loop {
            let message = self.service.closing.run_until_cancelled(self.batches.message()).await;
            let stopping = || Status::unavailable("the server is stopping");
            let Some(batch) = message.ok_or_else(stopping)?? else { return Ok(None) };
            if let Some(ack) = self.take(batch).await? {
                return Ok(Some(ack));
            }
        }
    }

    async fn take(&mut self, mut batch: Batch) -> Result<Option<Ack>, Status> {
        let enforcer = self.enforcer(&batch)?;
        let epoch = check(&batch)?;
        let now = self.service.clock.now();
        for event in &mut batch.events {
            settle(event, &enforcer, now);
        }
        self.greet(&enforcer, &batch);
        let sequence = match (batch.closed_epoch, batch.events.iter().map(|event| event.sequence).max()) {
            (0, None) => return Ok(None),
            (0, Some(last)) => last,
            // Nothing follows: whatever number is asked about, it is durable.
            _ => u64::MAX,
        };
        let closed = (batch.closed_epoch != 0).then_some((enforcer, batch.closed_epoch));
        let Inserted { new, duplicates } = self.service.store.insert(batch.events, closed).await.map_err(refuse)?;
        self.service.metrics.ingested.inc_by(new);
        self.service.metrics.duplicates.inc_by(duplicates);
        Ok(Some(Ack { epoch, sequence }))
    }

    /// The name under which this batch is stored. Asked for every batch: what a caller may do can change.
    fn enforcer(&self, batch: &Batch) -> Result<String, Status> {
        let claimed = if batch.enforcer.is_empty() {
            batch.events.first().map_or("", |event| event.enforcer.as_str())
        } else {
            batch.enforcer.as_str()
        };
        if claimed.len() > 512 {
            return Err(Status::invalid_argument("the enforcer's name is longer than 512 bytes"));
        }
        (self.service.authorize)(&self.caller, claimed)
    }

    fn greet(&mut self, enforcer: &str, batch: &Batch) {
        if self.here.as_ref().is_none_or(|here| here.enforcer() != enforcer) {
            self.here = Some(self.service.store.presence().arrive(enforcer));
        }
        if let Some(here) = &self.here {
            here.reaches(batch.spooled_epoch, batch.spooled_sequence);
        }
    }
}

/// Refuses what no enforcer sends; answers the epoch of the batch, 0 for a greeting.
fn check(batch: &Batch) -> Result<u64, Status> {
    if batch.events.len() > MAX_EVENTS {
        return Err(Status::invalid_argument(format!(
            "{} events in a batch; at most {MAX_EVENTS}",
            batch.events.len()
        )));
    }
    let epoch = batch.events.first().map_or(batch.closed_epoch, |event| event.epoch);
    for (index, event) in batch.events.iter().enumerate() {
        if event.epoch != epoch {
            return Err(Status::invalid_argument(format!("event {index}: a batch is of one epoch")));
        }
        limits::check(event).map_err(|error| Status::invalid_argument(format!("event {index}: {error}")))?;
    }
    if batch.closed_epoch != 0 && batch.closed_epoch != epoch {
        return Err(Status::invalid_argument("the closed epoch is not the batch's"));
    }
    if i64::try_from(batch.closed_epoch).is_err() {
        return Err(Status::invalid_argument("the closed epoch is beyond 2^63"));
    }
    Ok(epoch)
}

/// What the sender cannot say for itself: who it is, and that what it guards is its own workload. One enforcer must not write
/// another's history.
fn settle(event: &mut Event, enforcer: &str, now: u64) {
    event.enforcer.clear();
    event.enforcer.push_str(enforcer);
    if let (Some(guarded), Some((namespace, workload))) = (event.destination.as_mut(), enforcer.split_once('/')) {
        namespace.clone_into(&mut guarded.namespace);
        workload.clone_into(&mut guarded.workload);
    }
    event.ingested_ns = 0;
    limits::clamp(event);
    limits::settle_time(event, now);
}

/// What the enforcer may know of a failure: the log has the rest.
fn refuse(error: StoreError) -> Status {
    match error {
        StoreError::Nonsense { .. } => Status::invalid_argument(error.to_string()),
        StoreError::Closed => Status::unavailable("the audit store is closing"),
        _ => Status::unavailable("the audit store cannot be written at present"),
    }
}

#[cfg(test)]
mod tests {
    use palisade_wire::audit::Party;

    use super::{Event, settle};

    #[test]
    fn an_enforcer_writes_only_its_own_history() {
        let foreign = Party { namespace: "shop".to_owned(), workload: "payments".to_owned(), ..Party::default() };
        let mut event = Event { enforcer: "shop/payments".to_owned(), destination: Some(foreign), ..Event::default() };
        settle(&mut event, "shop/legacy", 1);
        let guarded = event.destination.unwrap();
        assert_eq!(
            (event.enforcer.as_str(), guarded.namespace.as_str(), guarded.workload.as_str()),
            ("shop/legacy", "shop", "legacy")
        );
    }
}
