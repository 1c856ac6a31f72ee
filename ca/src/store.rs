//! The record of every issuance and every join token: durable before anybody is answered.
//!
//! One task writes. While a transaction is being flushed to disk the next requests gather, and all of
//! them share the next flush (group commit), so throughput does not depend on the disk's latency.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;

mod writer;

/// Version of the schema below; a database of a later one is refused.
const SCHEMA_VERSION: i64 = 1;
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
    issued_at INTEGER NOT NULL
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
PRAGMA user_version = 1;
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
}

/// One issuance, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct IssuanceRow {
    /// Serial number, lower-case hex.
    pub serial: String,
    /// The ID issued.
    pub spiffe_id: String,
    /// Address of the caller; empty for the server itself.
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
    Issuance { row: IssuanceRow, redeem: Option<String> },
    Token(TokenRow),
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
        let writing = pool(1, options.clone()).await.map_err(failed)?;
        prepare(&writing, &path).await?;
        let readers = pool(4, options.read_only(true)).await.map_err(failed)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (path, failing) = (Arc::from(path), Arc::new(AtomicBool::new(false)));
        let writer = writer::Writer {
            pool: writing,
            path: Arc::clone(&path),
            failing: Arc::clone(&failing),
            failures: metrics.store_failures.clone(),
        };
        tokio::spawn(writer.run(queue));
        Ok(Self { path, readers, jobs, failing, metrics })
    }

    /// Whether the last write failed.
    pub(crate) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Makes an issuance durable, redeeming `token` (the hash of its secret) in the same transaction:
    /// both or neither.
    pub(crate) async fn record(&self, row: IssuanceRow, token: Option<String>) -> Result<(), StoreError> {
        self.write(Write::Issuance { row, redeem: token }).await
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
            written.await.map_err(|_| StoreError::Closed)?
        };
        let result = tokio::time::timeout(WRITE_TIMEOUT, durable).await.unwrap_or(Err(StoreError::Timeout));
        self.metrics.store_seconds.observe(started.elapsed().as_secs_f64());
        result
    }

    /// The token whose secret has this hash.
    pub(crate) async fn token(&self, secret_sha256: &str) -> Result<Option<TokenRow>, StoreError> {
        let query = "SELECT secret_sha256, spiffe_id, created_at, expires_at, used_key_sha256 FROM join_token \
                     WHERE secret_sha256 = ?1";
        let row = sqlx::query(query).bind(secret_sha256).fetch_optional(&self.readers).await;
        row.and_then(|row| row.map(|row| token_row(&row)).transpose()).map_err(|error| self.failed(error))
    }

    /// The newest issuances for an ID, at most `limit`.
    pub(crate) async fn issuances(&self, spiffe_id: &str, limit: u32) -> Result<Vec<IssuanceRow>, StoreError> {
        let query = "SELECT * FROM issuance WHERE spiffe_id = ?1 ORDER BY issued_at DESC, rowid DESC LIMIT ?2";
        let rows = sqlx::query(query).bind(spiffe_id).bind(limit).fetch_all(&self.readers).await;
        let rows = rows.and_then(|rows| rows.iter().map(issuance_row).collect());
        rows.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        StoreError::Database { path: self.path.to_path_buf(), source: Arc::new(error) }
    }
}

async fn prepare(pool: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Database { path: path.to_owned(), source: Arc::new(source) };
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(pool).await.map_err(failed)?;
    match found {
        0 => {
            let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)
        }
        SCHEMA_VERSION => Ok(()),
        found => Err(StoreError::Version { path: path.to_owned(), found }),
    }
}

fn token_row(row: &SqliteRow) -> Result<TokenRow, sqlx::Error> {
    Ok(TokenRow {
        secret_sha256: row.try_get("secret_sha256")?,
        spiffe_id: row.try_get("spiffe_id")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        used_key_sha256: row.try_get("used_key_sha256")?,
    })
}

fn issuance_row(row: &SqliteRow) -> Result<IssuanceRow, sqlx::Error> {
    Ok(IssuanceRow {
        serial: row.try_get("serial")?,
        spiffe_id: row.try_get("spiffe_id")?,
        caller: row.try_get("caller")?,
        attestor: row.try_get("attestor")?,
        not_before: row.try_get("not_before")?,
        not_after: row.try_get("not_after")?,
        requested_ttl: row.try_get("requested_ttl")?,
        shortened: row.try_get("shortened")?,
        key_sha256: row.try_get("key_sha256")?,
        issued_at: row.try_get("issued_at")?,
    })
}

#[cfg(test)]
mod tests;
