//! Opening a spool directory, whatever the last process left in it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use palisade_wire::audit::Kind;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, watch};

use super::files::{self, EpochState, SegmentId};
use super::frame::{self, Frame, MAGIC};
use super::{End, HEADER, OpenError, Position, Segment, Spool, SpoolWriter, State, end_of, gap};

/// A spool ready for use.
pub(crate) struct Opened {
    pub(crate) spool: Arc<Spool>,
    pub(crate) writer: SpoolWriter,
    /// The numbering that begins with this process.
    pub(crate) epoch: u64,
}

/// Opens `dir`, repairs what a crash left, and begins a new epoch: the present, or more if the directory has seen that already.
pub(crate) fn open(
    dir: &Path,
    enforcer: &str,
    segment_bytes: u64,
    now: u64,
    bytes: Gauge,
) -> Result<Opened, OpenError> {
    let failed = |source| OpenError::Directory { path: dir.to_owned(), source };
    files::create_dir(dir).map_err(failed)?;
    let lock = files::lock(dir).map_err(failed)?.ok_or_else(|| OpenError::InUse { path: dir.to_owned() })?;
    let previous = close_crashed(dir, enforcer, now).map_err(failed)?;
    let epoch = now.max(previous.saturating_add(1));
    files::write_state(dir, EpochState { epoch, closed: false }).map_err(failed)?;
    let id = SegmentId { epoch, first: 1 };
    let file = create(dir, id).map_err(failed)?;
    let mut segments: BTreeMap<_, _> = files::segments(dir)
        .map_err(failed)?
        .into_iter()
        .map(|(id, length)| (id, Segment { length, closed: true }))
        .collect();
    segments.insert(id, Segment { length: HEADER, closed: false });
    let spool = Arc::new(Spool {
        dir: dir.to_owned(),
        enforcer: enforcer.to_owned(),
        state: Mutex::new(State { segments, reach: Position { epoch, sequence: 0 }, end: End::Running }),
        changed: watch::Sender::new(0),
        trimmed: Notify::new(),
        bytes,
        _lock: lock,
    });
    spool.update(|_| {});
    let writer = SpoolWriter::new(Arc::clone(&spool), file, id, segment_bytes);
    Ok(Opened { spool, writer, epoch })
}

/// Makes a segment with nothing in it, durable by name.
pub(super) fn create(dir: &Path, id: SegmentId) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(id.path(dir))?;
    file.set_len(0)?;
    file.write_all(MAGIC)?;
    file.sync_all()?;
    files::sync_dir(dir)?;
    Ok(file)
}

/// Ends the last epoch with a gap event if its process did not. Answers the highest epoch seen, 0 if none.
fn close_crashed(dir: &Path, enforcer: &str, now: u64) -> io::Result<u64> {
    let state = files::read_state(dir)?;
    let last = files::segments(dir)?.last().map(|(id, _)| *id);
    let previous = state.map_or(0, |state| state.epoch).max(last.map_or(0, |id| id.epoch));
    let in_order = state.is_some_and(|state| state.closed && state.epoch == previous);
    if previous == 0 || in_order {
        return Ok(previous);
    }
    let id = match last {
        Some(id) if id.epoch == previous => id,
        // Killed after the state was written and before the first segment was made.
        _ => {
            let id = SegmentId { epoch: previous, first: 1 };
            create(dir, id)?;
            id
        }
    };
    let tail = repair(dir, id)?;
    if !tail.ended {
        let mut bytes = Vec::new();
        frame::push(&mut bytes, &gap(enforcer, previous, tail.last.saturating_add(1), 0, "crash", now));
        let mut file = OpenOptions::new().append(true).open(id.path(dir))?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        tracing::warn!(epoch = previous, after = tail.last, "the last run ended without closing its audit spool");
    }
    Ok(previous)
}

struct Tail {
    /// Last sequence that the epoch accounts for.
    last: u64,
    /// The epoch's crash is recorded already.
    ended: bool,
}

/// Cuts off what was being written when the process died.
fn repair(dir: &Path, id: SegmentId) -> io::Result<Tail> {
    let path = id.path(dir);
    let bytes = fs::read(&path)?;
    let mut tail = Tail { last: id.first.saturating_sub(1), ended: false };
    let Some(mut rest) = bytes.strip_prefix(MAGIC.as_slice()) else {
        create(dir, id)?;
        return Ok(tail);
    };
    loop {
        match frame::next(rest) {
            Frame::End => return Ok(tail),
            Frame::Event(event, size) => {
                tail.last = end_of(&event);
                tail.ended = event.kind() == Kind::Gap && event.gap.as_ref().is_some_and(|gap| gap.to_sequence == 0);
                rest = rest.get(size..).unwrap_or_default();
            }
            Frame::Torn => {
                tracing::warn!(path = %path.display(), bytes = rest.len(), "cut a torn tail off an audit spool segment");
                let file = OpenOptions::new().write(true).open(&path)?;
                file.set_len(bytes.len().saturating_sub(rest.len()) as u64)?;
                file.sync_data()?;
                return Ok(tail);
            }
        }
    }
}
