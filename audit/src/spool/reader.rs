//! Reading the spool in order, from what is not acknowledged, and deleting what is.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use palisade_wire::audit::Event;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::files::SegmentId;
use super::frame::{self, Frame, MAGIC};
use super::{End, HEADER, Position, Segment, Spool, end_of, gap};
use crate::clock::NanoClock;

/// Bytes read at a time; more than the largest frame.
const READ: u64 = 1024 * 1024;
/// Limits of one chunk.
const CHUNK_EVENTS: usize = 2000;
const CHUNK_BYTES: usize = 1024 * 1024;

/// Consecutive events of one epoch.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) epoch: u64,
    pub(crate) events: Vec<Event>,
    /// Nothing of this epoch follows.
    pub(crate) closed: bool,
    bytes: usize,
}

impl Chunk {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.closed
    }

    fn has_room(&self) -> bool {
        self.events.len() < CHUNK_EVENTS && self.bytes < CHUNK_BYTES
    }
}

/// The one reader of a spool, for the [`Forwarder`](crate::Forwarder).
pub struct SpoolReader {
    spool: Arc<Spool>,
    changed: watch::Receiver<u64>,
    clock: NanoClock,
    /// Counts what could not be read back.
    lost: Counter,
    lost_until: Position,
    acknowledged: Position,
    cursor: Cursor,
    /// Segments read to their end, each with the position that must be acknowledged before it can go.
    finished: VecDeque<(SegmentId, Position)>,
}

#[derive(Debug)]
struct Cursor {
    /// The segment to read, or the first one behind it.
    id: SegmentId,
    offset: u64,
    /// Last sequence of the epoch that is accounted for.
    last: u64,
}

const START: Cursor = Cursor { id: SegmentId { epoch: 0, first: 0 }, offset: 0, last: 0 };

impl std::fmt::Debug for SpoolReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpoolReader")
            .field("acknowledged", &self.acknowledged)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl SpoolReader {
    pub(crate) fn new(spool: Arc<Spool>, clock: NanoClock, lost: Counter) -> Self {
        let changed = spool.changed.subscribe();
        Self {
            spool,
            changed,
            clock,
            lost,
            lost_until: Position::default(),
            acknowledged: Position::default(),
            cursor: START,
            finished: VecDeque::new(),
        }
    }

    pub(crate) fn enforcer(&self) -> &str {
        &self.spool.enforcer
    }

    pub(crate) fn reach(&self) -> Position {
        self.spool.reach()
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.spool.total()
    }

    /// A handle that wakes when there may be more to read.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// True once nothing is written any more; then an empty [`read`](Self::read) means that all has been read.
    pub(crate) fn stopped(&self) -> bool {
        self.spool.stopped()
    }

    /// Starts again at the first event that is not acknowledged.
    pub(crate) fn rewind(&mut self) {
        self.cursor = START;
        self.finished.clear();
    }

    /// Reads on; empty if there is nothing more at present. Blocks on the disk.
    pub(crate) fn read(&mut self) -> Chunk {
        let mut chunk = Chunk::default();
        while chunk.has_room() && !chunk.closed {
            let Some(place) = self.place(&chunk) else { break };
            if self.cursor.offset < place.segment.length {
                self.read_segment(&mut chunk, place.segment.length);
            } else if place.segment.closed {
                if !self.finish(&mut chunk, &place) {
                    break;
                }
            } else {
                break;
            }
        }
        self.trim();
        chunk
    }

    /// Where the cursor stands; moves it to the next segment if its own is gone or done.
    fn place(&mut self, chunk: &Chunk) -> Option<Place> {
        let state = self.spool.state();
        let mut from = state.segments.range(self.cursor.id..);
        let (&id, &segment) = from.next()?;
        let next = from.next().map(|(id, _)| *id);
        let end = state.end;
        drop(state);
        if !chunk.events.is_empty() && id.epoch != chunk.epoch {
            return None;
        }
        if id != self.cursor.id {
            let last = if id.epoch == self.cursor.id.epoch { self.cursor.last } else { id.first.saturating_sub(1) };
            self.cursor = Cursor { id, offset: 0, last };
        }
        Some(Place { segment, next, end })
    }

    /// Leaves a segment. False if its epoch may still grow.
    fn finish(&mut self, chunk: &mut Chunk, place: &Place) -> bool {
        let id = self.cursor.id;
        let mut until = Position { epoch: id.epoch, sequence: self.cursor.last };
        if place.next.is_none_or(|next| next.epoch != id.epoch) {
            if place.next.is_none() && place.end != End::InOrder {
                return false;
            }
            if self.cursor.last > 0 {
                // The epoch ends here. The segment stays until the store knows that too.
                until.sequence = u64::MAX;
                chunk.epoch = id.epoch;
                chunk.closed = true;
            } else {
                until = Position::default();
            }
        }
        self.finished.push_back((id, until));
        self.cursor.id.first = id.first.saturating_add(1);
        true
    }

    fn read_segment(&mut self, chunk: &mut Chunk, length: u64) {
        let path = self.cursor.id.path(&self.spool.dir);
        let bytes = read_at(&path, self.cursor.offset, length).unwrap_or_else(|error| {
            tracing::error!(path = %path.display(), %error, "cannot read an audit spool segment");
            Vec::new()
        });
        let mut rest = bytes.as_slice();
        let mut progress = false;
        if self.cursor.offset == 0
            && let Some(events) = rest.strip_prefix(MAGIC.as_slice())
        {
            (rest, self.cursor.offset, progress) = (events, HEADER, true);
        }
        while chunk.has_room() && self.cursor.offset > 0 {
            let Frame::Event(event, size) = frame::next(rest) else { break };
            rest = rest.get(size..).unwrap_or_default();
            self.cursor.offset = self.cursor.offset.saturating_add(size as u64);
            chunk.bytes = chunk.bytes.saturating_add(size);
            progress = true;
            self.take(*event, chunk);
        }
        if !progress {
            tracing::error!(path = %path.display(), offset = self.cursor.offset, "an audit spool segment is damaged; the loss is recorded");
            self.cursor.offset = length;
        }
    }

    /// Adds an event, and before it a gap for the numbers that should have stood between.
    fn take(&mut self, event: Event, chunk: &mut Chunk) {
        let epoch = self.cursor.id.epoch;
        chunk.epoch = epoch;
        let expected = self.cursor.last.saturating_add(1);
        if event.sequence > expected {
            let to = event.sequence.saturating_sub(1);
            let until = Position { epoch, sequence: to };
            if until > self.lost_until {
                self.lost_until = until;
                self.lost.inc_by(event.sequence.saturating_sub(expected));
            }
            self.add(gap(&self.spool.enforcer, epoch, expected, to, "corrupt", self.clock.now()), chunk);
        }
        self.cursor.last = self.cursor.last.max(end_of(&event));
        self.add(event, chunk);
    }

    fn add(&self, event: Event, chunk: &mut Chunk) {
        if (Position { epoch: event.epoch, sequence: event.sequence }) > self.acknowledged {
            chunk.events.push(event);
        }
    }

    /// Takes note that the store has everything up to `position`, and deletes the segments that are done with.
    pub(crate) fn acknowledge(&mut self, position: Position) {
        self.acknowledged = self.acknowledged.max(position);
        self.trim();
    }

    fn trim(&mut self) {
        while let Some((id, _)) = self.finished.front().copied().filter(|(_, until)| *until <= self.acknowledged) {
            self.finished.pop_front();
            let path = id.path(&self.spool.dir);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::error!(path = %path.display(), %error, "cannot delete an acknowledged audit spool segment");
                }
                _ => {}
            }
            self.spool.update(|state| {
                state.segments.remove(&id);
            });
            self.spool.trimmed.notify_waiters();
        }
    }
}

struct Place {
    segment: Segment,
    next: Option<SegmentId>,
    end: End,
}

fn read_at(path: &std::path::Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length.saturating_sub(offset).min(READ)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
