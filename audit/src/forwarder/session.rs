//! One connection of the forwarder.

use std::collections::VecDeque;
use std::future::pending;

use palisade_wire::audit::audit_ingest_client::AuditIngestClient;
use palisade_wire::audit::{Ack, Batch};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{Forwarder, SessionError};
use crate::spool::{Chunk, Position};

/// Batches sent and not acknowledged; enough to hide the way there and back.
const WINDOW: usize = 8;

/// A connection that ended as it should.
pub(super) enum End {
    /// The spool is closed and the server has all of it.
    Flushed,
    /// Time for a new one.
    Old,
}

/// Sent and not acknowledged.
struct Sent {
    until: Position,
    events: u64,
    deadline: Instant,
}

pub(super) struct Session<'a> {
    forwarder: &'a Forwarder,
    sender: mpsc::Sender<Batch>,
    answers: Streaming<Ack>,
    changes: watch::Receiver<u64>,
    unacknowledged: VecDeque<Sent>,
    /// There may be more to read.
    readable: bool,
    /// The spool has ended and been read to its end.
    exhausted: bool,
}

impl<'a> Session<'a> {
    pub(super) async fn run(forwarder: &'a Forwarder, shutdown: &CancellationToken) -> Result<End, SessionError> {
        if shutdown.is_cancelled() && forwarder.nothing_left().await? {
            return Ok(End::Flushed);
        }
        let patience = forwarder.config.patience;
        let mut session = timeout(patience, Self::open(forwarder))
            .await
            .map_err(|_| SessionError::Silence(patience))
            .and_then(|opened| opened)?;
        let old = Instant::now() + forwarder.config.stream_lifetime;
        loop {
            if session.unacknowledged.is_empty() {
                if session.exhausted {
                    return Ok(End::Flushed);
                }
                if Instant::now() >= old {
                    return Ok(End::Old);
                }
            }
            session.step(old).await?;
        }
    }

    async fn open(forwarder: &'a Forwarder) -> Result<Self, SessionError> {
        let channel = (forwarder.connect)().await.map_err(SessionError::Connect)?;
        let changes = forwarder.reader.with(|reader| {
            reader.rewind();
            reader.changes()
        });
        let (sender, batches) = mpsc::channel(1);
        // Greet, so that the server knows who is there and how much is on its way.
        let _ = sender.try_send(forwarder.batch(Chunk::default()));
        let answers =
            AuditIngestClient::new(channel).push(ReceiverStream::new(batches)).await.map_err(SessionError::Refused)?;
        Ok(Self {
            forwarder,
            sender,
            answers: answers.into_inner(),
            changes,
            unacknowledged: VecDeque::new(),
            readable: true,
            exhausted: false,
        })
    }

    /// Waits for whichever comes first and deals with it.
    async fn step(&mut self, old: Instant) -> Result<(), SessionError> {
        let patience = self.forwarder.config.patience;
        let idle = self.unacknowledged.is_empty();
        // An old stream takes nothing more; what is under way is still awaited.
        let may_send = self.unacknowledged.len() < WINDOW && !self.exhausted && Instant::now() < old;
        let deadline = self.unacknowledged.front().map(|sent| sent.deadline);
        tokio::select! {
            answer = self.answers.message() => self.acknowledged(answer.map_err(SessionError::Refused)?).await,
            permit = self.sender.clone().reserve_owned(), if may_send && self.readable => {
                let permit = permit.map_err(|_| SessionError::Ended)?;
                if let Some(batch) = self.next().await? {
                    permit.send(batch);
                }
                Ok(())
            }
            changed = self.changes.changed(), if may_send && !self.readable => {
                self.readable = true;
                changed.map_err(|_| SessionError::Ended)
            }
            () = until(deadline) => Err(SessionError::Silence(patience)),
            () = sleep_until(old), if idle => Ok(()),
        }
    }

    async fn next(&mut self) -> Result<Option<Batch>, SessionError> {
        // Read first whether the end was written: then an empty chunk is the end.
        self.changes.mark_unchanged();
        let stopped = self.forwarder.reader.with(|reader| reader.stopped());
        let chunk = self.forwarder.reader.read().await?;
        if chunk.is_empty() {
            self.readable = false;
            self.exhausted = stopped;
            return Ok(None);
        }
        let last = chunk.events.last().map_or(0, |event| event.sequence);
        self.unacknowledged.push_back(Sent {
            until: Position { epoch: chunk.epoch, sequence: if chunk.closed { u64::MAX } else { last } },
            events: chunk.events.iter().filter(|event| event.gap.is_none()).count() as u64,
            deadline: Instant::now() + self.forwarder.config.patience,
        });
        self.forwarder.metrics.forwarded.inc_by(self.unacknowledged.back().map_or(0, |sent| sent.events));
        Ok(Some(self.forwarder.batch(chunk)))
    }

    async fn acknowledged(&mut self, answer: Option<Ack>) -> Result<(), SessionError> {
        let ack = answer.ok_or(SessionError::Ended)?;
        let position = Position { epoch: ack.epoch, sequence: ack.sequence };
        if self.unacknowledged.back().is_none_or(|sent| position > sent.until) {
            return Err(SessionError::Acknowledgement);
        }
        while self.unacknowledged.front().is_some_and(|sent| sent.until <= position) {
            let sent = self.unacknowledged.pop_front();
            self.forwarder.metrics.acknowledged.inc_by(sent.map_or(0, |sent| sent.events));
        }
        self.forwarder.reader.acknowledge(position).await
    }
}

impl Forwarder {
    fn batch(&self, chunk: Chunk) -> Batch {
        let reach = self.reader.with(|reader| reader.reach());
        Batch {
            closed_epoch: if chunk.closed { chunk.epoch } else { 0 },
            events: chunk.events,
            enforcer: self.enforcer.clone(),
            spooled_epoch: reach.epoch,
            spooled_sequence: reach.sequence,
        }
    }

    /// True if the spool has ended with nothing in it to send: then no connection is needed to stop.
    async fn nothing_left(&self) -> Result<bool, SessionError> {
        if !self.reader.with(|reader| reader.stopped()) {
            return Ok(false);
        }
        self.reader.with(|reader| reader.rewind());
        Ok(self.reader.read().await?.is_empty())
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
