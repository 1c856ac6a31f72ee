//! The record of every issuance and every join token: durable before anybody is answered.
//!
//! One task writes. While a transaction is being flushed to disk the next requests gather, and all of
//! them share the next flush (group commit), so throughput does not depend on the disk's latency.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;

mod checkpoint;
mod queries;
mod writer;

/// Version of the schema below; a database of a later one is refused.
const SCHEMA_VERSION: i64 = 2;
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS issuance (
    serial TEXT NOT NULL UNIQUE,
    spiffe_id TEXT NOT NULL,
    caller TEXT NOT NULL,
    attestor TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    requested_ttl INTEGER NOT NULL,
    shortened INTEGER NOT NULL,
    key_sha256 TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    authority TEXT NOT NULL DEFAULT '',
    entry TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS issuance_by_id ON issuance (spiffe_id, issued_at);
CREATE TABLE IF NOT EXISTS join_token (
    secret_sha256 TEXT NOT NULL PRIMARY KEY,
    spiffe_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    used_key_sha256 TEXT
) WITHOUT ROWID;
";
/// From version 1, whose rows do not say which authority signed them: there was one.
const FROM_1: &str = "
ALTER TABLE issuance ADD COLUMN authority TEXT NOT NULL DEFAULT '';
ALTER TABLE issuance ADD COLUMN entry TEXT NOT NULL DEFAULT '';
";
/// What version 2 added.
const SINCE_2: &str = "
CREATE INDEX IF NOT EXISTS issuance_by_authority ON issuance (authority, not_after);
CREATE TABLE IF NOT EXISTS revocation (
    serial TEXT NOT NULL PRIMARY KEY,
    spiffe_id TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    reason TEXT NOT NULL,
    revoked_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS revocation_by_end ON revocation (not_after);
PRAGMA user_version = 2;
";
/// Records that may wait for the writer before callers wait with them.
const QUEUE: usize = 8_192;
/// A record that is not durable after this long is reported as not written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the store cannot be opened, read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Written by a later release.
    #[error("`{}` has schema version {found}, this release reads up to {SCHEMA_VERSION}: use the newer release", .path.display())]
    Version {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// SQLite refused.
    #[error("`{}` cannot be used: check that it is a database, writable, and its disk not full", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: Arc<sqlx::Error>,
    },
    /// The writer did not answer in time; the record may or may not be there.
    #[error("the store did not answer within {WRITE_TIMEOUT:?}")]
    Timeout,
    /// The writer has ended with the runtime.
    #[error("the store is closed")]
    Closed,
    /// The join token was redeemed by another key, has expired, or is unknown.
    #[error("the join token can no longer be redeemed")]
    TokenSpent,
    /// The certificate that was the evidence has been revoked.
    #[error("the caller's certificate is revoked")]
    CallerRevoked,
}

/// One issuance, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuanceRow {
    /// Serial number, lower-case hex.
    pub serial: String,
    /// The ID issued.
    pub spiffe_id: String,
    /// Address of the caller, the SPIFFE ID of an agent that asked for a workload; empty for the server itself.
    pub caller: String,
    /// How the caller was attested.
    pub attestor: String,
    /// First second of validity, unix time.
    pub not_before: i64,
    /// Last second of validity, unix time.
    pub not_after: i64,
    /// Lifetime asked for in seconds, 0 or less for the default.
    pub requested_ttl: i64,
    /// Less was given than was asked for.
    pub shortened: bool,
    /// SHA-256 of the key's SubjectPublicKeyInfo, lower-case hex.
    pub key_sha256: String,
    /// When, unix time.
    pub issued_at: i64,
    /// The authority that signed it, by its identifier; empty in rows of a release that had but one.
    pub authority: String,
    /// The registration entry it was issued for; empty if there is none.
    pub entry: String,
}

/// A revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Revocation {
    /// Serial number, lower-case hex.
    pub serial: String,
    /// The ID it carries.
    pub spiffe_id: String,
    /// Last second of its validity, unix time; after that nobody needs to be told.
    pub not_after: i64,
    /// Why, in the operator's words.
    pub reason: String,
    /// When, unix time.
    pub revoked_at: i64,
}

/// Which certificates are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All of an ID.
    Id(String),
    /// The one with this serial number, lower-case hex of whole octets.
    Serial(String),
}

impl Target {
    /// The certificate with a serial number as people write it: hexadecimal, colons and case as one likes. `None` if it is none.
    #[must_use]
    pub fn serial(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
        let digits = digits.trim_start_matches("0x").trim_start_matches('0');
        if digits.is_empty() || digits.len() > 40 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self::Serial(if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() }))
    }
}

/// Which issuances are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuanceQuery {
    /// Those of an ID or with a serial number; all without one.
    pub target: Option<Target>,
    /// Those of this time and later, unix seconds.
    pub since: i64,
    /// The newest so many.
    pub limit: u32,
}

/// A join token as it is kept: never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRow {
    pub(crate) secret_sha256: String,
    pub(crate) spiffe_id: String,
    pub(crate) created_at: i64,
    pub(crate) expires_at: i64,
    pub(crate) used_key_sha256: Option<String>,
}

enum Write {
    Issuance {
        row: IssuanceRow,
        evidence: Evidence,
    },
    Token(TokenRow),
    Revoke {
        target: Target,
        reason: String,
        now: i64,
    },
    /// Nothing that stays: a row, and its end.
    Probe,
}

/// What an issuance uses up or relies on, judged in the transaction that records it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// Hash of the secret of a join token to redeem.
    pub(crate) redeem: Option<String>,
    /// Serial number of the certificate that the caller showed.
    pub(crate) presented: Option<String>,
}

struct Job {
    write: Write,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

/// The open store. Its writer ends when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    path: Arc<Path>,
    readers: SqlitePool,
    jobs: mpsc::Sender<Job>,
    failing: Arc<AtomicBool>,
    metrics: Metrics,
}

impl Store {
    /// Opens the database at `path`, which must exist (an empty file will do), and starts its writer.
    pub(crate) async fn open(path: PathBuf, metrics: Metrics) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let failed = |source| StoreError::Database { path: path.clone(), source: Arc::new(source) };
        let pool = |size, options| {
            SqlitePoolOptions::new().max_connections(size).acquire_timeout(BUSY_TIMEOUT).connect_with(options)
        };
        let options = options.pragma("wal_autocheckpoint", "0");
        let writing = pool(1, options.clone()).await.map_err(failed)?;
        prepare(&writing, &path).await?;
        let moving = pool(1, options.clone()).await.map_err(failed)?;
        let readers = pool(4, options.read_only(true)).await.map_err(failed)?;
        let denied = queries::serials(&readers).await.map_err(failed)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (path, failing) = (Arc::from(path), Arc::new(AtomicBool::new(false)));
        let writer = writer::Writer {
            pool: writing,
            path: Arc::clone(&path),
            failing: Arc::clone(&failing),
            failures: metrics.store_failures.clone(),
            denied,
            checkpoints: checkpoint::Checkpoints::start(moving),
        };
        tokio::spawn(writer.run(queue));
        Ok(Self { path, readers, jobs, failing, metrics })
    }

    /// Whether the last write failed.
    pub(crate) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Tries to write, so that [`failing`](Self::failing) ends by itself: who is taken for unable is asked for nothing.
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        self.write(Write::Probe).await
    }

    /// Makes an issuance durable, using up its evidence in the same transaction: both or neither.
    pub(crate) async fn record(&self, row: IssuanceRow, evidence: Evidence) -> Result<(), StoreError> {
        self.write(Write::Issuance { row, evidence }).await
    }

    /// Makes a revocation durable. Issuances recorded after it know of it.
    pub(crate) async fn revoke(&self, target: Target, reason: String, now: i64) -> Result<(), StoreError> {
        self.write(Write::Revoke { target, reason, now }).await
    }

    /// Makes a join token durable.
    pub(crate) async fn add_token(&self, row: TokenRow) -> Result<(), StoreError> {
        self.write(Write::Token(row)).await
    }

    async fn write(&self, write: Write) -> Result<(), StoreError> {
        let started = tokio::time::Instant::now();
        let (answer, written) = oneshot::channel();
        let durable = async {
            self.jobs.send(Job { write, answer }).await.map_err(|_| StoreError::Closed)?;
            let _waiting = self.metrics.waiting();
            written.await.map_err(|_| StoreError::Closed)?
        };
        let result = tokio::time::timeout(WRITE_TIMEOUT, durable).await.unwrap_or(Err(StoreError::Timeout));
        self.metrics.store_seconds.observe(started.elapsed().as_secs_f64());
        result
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        StoreError::Database { path: self.path.to_path_buf(), source: Arc::new(error) }
    }
}

async fn prepare(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Database { path: path.to_owned(), source: Arc::new(source) };
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(pool).await.map_err(failed)?;
    let steps: &[&'static str] = match found {
        0 => &[SCHEMA, SINCE_2],
        1 => &[FROM_1, SINCE_2],
        SCHEMA_VERSION => return Ok(()),
        found => return Err(StoreError::Version { path: path.to_owned(), found }),
    };
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    // Of two that start at once the second finds the work done.
    let now: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await.map_err(failed)?;
    for step in steps.iter().take_while(|_| now == found) {
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}

#[cfg(test)]
mod tests;
