//! When it is worth reading the directory again, and when it is safe to.
//!
//! Three senses, because each misses something: inotify (fast, blind on network file systems and on a directory that is
//! replaced under its name), a stat of the directory and the mesh file several times a second (sees replacement), and a
//! slow poll of the content (sees everything). A file that is being written is told from a finished one by inotify's
//! "closed after writing": a truncated policy file is valid YAML without the policy, and must never be read as such.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, MetadataKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

/// How often the directory's own identity is looked at.
const STAT_INTERVAL: Duration = Duration::from_millis(250);
/// A directory in which something always happens is read at least this often.
const LONGEST_DEBOUNCE: Duration = Duration::from_millis(400);
/// After this long without a further write, a file counts as finished though nobody closed it.
const ABANDONED_WRITE: Duration = Duration::from_secs(2);

/// The directory as it is watched: started before its first reading, so that no change falls between the two.
#[derive(Debug)]
pub(crate) struct Watched {
    dir: PathBuf,
    mesh_file: PathBuf,
    shared: Arc<Shared>,
    watcher: Option<RecommendedWatcher>,
    seen: Identity,
}

/// The senses of one directory, while it is followed.
pub(crate) struct Changes {
    watched: Watched,
    settle: Duration,
    stat: Interval,
    poll: Interval,
}

/// What tells a directory or file from its successor of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    dir: Option<(u64, u64)>,
    mesh: Option<(u64, u64, u64, i64, i64)>,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// When the last event came.
    last: Option<Instant>,
    /// YAML files written to and not closed since, with the time of the last write.
    writing: HashMap<PathBuf, Instant>,
    /// Writes to YAML files so far.
    writes: u64,
}

impl Watched {
    /// Watches `dir`, recursively, and `mesh_file`, which may lie elsewhere. Blocking.
    pub(crate) fn start(dir: PathBuf, mesh_file: PathBuf) -> Self {
        let shared = Arc::<Shared>::default();
        let seen = Identity::of(&dir, &mesh_file);
        let watcher = watch(&dir, shared.clone());
        Self { dir, mesh_file, shared, watcher, seen }
    }

    /// Whether directory or mesh file are others than they were; a replaced directory is watched anew.
    async fn replaced(&mut self) -> bool {
        let (dir, mesh_file) = (self.dir.clone(), self.mesh_file.clone());
        let looked = tokio::task::spawn_blocking(move || Identity::of(&dir, &mesh_file)).await;
        let Ok(now) = looked else { return false };
        if self.seen == now {
            return false;
        }
        if self.seen.dir != now.dir {
            self.shared.lock().writing.clear();
            let (dir, shared) = (self.dir.clone(), self.shared.clone());
            self.watcher = tokio::task::spawn_blocking(move || watch(&dir, shared)).await.ok().flatten();
        }
        self.seen = now;
        true
    }
}

/// Starts inotify. Failing is no reason to stop: the poll still sees every change, later.
fn watch(dir: &Path, shared: Arc<Shared>) -> Option<RecommendedWatcher> {
    let start = || -> notify::Result<RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |event| shared.record(event))?;
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(watcher)
    };
    start()
        .inspect_err(|error| tracing::warn!(directory = %dir.display(), %error, "no change notification, polling only"))
        .ok()
}

impl Identity {
    fn of(dir: &Path, mesh_file: &Path) -> Self {
        let (dir, mesh) = (std::fs::metadata(dir).ok(), std::fs::metadata(mesh_file).ok());
        Self {
            dir: dir.map(|meta| (meta.dev(), meta.ino())),
            mesh: mesh.map(|meta| (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())),
        }
    }
}

impl Changes {
    /// Senses for a watched directory.
    pub(crate) fn new(watched: Watched, settle: Duration, poll: Duration) -> Self {
        let ticks = |period| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        Self { watched, settle, stat: ticks(STAT_INTERVAL), poll: ticks(poll) }
    }

    /// Waits until the directory should be read: because something happened, or because it is time to look all the same.
    pub(crate) async fn next(&mut self) {
        loop {
            tokio::select! {
                () = self.watched.shared.wake.notified() => return,
                _ = self.poll.tick() => return,
                _ = self.stat.tick() => if self.watched.replaced().await {
                    return;
                },
            }
        }
    }

    /// Waits until nothing has happened for the debounce time and no YAML file is half written.
    pub(crate) async fn settled(&self) {
        let began = Instant::now();
        loop {
            let now = Instant::now();
            let quiet = self.watched.shared.quiet_at(self.settle).min(began + LONGEST_DEBOUNCE);
            match self.watched.shared.finished_at(now).unwrap_or(quiet).max(quiet) {
                until if until <= now => return,
                until => sleep_until(until.min(now + self.settle)).await,
            }
        }
    }

    /// Writes so far; compared before and after a reading it says whether the reading may be torn.
    pub(crate) fn writes(&self) -> u64 {
        self.watched.shared.lock().writes
    }

    /// True if no YAML file was written to since [`Self::writes`] said `before`.
    pub(crate) fn undisturbed(&self, before: u64) -> bool {
        let inner = self.watched.shared.lock();
        inner.writes == before && inner.writing.is_empty()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn quiet_at(&self, settle: Duration) -> Instant {
        self.lock().last.map_or_else(Instant::now, |last| last + settle)
    }

    /// When the last half-written file will count as finished; `None` where there is none.
    fn finished_at(&self, now: Instant) -> Option<Instant> {
        let mut inner = self.lock();
        inner.writing.retain(|_, last| *last + ABANDONED_WRITE > now);
        inner.writing.values().max().map(|last| *last + ABANDONED_WRITE)
    }

    /// Called on notify's thread for everything that happens.
    fn record(&self, event: notify::Result<Event>) {
        let now = Instant::now();
        let mut inner = self.lock();
        match event {
            Ok(event) if event.need_rescan() => inner.writing.clear(),
            Ok(event) if is_own_reading(event.kind) => return,
            Ok(event) => inner.note(&event, now),
            // A watch that could not be added: something changed, the reading will show what.
            Err(_) => {}
        }
        inner.last = Some(now);
        drop(inner);
        self.wake.notify_one();
    }
}

impl Inner {
    fn note(&mut self, event: &Event, now: Instant) {
        for path in event.paths.iter().filter(|path| is_yaml(path)) {
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_)) => {
                    self.writes += 1;
                    self.writing.insert(path.clone(), now);
                }
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Remove(_)
                | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                    self.writing.remove(path);
                }
                _ => {}
            }
        }
    }
}

/// Opening, reading and closing is what we do ourselves: reacting to it would never end.
fn is_own_reading(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(MetadataKind::AccessTime)) => true,
        _ => false,
    }
}

/// A file the reader takes up. An editor's swap file stays open for hours and is none.
fn is_yaml(path: &Path) -> bool {
    let hidden = path.file_name().and_then(OsStr::to_str).is_none_or(|name| name.starts_with('.'));
    let extension = path.extension().and_then(OsStr::to_str);
    !hidden && matches!(extension, Some("yaml" | "yml"))
}
