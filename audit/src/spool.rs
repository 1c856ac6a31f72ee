//! Events on their way, on disk.
//!
//! An enforcer must survive the loss of the server and of itself without losing what it has seen. So every event is appended to
//! a segment file and made durable in groups; the forwarder reads the same files, and a file is deleted only after the server
//! has acknowledged all that is in it. There is no second record of progress: what is still there is sent again after a restart
//! and the store drops what it already has.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use palisade_wire::audit::{Event, Gap, Kind};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, watch};

mod files;
mod frame;
mod reader;
mod recover;
mod writer;

use files::SegmentId;
pub(crate) use reader::Chunk;
pub use reader::SpoolReader;
pub(crate) use recover::open;
pub(crate) use writer::{Frames, SpoolWriter, WriteError};

/// Bytes before the first event of a segment.
const HEADER: u64 = frame::MAGIC.len() as u64;

/// Why a spool directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting that cannot work.
    #[error("{setting} is {value}, at least {least} is needed")]
    Setting {
        /// Which one.
        setting: &'static str,
        /// As given.
        value: u64,
        /// What would do.
        least: u64,
    },
    /// The directory cannot be made or written.
    #[error("cannot write the audit spool `{}`; make it writable for this user or choose another directory", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the directory.
    #[error("the audit spool `{}` is in use by another process; stop it or choose another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

/// A place in the enforcer's record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

/// What the writer and the reader of one spool share.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    enforcer: String,
    state: Mutex<State>,
    /// Counts changes that a reader may wait for: more is durable, or the spool has closed.
    changed: watch::Sender<u64>,
    /// Rung when files were deleted.
    trimmed: Notify,
    bytes: Gauge,
    _lock: File,
}

#[derive(Debug)]
struct State {
    segments: BTreeMap<SegmentId, Segment>,
    /// Last event that is durable.
    reach: Position,
    end: End,
}

/// Whether this process still writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Running,
    /// All is on disk, and marked so.
    InOrder,
    /// Something could not be written: the next process reports the loss.
    Abandoned,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    /// Durable bytes: a reader goes no further.
    length: u64,
    /// False while the writer appends to it.
    closed: bool,
}

impl Spool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of all segments.
    pub(crate) fn total(&self) -> u64 {
        self.state().segments.values().map(|segment| segment.length).sum()
    }

    /// True if no event is on disk.
    fn is_empty(&self) -> bool {
        self.state().segments.values().all(|segment| segment.length <= HEADER)
    }

    /// Changes the state, then the gauge, then tells the readers.
    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.bytes.set(i64::try_from(self.total()).unwrap_or(i64::MAX));
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Last event that is durable.
    pub(crate) fn reach(&self) -> Position {
        self.state().reach
    }

    /// True once nothing more will be written by this process.
    pub(crate) fn stopped(&self) -> bool {
        self.state().end != End::Running
    }

    /// Waits for the next trim that begins after this call.
    pub(crate) fn trimmed(&self) -> tokio::sync::futures::Notified<'_> {
        self.trimmed.notified()
    }
}

/// A gap event for the sequences `from` to `to` (0: unknown). It stands at the first lost number itself, so that the numbers of
/// an epoch are exactly its events that have a row and those that gaps count.
pub(crate) fn gap(enforcer: &str, epoch: u64, from: u64, to: u64, cause: &str, time_ns: u64) -> Event {
    Event {
        enforcer: enforcer.to_owned(),
        epoch,
        sequence: from,
        time_ns,
        kind: Kind::Gap.into(),
        reason: cause.to_owned(),
        gap: Some(Gap { from_sequence: from, to_sequence: to, cause: cause.to_owned() }),
        ..Event::default()
    }
}

/// Last sequence that `event` accounts for.
pub(crate) fn end_of(event: &Event) -> u64 {
    event.gap.as_ref().map_or(event.sequence, |gap| gap.to_sequence.max(event.sequence))
}

#[cfg(test)]
mod tests;
