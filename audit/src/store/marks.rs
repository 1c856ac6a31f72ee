//! How far each enforcer's record has come, and what is missing in it.
//!
//! An epoch's numbers run from 1 without gaps, so what is missing shows: a number that a later one has overtaken is a hole until
//! it arrives, a number that a gap event covers is lost for good and counted.

use std::collections::HashMap;

use sqlx::{Row as _, SqliteConnection};

/// What the marks need to know of a stored row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived {
    pub(super) enforcer_id: i64,
    pub(super) epoch: i64,
    pub(super) sequence: i64,
    pub(super) time_ns: i64,
    /// For a gap event: its last number, 0 if unknown.
    pub(super) gap_to: Option<i64>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Mark {
    high: i64,
    rows: i64,
    lost: i64,
    unknown: i64,
    last_ns: i64,
    closed: bool,
}

/// Marks changed in one transaction.
#[derive(Debug, Default)]
pub(super) struct Marks {
    changed: HashMap<(i64, i64), Mark>,
}

impl Marks {
    /// Takes note of a row that is new.
    pub(super) async fn arrived(
        &mut self,
        connection: &mut SqliteConnection,
        row: &Arrived,
    ) -> Result<(), sqlx::Error> {
        let mut mark = self.load(connection, row.enforcer_id, row.epoch).await?;
        let end = row.gap_to.unwrap_or(0).max(row.sequence);
        if row.sequence > mark.high.saturating_add(1) {
            open_hole(connection, row, mark.high.saturating_add(1), row.sequence.saturating_sub(1)).await?;
        } else if row.sequence <= mark.high {
            fill_hole(connection, row, end).await?;
        }
        mark.high = mark.high.max(end);
        mark.last_ns = mark.last_ns.max(row.time_ns);
        match row.gap_to {
            None => mark.rows = mark.rows.saturating_add(1),
            // Written by the next run of an enforcer that crashed: nothing of this epoch follows.
            Some(0) => (mark.unknown, mark.closed) = (mark.unknown.saturating_add(1), true),
            Some(to) => mark.lost = mark.lost.saturating_add(to.saturating_sub(row.sequence).saturating_add(1)),
        }
        self.changed.insert((row.enforcer_id, row.epoch), mark);
        Ok(())
    }

    /// The enforcer says that the epoch has ended.
    pub(super) async fn close(
        &mut self,
        connection: &mut SqliteConnection,
        enforcer_id: i64,
        epoch: i64,
    ) -> Result<(), sqlx::Error> {
        let mut mark = self.load(connection, enforcer_id, epoch).await?;
        mark.closed = true;
        self.changed.insert((enforcer_id, epoch), mark);
        Ok(())
    }

    async fn load(&self, connection: &mut SqliteConnection, enforcer_id: i64, epoch: i64) -> Result<Mark, sqlx::Error> {
        if let Some(mark) = self.changed.get(&(enforcer_id, epoch)) {
            return Ok(*mark);
        }
        let row = sqlx::query(
            "SELECT high, rows, lost, unknown, last_ns, closed FROM epochs WHERE enforcer_id = ? AND epoch = ?",
        )
        .bind(enforcer_id)
        .bind(epoch)
        .fetch_optional(connection)
        .await?;
        let Some(row) = row else { return Ok(Mark::default()) };
        Ok(Mark {
            high: row.try_get(0)?,
            rows: row.try_get(1)?,
            lost: row.try_get(2)?,
            unknown: row.try_get(3)?,
            last_ns: row.try_get(4)?,
            closed: row.try_get::<i64, _>(5)? != 0,
        })
    }

    /// Writes what has changed.
    pub(super) async fn save(self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for ((enforcer_id, epoch), mark) in self.changed {
            sqlx::query(
                "INSERT OR REPLACE INTO epochs (enforcer_id, epoch, high, rows, lost, unknown, last_ns, closed) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(enforcer_id)
            .bind(epoch)
            .bind(mark.high)
            .bind(mark.rows)
            .bind(mark.lost)
            .bind(mark.unknown)
            .bind(mark.last_ns)
            .bind(i64::from(mark.closed))
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}

async fn open_hole(connection: &mut SqliteConnection, row: &Arrived, from: i64, to: i64) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR REPLACE INTO holes (enforcer_id, epoch, from_seq, to_seq) VALUES (?, ?, ?, ?)")
        .bind(row.enforcer_id)
        .bind(row.epoch)
        .bind(from)
        .bind(to)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes the numbers from `row.sequence` to `end` out of the holes that they touch.
async fn fill_hole(connection: &mut SqliteConnection, row: &Arrived, end: i64) -> Result<(), sqlx::Error> {
    let holes: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT from_seq, to_seq FROM holes WHERE enforcer_id = ? AND epoch = ? AND from_seq <= ? AND to_seq >= ?",
    )
    .bind(row.enforcer_id)
    .bind(row.epoch)
    .bind(end)
    .bind(row.sequence)
    .fetch_all(&mut *connection)
    .await?;
    for (from, to) in holes {
        sqlx::query("DELETE FROM holes WHERE enforcer_id = ? AND epoch = ? AND from_seq = ?")
            .bind(row.enforcer_id)
            .bind(row.epoch)
            .bind(from)
            .execute(&mut *connection)
            .await?;
        if from < row.sequence {
            open_hole(connection, row, from, row.sequence.saturating_sub(1)).await?;
        }
        if to > end {
            open_hole(connection, row, end.saturating_add(1), to).await?;
        }
    }
    Ok(())
}
