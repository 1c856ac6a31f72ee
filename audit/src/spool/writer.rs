//! Appending to the spool: one write and one `fdatasync` for a group of events.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use palisade_wire::audit::Event;

use super::files::{self, EpochState, SegmentId};
use super::{End, HEADER, Position, Segment, Spool, end_of, frame, recover};

/// Encoded events that become durable together.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// Events in it, gap events not counted.
    pub(crate) events: u64,
    /// Last sequence in it.
    last: u64,
}

impl Frames {
    /// Adds an event that has its numbers. `event` must follow the one before.
    pub(crate) fn push(&mut self, event: &Event) {
        frame::push(&mut self.bytes, event);
        self.last = end_of(event);
        if event.gap.is_none() {
            self.events = self.events.saturating_add(1);
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Why a group did not become durable. The group can be tried again as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the audit spool has reached its quota")]
    Full,
    #[error("cannot write the audit spool")]
    Io(#[from] io::Error),
}

/// The one writer of a spool.
#[derive(Debug)]
pub(crate) struct SpoolWriter {
    spool: Arc<Spool>,
    file: File,
    id: SegmentId,
    /// Durable bytes of the segment.
    length: u64,
    /// Sequence of the next event.
    next: u64,
    segment_bytes: u64,
    /// The file may hold bytes behind `length` that failed to become durable.
    dirty: bool,
}

impl SpoolWriter {
    pub(super) fn new(spool: Arc<Spool>, file: File, id: SegmentId, segment_bytes: u64) -> Self {
        Self { spool, file, id, length: HEADER, next: id.first, segment_bytes, dirty: false }
    }

    pub(crate) fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// Makes `frames` durable. Over `quota` nothing is written, unless the spool is empty: a single group always fits.
    pub(crate) fn commit(&mut self, frames: &Frames, quota: u64) -> Result<(), WriteError> {
        if self.spool.total().saturating_add(frames.len()) > quota && !self.spool.is_empty() {
            // The forwarder deletes whole segments: close this one so that its acknowledgement makes room.
            self.rotate()?;
            return Err(WriteError::Full);
        }
        if self.dirty || self.file.metadata()?.nlink() == 0 {
            self.replace()?;
        }
        if let Err(error) = self.append(&frames.bytes) {
            self.dirty = self.file.set_len(self.length).and_then(|()| self.file.sync_data()).is_err();
            return Err(error.into());
        }
        self.length = self.length.saturating_add(frames.len());
        self.next = frames.last.saturating_add(1);
        let (id, segment) = (self.id, Segment { length: self.length, closed: false });
        self.spool.update(|state| {
            state.segments.insert(id, segment);
            state.reach = Position { epoch: id.epoch, sequence: frames.last };
        });
        if self.length >= self.segment_bytes {
            // The group is durable; a failure to rotate shows again, and is told, at the next commit.
            let _ = self.rotate();
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }

    /// Goes on in a new file if this one is not empty.
    fn rotate(&mut self) -> io::Result<()> {
        if self.length > HEADER { self.replace() } else { Ok(()) }
    }

    /// Goes on in a new file, which may take the name of an empty one.
    fn replace(&mut self) -> io::Result<()> {
        let id = SegmentId { epoch: self.id.epoch, first: self.next };
        self.file = recover::create(&self.spool.dir, id)?;
        let old = (self.id, Segment { length: self.length, closed: true });
        (self.id, self.length, self.dirty) = (id, HEADER, false);
        self.spool.update(|state| {
            state.segments.insert(old.0, old.1);
            state.segments.insert(id, Segment { length: HEADER, closed: false });
        });
        Ok(())
    }

    /// Writes the mark of an orderly end: the next process then reports no crash.
    pub(crate) fn close(self) -> io::Result<()> {
        let marked = files::write_state(&self.spool.dir, EpochState { epoch: self.id.epoch, closed: true });
        self.end(if marked.is_ok() { End::InOrder } else { End::Abandoned });
        marked
    }

    /// Ends writing without the mark, after an error: the next process reports the loss.
    pub(crate) fn abandon(self) {
        self.end(End::Abandoned);
    }

    fn end(self, end: End) {
        self.spool.update(|state| {
            if let Some(segment) = state.segments.get_mut(&self.id) {
                segment.closed = true;
            }
            state.end = end;
        });
    }
}
