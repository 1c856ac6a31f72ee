//! The one task that writes: everything that has gathered, one transaction, one flush, many answers.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use prometheus_client::metrics::counter::Counter;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePool};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};
use tokio::sync::mpsc;

use super::checkpoint::Checkpoints;
use super::{Evidence, IssuanceRow, Job, StoreError, Target, TokenRow, Write};

/// Records in one transaction at most: bounds how long the first of them waits for the last.
const BATCH: usize = 512;

/// Rows that one statement takes, filled up with rows of nulls: few texts that stay prepared, and few ways to SQLite's thread.
/// One JSON parameter for any number of rows takes it more than twice as long.
const MANY: usize = 32;
const FEW: usize = 4;
const COLUMNS: &str = "serial, spiffe_id, caller, attestor, not_before, not_after, requested_ttl, shortened, key_sha256, \
     issued_at, authority, entry";
const NO_ROW: [Option<&str>; 12] = [None; 12];
static INSERT_MANY: LazyLock<String> = LazyLock::new(|| insert_of(MANY));
static INSERT_FEW: LazyLock<String> = LazyLock::new(|| insert_of(FEW));

/// The same key may redeem a token again while it lives: an agent whose answer was lost asks with the
/// request it has, and nobody else holds that key.
const REDEEM: &str = "UPDATE join_token SET used_at = coalesce(used_at, ?2), used_key_sha256 = ?3 \
     WHERE secret_sha256 = ?1 AND expires_at > ?2 AND (used_key_sha256 IS NULL OR used_key_sha256 = ?3)";
const ADD_TOKEN: &str = "INSERT INTO join_token (secret_sha256, spiffe_id, created_at, expires_at) \
     VALUES (?1, ?2, ?3, ?4)";

/// Two statements in one: the row never outlives the transaction.
const PROBE: &str = "INSERT INTO issuance (serial, spiffe_id, caller, attestor, not_before, not_after, requested_ttl, shortened, \
     key_sha256, issued_at) VALUES ('', '', '', '', 0, 0, 0, 0, '', 0); DELETE FROM issuance WHERE serial = ''";

/// Certificates only: nobody asks about a token before it ends.
const REVOKE_ID: &str = "INSERT OR IGNORE INTO revocation (serial, spiffe_id, not_after, reason, revoked_at) \
     SELECT serial, spiffe_id, not_after, ?2, ?3 FROM issuance WHERE spiffe_id = ?1 AND not_after >= ?3 \
     AND attestor <> 'agent-token' RETURNING serial";
const REVOKE_SERIAL: &str = "INSERT OR IGNORE INTO revocation (serial, spiffe_id, not_after, reason, revoked_at) \
     SELECT serial, spiffe_id, not_after, ?2, ?3 FROM issuance WHERE serial = ?1 AND not_after >= ?3 \
     AND attestor <> 'agent-token' RETURNING serial";

type SqliteQuery<'q> = Query<'q, Sqlite, SqliteArguments>;

pub(super) struct Writer {
    pub(super) pool: SqlitePool,
    pub(super) path: Arc<Path>,
    pub(super) failing: Arc<AtomicBool>,
    pub(super) failures: Counter,
    /// What is revoked, as far as this task has seen: it is the only one that revokes.
    pub(super) denied: BTreeSet<String>,
    pub(super) checkpoints: Checkpoints,
}

impl Writer {
    /// Writes until the last [`Store`](super::Store) is gone.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            gather(&mut queue, &mut batch).await;
            let (gathered, written) = (batch.len(), self.write(&batch).await);
            self.note(written.as_ref().err());
            let results = match written {
                Ok(results) => results,
                Err(error) => vec![Err(self.failed(error)); batch.len()],
            };
            for (job, result) in batch.drain(..).zip(results) {
                // Nobody listens any more if the caller has hung up.
                drop(job.answer.send(result));
            }
            // After the answers: nobody of this batch waits for it.
            if let Ok(mut writing) = self.pool.acquire().await {
                self.checkpoints.committed(gathered, &mut writing).await;
            }
        }
        self.pool.close().await;
    }

    /// One transaction; a single statement is one by itself, without two more ways to SQLite's thread. In plain SQL: the library counts
    /// transactions itself, and loses count for ever when SQLite has rolled one back on its own, as it does when the disk is full.
    async fn write(&mut self, batch: &[Job]) -> Result<Vec<Result<(), StoreError>>, sqlx::Error> {
        let (mut connection, alone) = (self.pool.acquire().await?, is_one_statement(batch));
        if !alone {
            sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        }
        let mut revoked = Vec::new();
        let written = match self.fill(&mut connection, batch, &mut revoked).await {
            Ok(results) if alone => Ok(results),
            Ok(results) => sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map(|_| results),
            Err(error) => Err(error),
        };
        if written.is_err() {
            // Fails where nothing is left to roll back.
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await;
            for serial in &revoked {
                self.denied.remove(serial);
            }
        }
        written
    }

    /// Per job: written, or refused for a reason of its own. What is added to `denied` stands in `revoked`, too.
    async fn fill(
        &mut self,
        transaction: &mut SqliteConnection,
        batch: &[Job],
        revoked: &mut Vec<String>,
    ) -> Result<Vec<Result<(), StoreError>>, sqlx::Error> {
        let mut results = Vec::with_capacity(batch.len());
        let mut rows = Vec::with_capacity(batch.len());
        for job in batch {
            results.push(match &job.write {
                Write::Token(token) => add_token(transaction, token).await.map(Ok)?,
                Write::Issuance { row, evidence } => {
                    let judged = self.judge(transaction, evidence, row).await?;
                    if judged.is_ok() {
                        rows.push(row);
                    }
                    judged
                }
                Write::Revoke { target, reason, now } => {
                    // It is to find what was recorded before it, in this very batch, too.
                    insert(transaction, &std::mem::take(&mut rows)).await?;
                    let serials = revoke(transaction, target, reason, *now).await?;
                    self.denied.extend(serials.iter().cloned());
                    revoked.extend(serials);
                    Ok(())
                }
                Write::Probe => sqlx::raw_sql(PROBE).execute(&mut *transaction).await.map(|_| Ok(()))?,
            });
        }
        insert(transaction, &rows).await?;
        Ok(results)
    }

    /// Whether the evidence of an issuance still holds, and uses it up.
    async fn judge(
        &self,
        transaction: &mut SqliteConnection,
        evidence: &Evidence,
        row: &IssuanceRow,
    ) -> Result<Result<(), StoreError>, sqlx::Error> {
        if evidence.presented.as_ref().is_some_and(|serial| self.denied.contains(serial)) {
            return Ok(Err(StoreError::CallerRevoked));
        }
        Ok(match &evidence.redeem {
            Some(token) if !redeem_token(transaction, token, row).await? => Err(StoreError::TokenSpent),
            _ => Ok(()),
        })
    }

    fn note(&self, error: Option<&sqlx::Error>) {
        let was = self.failing.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) => {
                self.failures.inc();
                tracing::error!(path = %self.path.display(), %error, "issuance records cannot be written");
            }
            None if was => tracing::info!(path = %self.path.display(), "issuance records are written again"),
            None => {}
        }
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        StoreError::Database { path: self.path.to_path_buf(), source: Arc::new(error) }
    }
}

/// Whether a batch is written by a single [`insert`] of one statement, with nothing before it.
fn is_one_statement(batch: &[Job]) -> bool {
    let plain = |job: &Job| matches!(&job.write, Write::Issuance { evidence, .. } if evidence.redeem.is_none());
    batch.len() <= MANY && batch.iter().all(plain)
}

/// Lets whoever is ready to run hand in its record, too: under load many are about to, and a flush costs as much for one as for all.
async fn gather(queue: &mut mpsc::Receiver<Job>, batch: &mut Vec<Job>) {
    loop {
        let before = batch.len();
        tokio::task::yield_now().await;
        while batch.len() < BATCH
            && let Ok(job) = queue.try_recv()
        {
            batch.push(job);
        }
        if batch.len() == before || batch.len() == BATCH {
            return;
        }
    }
}

fn insert_of(rows: usize) -> String {
    let row = format!("({})", NO_ROW.map(|_| "?").join(","));
    let rows = vec![row; rows].join(",");
    format!("INSERT INTO issuance ({COLUMNS}) SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL")
}

async fn insert(connection: &mut SqliteConnection, mut rows: &[&IssuanceRow]) -> Result<(), sqlx::Error> {
    while !rows.is_empty() {
        let (size, text) = if rows.len() > FEW { (MANY, &INSERT_MANY) } else { (FEW, &INSERT_FEW) };
        let (some, rest) = rows.split_at(size.min(rows.len()));
        let mut query = some.iter().fold(sqlx::query(AssertSqlSafe(&***text)), |query, row| bind(query, row));
        for none in std::iter::repeat_n(NO_ROW, size - some.len()).flatten() {
            query = query.bind(none);
        }
        query.execute(&mut *connection).await?;
        rows = rest;
    }
    Ok(())
}

/// In the order of [`COLUMNS`].
fn bind<'q>(query: SqliteQuery<'q>, row: &'q IssuanceRow) -> SqliteQuery<'q> {
    query
        .bind(&row.serial)
        .bind(&row.spiffe_id)
        .bind(&row.caller)
        .bind(&row.attestor)
        .bind(row.not_before)
        .bind(row.not_after)
        .bind(row.requested_ttl)
        .bind(row.shortened)
        .bind(&row.key_sha256)
        .bind(row.issued_at)
        .bind(&row.authority)
        .bind(&row.entry)
}

async fn revoke(
    connection: &mut SqliteConnection,
    target: &Target,
    reason: &str,
    now: i64,
) -> Result<Vec<String>, sqlx::Error> {
    let (query, what) = match target {
        Target::Id(id) => (REVOKE_ID, id),
        Target::Serial(serial) => (REVOKE_SERIAL, serial),
    };
    sqlx::query_scalar(query).bind(what).bind(reason).bind(now).fetch_all(connection).await
}

async fn redeem_token(connection: &mut SqliteConnection, token: &str, row: &IssuanceRow) -> Result<bool, sqlx::Error> {
    let query = sqlx::query(REDEEM).bind(token).bind(row.issued_at).bind(&row.key_sha256);
    Ok(query.execute(connection).await?.rows_affected() == 1)
}

async fn add_token(connection: &mut SqliteConnection, token: &TokenRow) -> Result<(), sqlx::Error> {
    let query = sqlx::query(ADD_TOKEN).bind(&token.secret_sha256).bind(&token.spiffe_id);
    query.bind(token.created_at).bind(token.expires_at).execute(connection).await?;
    Ok(())
}
