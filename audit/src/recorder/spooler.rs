//! The task that numbers events and makes them durable.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use palisade_wire::audit::Event;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio_util::sync::CancellationToken;

use super::Ring;
use crate::clock::NanoClock;
use crate::spool::{Frames, Spool, SpoolWriter, WriteError, gap};

/// Pause before a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why the spool was not closed in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// Events were still to be written at the stop, and could not be.
    #[error("cannot write the last {events} audit events; they are lost, and the next start records that")]
    Unwritten {
        /// How many.
        events: u64,
        /// What the system said.
        source: io::Error,
    },
    /// All events are written, the mark of the orderly end is not.
    #[error("cannot mark the audit spool as closed; the next start will report a crash")]
    Mark(#[source] io::Error),
    /// The writing thread died.
    #[error("the audit spool's writer failed")]
    Writer(#[source] tokio::task::JoinError),
}

/// Drains the ring into the spool.
#[derive(Debug)]
pub struct Spooler {
    pub(super) ring: Arc<Ring>,
    pub(super) receiver: mpsc::UnboundedReceiver<Event>,
    /// Taken out of the ring, not yet numbered.
    pub(super) backlog: VecDeque<Event>,
    pub(super) writer: SpoolWriter,
    pub(super) epoch: u64,
    pub(super) next: u64,
    pub(super) enforcer: String,
    pub(super) quota: u64,
    /// A group is cut at this size, so that a small quota does not meet one huge group.
    pub(super) group_bytes: u64,
    pub(super) commit_interval: Duration,
    pub(super) clock: NanoClock,
}

/// Numbered events on their way to the disk.
struct Group {
    frames: Frames,
    /// Places in the ring that they hold.
    places: usize,
}

impl Spooler {
    /// Runs until `shutdown`; then takes what the ring still holds, writes it even over the quota, and closes the spool in order.
    /// Events recorded after that are counted as lost at `stop`.
    ///
    /// # Errors
    /// [`SpoolError`] if the end was not orderly. While running, a disk that cannot be written is an error in the log, a retry
    /// and back-pressure.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), SpoolError> {
        loop {
            self.gather(&shutdown).await;
            while !self.backlog.is_empty() || self.ring.lost.load(Ordering::Acquire) > 0 {
                let group = self.number();
                self = self.write(group, &shutdown).await?;
            }
            if self.receiver.is_closed() && self.receiver.is_empty() {
                return self.writer.close().map_err(SpoolError::Mark);
            }
        }
    }

    /// Waits for events, and a little longer for more to share the write. At the stop takes all and lets no more in.
    async fn gather(&mut self, shutdown: &CancellationToken) {
        let first = tokio::select! {
            biased;
            () = shutdown.cancelled() => None,
            event = self.receiver.recv() => event,
        };
        if let Some(event) = first {
            self.backlog.push_back(event);
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.ring.hurry.notified() => {}
                () = tokio::time::sleep(self.commit_interval) => {}
            }
        }
        if shutdown.is_cancelled() {
            self.receiver.close();
        }
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => self.backlog.push_back(event),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    /// Numbers the next events; after the last one also those that were lost.
    fn number(&mut self) -> Group {
        let mut group = Group { frames: Frames::default(), places: 0 };
        while group.frames.len() < self.group_bytes
            && let Some(mut event) = self.backlog.pop_front()
        {
            event.enforcer.clone_from(&self.enforcer);
            event.epoch = self.epoch;
            event.sequence = self.next;
            self.next = self.next.saturating_add(1);
            group.frames.push(&event);
            group.places = group.places.saturating_add(1);
        }
        if self.backlog.is_empty() {
            let lost = self.ring.lost.swap(0, Ordering::AcqRel);
            if lost > 0 {
                let to = self.next.saturating_add(lost).saturating_sub(1);
                group.frames.push(&gap(&self.enforcer, self.epoch, self.next, to, "overflow", self.clock.now()));
                self.next = to.saturating_add(1);
                tracing::error!(events = lost, "audit events were lost because the ring was full");
            }
        }
        group
    }

    /// Makes a group durable, however long the disk or the quota makes it wait. At the stop the quota is no obstacle and an
    /// error is final.
    async fn write(mut self, group: Group, shutdown: &CancellationToken) -> Result<Self, SpoolError> {
        let Group { mut frames, places } = group;
        let mut told = false;
        while !frames.is_empty() {
            let stopping = shutdown.is_cancelled();
            let quota = if stopping { u64::MAX } else { self.quota };
            let spool = Arc::clone(self.writer.spool());
            let trimmed = spool.trimmed();
            let (writer, tried, result) = commit(self.writer, frames, quota).await?;
            (self.writer, frames) = (writer, tried);
            let error = match result {
                Ok(()) => break,
                Err(WriteError::Io(source)) if stopping => return Err(self.give_up(&frames, source)),
                Err(error) => error,
            };
            if !std::mem::replace(&mut told, true) {
                tell(&spool, &error);
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = trimmed => {}
                () = tokio::time::sleep(RETRY), if matches!(error, WriteError::Io(_)) => {}
            }
        }
        self.ring.metrics.spooled.inc_by(frames.events);
        self.ring.free(places);
        Ok(self)
    }

    fn give_up(mut self, frames: &Frames, source: io::Error) -> SpoolError {
        self.receiver.close();
        self.drain();
        let events = frames.events.saturating_add(self.backlog.len() as u64);
        self.ring.metrics.lost_stop.inc_by(events);
        self.writer.abandon();
        SpoolError::Unwritten { events, source }
    }
}

async fn commit(
    mut writer: SpoolWriter,
    frames: Frames,
    quota: u64,
) -> Result<(SpoolWriter, Frames, Result<(), WriteError>), SpoolError> {
    tokio::task::spawn_blocking(move || {
        let result = writer.commit(&frames, quota);
        (writer, frames, result)
    })
    .await
    .map_err(SpoolError::Writer)
}

fn tell(spool: &Spool, error: &WriteError) {
    match error {
        WriteError::Full => {
            tracing::warn!(path = %spool.dir().display(), bytes = spool.total(), "the audit spool is full; requests are held back until the server takes events");
        }
        WriteError::Io(source) => {
            tracing::error!(path = %spool.dir().display(), error = %source, "cannot write the audit spool; requests are held back and the write is tried again");
        }
    }
}
