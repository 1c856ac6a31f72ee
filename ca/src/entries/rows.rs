//! Entries of the administration API as rows of `ca.db`, in a table of their own.
//!
//! Changes are rare and made one at a time, so they do not go through the writer that gathers issuances; SQLite lets the two
//! wait for each other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use palisade_identity::TrustDomain;
use palisade_wire::admin;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use super::{ById, EntriesError, Entry, EntryError};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS registration_entry (
    id TEXT NOT NULL PRIMARY KEY,
    entry TEXT NOT NULL
) WITHOUT ROWID";
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Rows {
    path: String,
    pool: SqlitePool,
}

/// What a row keeps, as JSON: a field that a later release adds is no change of the table.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    spiffe_id: String,
    parent_id: String,
    selectors: Vec<String>,
    x509_ttl: i64,
    jwt_ttl: i64,
    dns_names: Vec<String>,
    federates_with: Vec<String>,
    hint: String,
}

impl Rows {
    pub(super) async fn open(database: &Path) -> Result<Self, EntriesError> {
        let path = database.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(database)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let open = SqlitePoolOptions::new().max_connections(1).acquire_timeout(BUSY_TIMEOUT).connect_with(options);
        let failed = |source| EntriesError::Database { path: path.clone(), source };
        let pool = open.await.map_err(failed)?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await.map_err(failed)?;
        Ok(Self { path, pool })
    }

    pub(super) async fn all(&self, domain: &TrustDomain) -> Result<ById, EntriesError> {
        let query = sqlx::query("SELECT id, entry FROM registration_entry");
        let rows = query.fetch_all(&self.pool).await.map_err(|error| self.failed(error))?;
        let mut entries = ById::new();
        for row in rows {
            let id: String = row.try_get("id").map_err(|error| self.failed(error))?;
            let text: String = row.try_get("entry").map_err(|error| self.failed(error))?;
            let kept: Kept = serde_json::from_str(&text)
                .map_err(|error| EntriesError::Damaged { id: id.clone(), reason: error.to_string() })?;
            match read(&id, kept, domain) {
                Ok(entry) => drop(entries.insert(id, Arc::new(entry))),
                // What an earlier release let in must not keep this one from starting.
                Err(error) => tracing::error!(
                    entry = id,
                    %error,
                    "registration entry is not used: delete it (`palisade ca entry delete`)"
                ),
            }
        }
        Ok(entries)
    }

    pub(super) async fn insert(&self, entry: &Entry) -> Result<(), EntriesError> {
        let wire = entry.to_admin();
        let kept = Kept {
            spiffe_id: wire.spiffe_id,
            parent_id: wire.parent_id,
            selectors: wire.selectors,
            x509_ttl: wire.x509_ttl,
            jwt_ttl: wire.jwt_ttl,
            dns_names: wire.dns_names,
            federates_with: wire.federates_with,
            hint: wire.hint,
        };
        let text = serde_json::to_string(&kept).map_err(|error| self.failed(sqlx::Error::Encode(Box::new(error))))?;
        let query = sqlx::query("INSERT INTO registration_entry (id, entry) VALUES (?1, ?2)");
        let inserted = query.bind(&entry.id).bind(text).execute(&self.pool).await;
        inserted.map(|_| ()).map_err(|error| self.failed(error))
    }

    /// Whether there was one.
    pub(super) async fn delete(&self, id: &str) -> Result<bool, EntriesError> {
        let query = sqlx::query("DELETE FROM registration_entry WHERE id = ?1").bind(id);
        query.execute(&self.pool).await.map(|done| done.rows_affected() > 0).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: sqlx::Error) -> EntriesError {
        EntriesError::Database { path: self.path.clone(), source }
    }
}

fn read(id: &str, kept: Kept, domain: &TrustDomain) -> Result<Entry, EntryError> {
    let wire = admin::RegistrationEntry {
        id: String::new(),
        spiffe_id: kept.spiffe_id,
        parent_id: kept.parent_id,
        selectors: kept.selectors,
        x509_ttl: kept.x509_ttl,
        jwt_ttl: kept.jwt_ttl,
        dns_names: kept.dns_names,
        federates_with: kept.federates_with,
        hint: kept.hint,
        origin: String::new(),
    };
    Entry::of_wire(&wire, id.to_owned(), domain)
}
