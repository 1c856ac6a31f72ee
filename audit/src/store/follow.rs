//! Those who want rows as they are stored.
//!
//! The filter is applied here, before anything is kept, so a follower of little costs little. What one has not read yet is
//! bounded; who falls behind is dropped and told, and never slows the writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_wire::audit::Event;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::query::Query;

/// Rows that a follower may be behind.
pub(crate) const BEHIND: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Followers {
    all: Mutex<Vec<Follower>>,
}

#[derive(Debug)]
struct Follower {
    query: Query,
    rows: mpsc::Sender<(i64, Event)>,
    dropped: Arc<AtomicBool>,
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Following {
    rows: mpsc::Receiver<(i64, Event)>,
    dropped: Arc<AtomicBool>,
}

/// The follower was too slow: what it got is all it gets.
#[derive(Debug)]
pub(crate) struct Behind;

impl Followers {
    fn all(&self) -> MutexGuard<'_, Vec<Follower>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows from the next commit on.
    pub(crate) fn follow(&self, query: Query) -> Following {
        let (sender, rows) = mpsc::channel(BEHIND);
        let dropped = Arc::new(AtomicBool::new(false));
        self.all().push(Follower { query, rows: sender, dropped: Arc::clone(&dropped) });
        Following { rows, dropped }
    }

    /// Whether anybody wants `event`.
    pub(super) fn want(&self, event: &Event) -> bool {
        self.all().iter().any(|follower| follower.query.follows(event))
    }

    /// Gives rows of a commit to those who want them.
    pub(super) fn publish(&self, rows: &[(i64, Event)]) {
        self.all().retain(|follower| {
            let mut wanted = rows.iter().filter(|(_, event)| follower.query.follows(event));
            wanted.all(|row| match follower.rows.try_send(row.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    follower.dropped.store(true, Ordering::Release);
                    false
                }
                Err(TrySendError::Closed(_)) => false,
            }) && !follower.rows.is_closed()
        });
    }
}

impl Following {
    /// The next row and its number; `None` when the store is gone.
    pub(crate) async fn next(&mut self) -> Option<Result<(i64, Event), Behind>> {
        match self.rows.recv().await {
            Some(row) => Some(Ok(row)),
            None if self.dropped.load(Ordering::Acquire) => Some(Err(Behind)),
            None => None,
        }
    }
}
