//! The tables, and whether a file has ours.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

/// Version of the tables below. A file of a later one is refused, never guessed at.
const VERSION: i64 = 1;

/// Strings that return are coded: `parties` and `rules` hold each combination once, so that an event is a few integers and a
/// short body, and a filter is a lookup in a small table. Paths and hosts stay in the body: callers choose them, so a
/// dictionary of them would grow as the events do.
const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE enforcers (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE parties (
  id INTEGER PRIMARY KEY,
  principal TEXT NOT NULL, namespace TEXT NOT NULL, workload TEXT NOT NULL, ip TEXT NOT NULL, service TEXT NOT NULL,
  UNIQUE (principal, namespace, workload, ip, service)
) STRICT;
CREATE TABLE rules (
  id INTEGER PRIMARY KEY,
  policy TEXT NOT NULL, file TEXT NOT NULL, line INTEGER NOT NULL,
  phase TEXT NOT NULL, reason TEXT NOT NULL, revision TEXT NOT NULL, protocol TEXT NOT NULL, transport TEXT NOT NULL,
  UNIQUE (policy, file, line, phase, reason, revision, protocol, transport)
) STRICT;
CREATE TABLE events (
  id INTEGER PRIMARY KEY,
  time_ns INTEGER NOT NULL, ingested_ns INTEGER NOT NULL,
  enforcer_id INTEGER NOT NULL, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,
  kind INTEGER NOT NULL, verdict INTEGER NOT NULL,
  src_id INTEGER, dst_id INTEGER, rule_id INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_number ON events (enforcer_id, epoch, sequence);
CREATE INDEX events_time ON events (time_ns);
CREATE INDEX events_src ON events (src_id, time_ns);
CREATE INDEX events_dst ON events (dst_id, time_ns);
CREATE INDEX events_deny ON events (time_ns) WHERE verdict = 2;
CREATE INDEX events_gap ON events (time_ns) WHERE kind = 3;
CREATE TABLE epochs (
  enforcer_id INTEGER NOT NULL, epoch INTEGER NOT NULL,
  high INTEGER NOT NULL, rows INTEGER NOT NULL, lost INTEGER NOT NULL, unknown INTEGER NOT NULL,
  last_ns INTEGER NOT NULL, closed INTEGER NOT NULL,
  PRIMARY KEY (enforcer_id, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE holes (
  enforcer_id INTEGER NOT NULL, epoch INTEGER NOT NULL, from_seq INTEGER NOT NULL, to_seq INTEGER NOT NULL,
  PRIMARY KEY (enforcer_id, epoch, from_seq)
) STRICT, WITHOUT ROWID;
INSERT INTO meta (key, value) VALUES ('schema', 1);
";

/// What a file holds.
pub(super) enum Tables {
    /// Ours; the last row's number.
    Ready { last: i64 },
    /// Another program's.
    Foreign,
    /// Another version's.
    Version { found: i64, known: i64 },
}

/// Opens a file, and makes the tables if it is new.
pub(super) async fn connect(options: &SqliteConnectOptions) -> Result<(SqliteConnection, Tables), sqlx::Error> {
    let mut connection = SqliteConnection::connect_with(options).await?;
    let tables = prepare(&mut connection).await?;
    Ok((connection, tables))
}

async fn prepare(connection: &mut SqliteConnection) -> Result<Tables, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *transaction).await?;
    if tables == 0 {
        sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
        transaction.commit().await?;
        return Ok(Tables::Ready { last: 0 });
    }
    let version: Option<i64> =
        match sqlx::query_scalar("SELECT value FROM meta WHERE key = 'schema'").fetch_optional(&mut *transaction).await
        {
            Ok(version) => version,
            Err(sqlx::Error::Database(_)) => return Ok(Tables::Foreign),
            Err(error) => return Err(error),
        };
    match version {
        Some(VERSION) => {
            let last =
                sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM events").fetch_one(&mut *transaction).await?;
            Ok(Tables::Ready { last })
        }
        Some(found) => Ok(Tables::Version { found, known: VERSION }),
        None => Ok(Tables::Foreign),
    }
}
