//! What is missing in a window, as far as it can be known.

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool};

use super::presence::Presence;
use super::writer::signed;
use crate::query::{Completeness, Query, Reason};

/// Reasons of one sort that are listed.
const LISTED: usize = 20;

/// The counts of one epoch of one enforcer. `high` = `rows` + `lost` + `unknown` + `missing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub enforcer: String,
    /// Its numbering.
    pub epoch: u64,
    /// Highest number that is accounted for.
    pub high: u64,
    /// Events stored; gap events are not counted, they count.
    pub rows: u64,
    /// Events that gap events count.
    pub lost: u64,
    /// Gap events that cannot say how many.
    pub unknown: u64,
    /// Numbers overtaken by later ones.
    pub missing: u64,
    /// Nothing more will come.
    pub closed: bool,
}

/// What is known to be missing in the window of `query`.
pub(super) async fn of(
    connection: &mut SqliteConnection,
    query: &Query,
    presence: &Presence,
) -> Result<Completeness, sqlx::Error> {
    let since = signed(query.since);
    let until = if query.until == 0 { i64::MAX } else { signed(query.until) };
    let mut reasons = gaps(connection, since, until).await?;
    reasons.extend(holes(connection, since, until).await?);
    reasons.extend(open_epochs(connection, until, presence).await?);
    Ok(Completeness { reasons })
}

/// The time of the row next to a range of numbers; what lies in the range happened on this side of it.
const BEFORE: &str = "coalesce((SELECT p.time_ns FROM events p WHERE p.enforcer_id = x.enforcer_id AND p.epoch = x.epoch \
     AND p.sequence < x.from_seq ORDER BY p.sequence DESC LIMIT 1), 0)";
const AFTER: &str = "coalesce((SELECT p.time_ns FROM events p WHERE p.enforcer_id = x.enforcer_id AND p.epoch = x.epoch \
     AND p.sequence > x.to_seq ORDER BY p.sequence LIMIT 1), 9223372036854775807)";

async fn gaps(connection: &mut SqliteConnection, since: i64, until: i64) -> Result<Vec<Reason>, sqlx::Error> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "SELECT n.name, x.epoch, x.from_seq, x.body FROM (SELECT enforcer_id, epoch, sequence AS from_seq, body, time_ns \
         FROM events WHERE kind = 3 AND time_ns >= ",
    );
    sql.push_bind(since).push(") x JOIN enforcers n ON n.id = x.enforcer_id WHERE ").push(BEFORE);
    sql.push(" < ").push_bind(until).push(" ORDER BY x.time_ns DESC LIMIT ").push_bind(limit());
    let rows = sql.build().fetch_all(connection).await?;
    listed(&rows, |row| {
        let body = <palisade_wire::audit::Event as prost::Message>::decode(row.try_get::<&[u8], _>(3)?);
        let gap = body.map_err(|error| sqlx::Error::Decode(error.into()))?.gap.unwrap_or_default();
        Ok(Reason::Gap {
            enforcer: row.try_get(0)?,
            epoch: number(row, 1)?,
            from: number(row, 2)?,
            to: gap.to_sequence,
            cause: gap.cause,
        })
    })
}

async fn holes(connection: &mut SqliteConnection, since: i64, until: i64) -> Result<Vec<Reason>, sqlx::Error> {
    let mut sql = QueryBuilder::<Sqlite>::new(
        "SELECT n.name, x.epoch, x.from_seq, x.to_seq FROM holes x JOIN enforcers n ON n.id = x.enforcer_id WHERE ",
    );
    sql.push(BEFORE).push(" < ").push_bind(until).push(" AND ").push(AFTER).push(" >= ").push_bind(since);
    sql.push(" ORDER BY n.name, x.epoch, x.from_seq LIMIT ").push_bind(limit());
    let rows = sql.build().fetch_all(connection).await?;
    listed(&rows, |row| {
        Ok(Reason::Hole {
            enforcer: row.try_get(0)?,
            epoch: number(row, 1)?,
            from: number(row, 2)?,
            to: number(row, 3)?,
        })
    })
}

/// Enforcers that may have more than the store: those connected say so themselves, those away cannot be asked.
async fn open_epochs(
    connection: &mut SqliteConnection,
    until: i64,
    presence: &Presence,
) -> Result<Vec<Reason>, sqlx::Error> {
    let mut connected = presence.all();
    let rows = sqlx::query(
        "SELECT n.name, x.epoch, x.high, x.last_ns, x.closed FROM epochs x JOIN enforcers n ON n.id = x.enforcer_id \
         WHERE x.epoch = (SELECT max(epoch) FROM epochs WHERE enforcer_id = x.enforcer_id) ORDER BY n.name",
    )
    .fetch_all(connection)
    .await?;
    let mut reasons = Vec::new();
    for row in &rows {
        let (enforcer, last): (String, i64) = (row.try_get(0)?, row.try_get(3)?);
        let (epoch, high, closed) = (number(row, 1)?, number(row, 2)?, row.try_get::<i64, _>(4)? != 0);
        let there = connected.remove(&enforcer);
        if until <= last {
            continue;
        }
        match there {
            Some(there) if there.epoch == epoch => {
                let events = there.sequence.saturating_sub(high);
                reasons.extend((events > 0).then_some(Reason::Backlog { enforcer, events }));
            }
            Some(there) => {
                reasons.extend((there.sequence > 0).then_some(Reason::Backlog { enforcer, events: there.sequence }))
            }
            None if closed => {}
            None => reasons.push(Reason::Away { enforcer, last: u64::try_from(last).unwrap_or(0) }),
        }
    }
    // Connected, and nothing of them stored yet.
    let fresh = connected.into_iter().filter(|(_, there)| there.sequence > 0);
    reasons.extend(fresh.map(|(enforcer, there)| Reason::Backlog { enforcer, events: there.sequence }));
    if reasons.len() > LISTED {
        reasons.truncate(LISTED);
        reasons.push(Reason::More);
    }
    Ok(reasons)
}

/// Every epoch with its counts.
pub(super) async fn accounts(readers: &SqlitePool) -> Result<Vec<Account>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT n.name, x.epoch, x.high, x.rows, x.lost, x.unknown, x.closed, \
         coalesce((SELECT sum(h.to_seq - h.from_seq + 1) FROM holes h WHERE h.enforcer_id = x.enforcer_id AND h.epoch = x.epoch), 0) \
         FROM epochs x JOIN enforcers n ON n.id = x.enforcer_id ORDER BY n.name, x.epoch",
    )
    .fetch_all(readers)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Account {
                enforcer: row.try_get(0)?,
                epoch: number(row, 1)?,
                high: number(row, 2)?,
                rows: number(row, 3)?,
                lost: number(row, 4)?,
                unknown: number(row, 5)?,
                closed: row.try_get::<i64, _>(6)? != 0,
                missing: number(row, 7)?,
            })
        })
        .collect()
}

fn limit() -> i64 {
    LISTED as i64 + 1
}

fn listed(
    rows: &[sqlx::sqlite::SqliteRow],
    read: impl Fn(&sqlx::sqlite::SqliteRow) -> Result<Reason, sqlx::Error>,
) -> Result<Vec<Reason>, sqlx::Error> {
    let mut reasons = rows.iter().take(LISTED).map(read).collect::<Result<Vec<_>, _>>()?;
    if rows.len() > LISTED {
        reasons.push(Reason::More);
    }
    Ok(reasons)
}

fn number(row: &sqlx::sqlite::SqliteRow, index: usize) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(index)?).unwrap_or(0))
}
