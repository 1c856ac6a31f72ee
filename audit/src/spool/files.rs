//! Names and small files of a spool directory.
//!
//! `<epoch>-<first sequence>.spool` holds events; `epoch` says which numbering is running and whether it was closed in order;
//! `lock` keeps a second process out. Everything is readable by its owner alone: events hold addresses and paths.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A segment by what its name says; ordered as its events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentId {
    pub(super) epoch: u64,
    /// Sequence of the first event in it, or of the next one to come.
    pub(super) first: u64,
}

impl SegmentId {
    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:020}-{:020}.spool", self.epoch, self.first))
    }

    fn parse(name: &str) -> Option<Self> {
        let (epoch, first) = name.strip_suffix(".spool")?.split_once('-')?;
        Some(Self { epoch: epoch.parse().ok()?, first: first.parse().ok()? })
    }
}

/// The `epoch` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EpochState {
    pub(super) epoch: u64,
    /// False from the first event until the recorder has closed in order.
    pub(super) closed: bool,
}

pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Takes the directory for this process; the lock lasts as long as the file is open.
pub(super) fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

pub(super) fn segments(dir: &Path) -> io::Result<Vec<(SegmentId, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if let Some(id) = entry.file_name().to_str().and_then(SegmentId::parse) {
            found.push((id, entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// `None` if the file is absent or unreadable as what it should be: the caller then goes by the segments.
pub(super) fn read_state(dir: &Path) -> io::Result<Option<EpochState>> {
    match fs::read(dir.join("epoch")) {
        Ok(bytes) => Ok(str::from_utf8(&bytes).ok().and_then(parse_state)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_state(text: &str) -> Option<EpochState> {
    let (epoch, state) = text.strip_suffix('\n')?.split_once(' ')?;
    let closed = match state {
        "open" => false,
        "closed" => true,
        _ => return None,
    };
    Some(EpochState { epoch: epoch.parse().ok()?, closed })
}

/// Replaces the state at once: a crash leaves the old or the new one.
pub(super) fn write_state(dir: &Path, state: EpochState) -> io::Result<()> {
    let draft = dir.join("epoch.new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    writeln!(file, "{} {}", state.epoch, if state.closed { "closed" } else { "open" })?;
    file.sync_all()?;
    fs::rename(&draft, dir.join("epoch"))?;
    sync_dir(dir)
}

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_events_do() {
        let dir = Path::new("/d");
        let old = SegmentId { epoch: 9, first: 100 };
        let new = SegmentId { epoch: 10, first: 1 };
        assert!(old < new && old.path(dir) < new.path(dir));
        assert_eq!(SegmentId::parse("00000000000000000009-00000000000000000100.spool"), Some(old));
        for name in ["x.spool", "1.spool", "1-2", "-1-2.spool", "1-99999999999999999999.spool", "lock"] {
            assert_eq!(SegmentId::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_state_reads_back_and_garbage_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_state(dir.path()).unwrap(), None);
        for state in [EpochState { epoch: 5, closed: false }, EpochState { epoch: u64::MAX, closed: true }] {
            write_state(dir.path(), state).unwrap();
            assert_eq!(read_state(dir.path()).unwrap(), Some(state));
        }
        for garbage in [&b"5 open"[..], b"", b"x open\n", b"5 half\n", b"\xff\xfe\n"] {
            fs::write(dir.path().join("epoch"), garbage).unwrap();
            assert_eq!(read_state(dir.path()).unwrap(), None);
        }
    }
}
