//! Moving what was written from SQLite's log into the database, beside the commits instead of inside one of them: left to itself
//! SQLite does it in the commit that fills the log, and everybody in that batch waits for several flushes.

use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::mpsc;

/// Rows after which it is worth it: the log then has some megabytes.
const EVERY: usize = 4_000;
/// Moves everything that is in the log at this moment, while others read and write.
const PASSIVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// The writer's end: counts rows, and finishes what the task beside it began.
pub(super) struct Checkpoints {
    /// Rows since the last one began.
    rows: usize,
    begin: mpsc::Sender<()>,
    done: mpsc::Receiver<()>,
}

impl Checkpoints {
    /// Starts the task, with a connection of its own; it ends with this.
    pub(super) fn start(pool: SqlitePool) -> Self {
        let (begin, mut begun) = mpsc::channel(1);
        let (finished, done) = mpsc::channel(1);
        tokio::spawn(async move {
            while begun.recv().await.is_some() {
                note(sqlx::query(PASSIVE).execute(&pool).await.err());
                // Already said where it is full.
                let _ = finished.try_send(());
            }
            pool.close().await;
        });
        // What an earlier process left in the log goes first.
        Self { rows: EVERY, begin, done }
    }

    /// After `rows` more were committed. What came in while the task copied is little: it is moved here, between two commits, so
    /// that the log is used up once and begins anew instead of growing for ever.
    pub(super) async fn committed(&mut self, rows: usize, writing: &mut SqliteConnection) {
        self.rows = self.rows.saturating_add(rows);
        if self.done.try_recv().is_ok() {
            note(sqlx::query(PASSIVE).execute(writing).await.err());
        } else if self.rows >= EVERY && self.begin.try_send(()).is_ok() {
            self.rows = 0;
        }
    }
}

fn note(error: Option<sqlx::Error>) {
    if let Some(error) = error {
        tracing::warn!(%error, "issuance records stay in SQLite's log until the next attempt");
    }
}
