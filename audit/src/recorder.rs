//! The enforcer's end: events go in without waiting and come out numbered and durable.
//!
//! A decision must not wait for a disk, and memory must not grow with a slow one. So [`Recorder::record`] only puts the event
//! into a bounded ring, and the caller asks [`Recorder::has_room`] *before* it takes on work: while the ring is above its mark
//! new requests wait, those already under way still find a slot in the reserve. Waiting has an end: after
//! [`RecorderConfig::pressure`] requests go on, and what finds no slot is counted and becomes a gap event. One task numbers the
//! events and makes them durable in groups.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use palisade_wire::audit::Event;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::clock::NanoClock;
use crate::limits;
use crate::metrics::RecorderMetrics;
use crate::spool::{self, OpenError, SpoolReader};

mod spooler;
pub use spooler::{SpoolError, Spooler};

/// Settings of an enforcer's recorder.
#[derive(Debug, Clone)]
pub struct RecorderConfig {
    /// The spool directory: made if absent, for one process at a time.
    pub dir: PathBuf,
    /// Who enforces: `<namespace>/<workload>`.
    pub enforcer: String,
    /// Events held in memory; a quarter of it is the reserve for requests under way. At least 8.
    pub ring: usize,
    /// Bytes of spool before requests are held back. At least 64 KiB.
    pub quota: u64,
    /// How long a group of events is gathered before it is made durable. At most 40 ms are used, so that with the write
    /// itself an event is durable within 50 ms.
    pub commit_interval: Duration,
    /// How long requests are held back when the ring is full, before they go on and gaps are recorded.
    pub pressure: Duration,
}

impl RecorderConfig {
    /// The defaults: a ring of 8,192 events, 256 MiB of spool, groups of 20 ms, 5 s of back-pressure.
    pub fn new(dir: impl Into<PathBuf>, enforcer: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            enforcer: enforcer.into(),
            ring: 8192,
            quota: 256 * 1024 * 1024,
            commit_interval: Duration::from_millis(20),
            pressure: Duration::from_secs(5),
        }
    }
}

/// Takes events; cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    ring: Arc<Ring>,
    sender: mpsc::UnboundedSender<Event>,
}

/// The parts of an enforcer's record, one for each task.
#[derive(Debug)]
pub struct Recording {
    /// For those who decide.
    pub recorder: Recorder,
    /// To be run beside them.
    pub spooler: Spooler,
    /// For the [`Forwarder`](crate::Forwarder).
    pub reader: SpoolReader,
    pub(crate) metrics: RecorderMetrics,
}

/// The bound of the ring. The queue itself is a lock-free channel, which has no bound of its own because part of its places are
/// reserved.
#[derive(Debug)]
struct Ring {
    capacity: usize,
    /// Occupancy at which new work waits.
    mark: usize,
    pressure: Duration,
    /// Events taken and not yet durable.
    queued: AtomicUsize,
    /// Events that found no place, not yet in a gap event.
    lost: AtomicU64,
    /// When the mark was reached: milliseconds after `start`, plus one; 0 while below.
    full_since: AtomicU64,
    start: Instant,
    /// Rung when places become free.
    freed: Notify,
    /// Rung at half of the mark: the group should not be gathered any longer.
    hurry: Notify,
    warned: AtomicBool,
    metrics: RecorderMetrics,
}

impl Recorder {
    /// Opens the spool and begins a new epoch. Registers the metrics of the enforcer. Reads and repairs the last run's files, so
    /// it may take as long as the disk needs for a few megabytes.
    ///
    /// # Errors
    /// [`OpenError`] names the setting or the directory and what to do.
    pub fn open(config: &RecorderConfig, clock: NanoClock, registry: &mut Registry) -> Result<Recording, OpenError> {
        least("ring", config.ring as u64, 8)?;
        least("quota", config.quota, 64 * 1024)?;
        let metrics = RecorderMetrics::register(registry);
        let segment_bytes = (config.quota / 8).clamp(8 * 1024, 4 * 1024 * 1024);
        let opened =
            spool::open(&config.dir, &config.enforcer, segment_bytes, clock.now(), metrics.spool_bytes.clone())?;
        let ring = Arc::new(Ring::new(config, metrics.clone()));
        let (sender, receiver) = mpsc::unbounded_channel();
        let reader = SpoolReader::new(opened.spool, clock.clone(), metrics.lost_spool.clone());
        let spooler = Spooler {
            ring: Arc::clone(&ring),
            receiver,
            backlog: VecDeque::new(),
            writer: opened.writer,
            epoch: opened.epoch,
            next: 1,
            enforcer: config.enforcer.clone(),
            quota: config.quota,
            group_bytes: segment_bytes,
            commit_interval: config.commit_interval.min(Duration::from_millis(40)),
            clock,
        };
        Ok(Recording { recorder: Self { ring, sender }, spooler, reader, metrics })
    }

    /// Whether new work may be taken on. True again, though the ring is full, once waiting has lasted too long.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.ring.has_room()
    }

    /// Waits until [`has_room`](Self::has_room).
    pub async fn room(&self) {
        loop {
            let mut freed = std::pin::pin!(self.ring.freed.notified());
            freed.as_mut().enable();
            if self.ring.has_room() {
                return;
            }
            tokio::select! {
                () = freed => {}
                () = tokio::time::sleep(self.ring.patience()) => {}
            }
        }
    }

    /// Takes an event. Never waits. `enforcer`, `epoch` and `sequence` are set here; over-long fields are cut and named in
    /// `altered`. An event that finds the ring full is lost and counted by a gap event.
    pub fn record(&self, mut event: Event) {
        self.ring.metrics.recorded.inc();
        let queued = self.ring.queued.fetch_add(1, Ordering::AcqRel);
        if queued >= self.ring.capacity {
            self.ring.queued.fetch_sub(1, Ordering::AcqRel);
            self.ring.lose();
            return;
        }
        limits::clamp(&mut event);
        if self.sender.send(event).is_err() {
            self.ring.queued.fetch_sub(1, Ordering::AcqRel);
            self.ring.metrics.lost_stop.inc();
            return;
        }
        if queued == self.ring.mark / 2 {
            self.ring.hurry.notify_one();
        }
    }
}

impl Ring {
    fn new(config: &RecorderConfig, metrics: RecorderMetrics) -> Self {
        Self {
            capacity: config.ring,
            mark: config.ring - config.ring / 4,
            pressure: config.pressure,
            queued: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            full_since: AtomicU64::new(0),
            start: Instant::now(),
            freed: Notify::new(),
            hurry: Notify::new(),
            warned: AtomicBool::new(false),
            metrics,
        }
    }

    fn has_room(&self) -> bool {
        if self.queued.load(Ordering::Acquire) < self.mark {
            return true;
        }
        self.patience().is_zero()
    }

    /// How much longer new work has to wait while the ring is full.
    fn patience(&self) -> Duration {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let since = match self.full_since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => now,
            Err(since) => since,
        };
        self.pressure.saturating_sub(Duration::from_millis(now.saturating_sub(since)))
    }

    fn lose(&self) {
        self.metrics.lost_ring.inc();
        self.lost.fetch_add(1, Ordering::AcqRel);
        if !self.warned.swap(true, Ordering::AcqRel) {
            tracing::error!("the audit ring is full; events are lost and will be counted in a gap event");
        }
    }

    /// Gives back the places of `count` events.
    fn free(&self, count: usize) {
        let before = self.queued.fetch_sub(count, Ordering::AcqRel);
        if before.saturating_sub(count) < self.mark {
            self.full_since.store(0, Ordering::Release);
            self.warned.store(false, Ordering::Release);
            self.freed.notify_waiters();
        }
    }
}

fn least(setting: &'static str, value: u64, least: u64) -> Result<(), OpenError> {
    if value < least { Err(OpenError::Setting { setting, value, least }) } else { Ok(()) }
}
