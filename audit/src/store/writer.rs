//! The one task that writes: what several enforcers have sent meanwhile becomes one transaction.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use palisade_wire::audit::{Event, Kind};
use sqlx::{Connection, QueryBuilder, Sqlite, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::coding::{self, Keys};
use super::dictionary::Dictionary;
use super::follow::Followers;
use super::marks::{Arrived, Marks};
use super::{Inserted, StoreError};
use crate::clock::NanoClock;

/// Events after which a transaction takes no further request.
const GROUP: usize = 4096;
/// Rows of one statement. Few sizes, so that each stays prepared.
const STATEMENTS: [usize; 4] = [128, 32, 8, 1];

/// One batch and where to say that it is durable.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) events: Vec<Event>,
    /// Enforcer and epoch of a numbering that has ended.
    pub(super) closed: Option<(String, u64)>,
    pub(super) reply: oneshot::Sender<Result<Inserted, StoreError>>,
}

#[derive(Debug)]
struct Row {
    id: i64,
    ingested_ns: i64,
    arrived: Arrived,
    kind: i32,
    verdict: i32,
    source: Option<i64>,
    destination: Option<i64>,
    rule: i64,
    body: Vec<u8>,
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) connection: SqliteConnection,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) followers: Arc<Followers>,
    pub(super) clock: NanoClock,
    pub(super) next_id: i64,
    pub(super) dictionary: Dictionary,
}

impl Writer {
    /// Runs until every [`Store`](super::Store) is gone.
    pub(super) async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            let mut size = first.events.len();
            let mut group = vec![first];
            while size < GROUP
                && let Ok(request) = self.requests.try_recv()
            {
                size = size.saturating_add(request.events.len());
                group.push(request);
            }
            self.commit(group).await;
        }
        let _ = self.connection.close().await;
    }

    async fn commit(&mut self, mut group: Vec<Request>) {
        let now = self.clock.now();
        let wanted = |event: &Event| self.followers.want(event).then(|| event.clone());
        let kept: Vec<Option<Event>> = group.iter().flat_map(|request| &request.events).map(wanted).collect();
        match self.transaction(&mut group, now).await {
            Ok((rows, stored)) => {
                self.publish(kept, &rows, &stored, now);
                reply(group, &rows, &stored);
            }
            Err(error) => {
                // What the transaction added to the dictionaries is gone.
                self.dictionary = Dictionary::default();
                tracing::error!(path = %self.path.display(), %error, "cannot write the audit store; enforcers keep their events and send them again");
                let source = Arc::new(error);
                for request in group {
                    let _ = request
                        .reply
                        .send(Err(StoreError::Write { path: self.path.clone(), source: Arc::clone(&source) }));
                }
            }
        }
    }

    /// One transaction. In plain SQL: the library counts transactions itself, and loses count for ever when SQLite has rolled one
    /// back on its own, as it does when the disk is full.
    async fn transaction(
        &mut self,
        group: &mut [Request],
        now: u64,
    ) -> Result<(Vec<Vec<Row>>, HashSet<i64>), sqlx::Error> {
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
        let written = match self.fill(group, now).await {
            Ok(rows) => sqlx::raw_sql("COMMIT").execute(&mut self.connection).await.map(|_| rows),
            Err(error) => Err(error),
        };
        if written.is_err() {
            // Fails where nothing is left to roll back.
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await;
        }
        written
    }

    /// Rows of each request, and the numbers of those that are new.
    async fn fill(&mut self, group: &mut [Request], now: u64) -> Result<(Vec<Vec<Row>>, HashSet<i64>), sqlx::Error> {
        let transaction = &mut self.connection;
        let (mut coded, mut stored) = (Vec::with_capacity(group.len()), HashSet::new());
        let mut marks = Marks::default();
        for request in group.iter_mut() {
            let mut rows = Vec::with_capacity(request.events.len());
            for event in std::mem::take(&mut request.events) {
                let row = code(&mut self.dictionary, transaction, event, self.next_id, now).await?;
                self.next_id = self.next_id.saturating_add(1);
                rows.push(row);
            }
            insert(transaction, &rows, &mut stored).await?;
            for row in rows.iter().filter(|row| stored.contains(&row.id)) {
                marks.arrived(transaction, &row.arrived).await?;
            }
            if let Some((enforcer, epoch)) = &request.closed {
                let id = self.dictionary.enforcer(transaction, enforcer).await?;
                marks.close(transaction, id, signed(*epoch)).await?;
            }
            coded.push(rows);
        }
        marks.save(transaction).await?;
        Ok((coded, stored))
    }

    fn publish(&self, kept: Vec<Option<Event>>, rows: &[Vec<Row>], stored: &HashSet<i64>, now: u64) {
        let rows: Vec<(i64, Event)> = kept
            .into_iter()
            .zip(rows.iter().flatten())
            .filter(|(_, row)| stored.contains(&row.id))
            .filter_map(|(event, row)| Some((row.id, Event { ingested_ns: now, ..event? })))
            .collect();
        self.followers.publish(&rows);
    }
}

fn reply(group: Vec<Request>, rows: &[Vec<Row>], stored: &HashSet<i64>) {
    for (request, rows) in group.into_iter().zip(rows) {
        let new = rows.iter().filter(|row| stored.contains(&row.id)).count() as u64;
        let duplicates = (rows.len() as u64).saturating_sub(new);
        let _ = request.reply.send(Ok(Inserted { new, duplicates }));
    }
}

async fn code(
    dictionary: &mut Dictionary,
    connection: &mut SqliteConnection,
    event: Event,
    id: i64,
    now: u64,
) -> Result<Row, sqlx::Error> {
    let is_gap = event.kind == i32::from(Kind::Gap);
    let arrived = Arrived {
        enforcer_id: dictionary.enforcer(connection, &event.enforcer).await?,
        epoch: signed(event.epoch),
        sequence: signed(event.sequence),
        time_ns: signed(event.time_ns),
        gap_to: event.gap.as_ref().filter(|_| is_gap).map(|gap| signed(gap.to_sequence)),
    };
    let (kind, verdict) = (event.kind, event.verdict);
    let (Keys { source, destination, rule }, body) = coding::split(event);
    Ok(Row {
        id,
        ingested_ns: signed(now),
        arrived,
        kind,
        verdict,
        source: dictionary.party(connection, source).await?,
        destination: dictionary.party(connection, destination).await?,
        rule: dictionary.rule(connection, rule).await?,
        body,
    })
}

/// Inserts what is new and adds its numbers to `stored`.
async fn insert(connection: &mut SqliteConnection, rows: &[Row], stored: &mut HashSet<i64>) -> Result<(), sqlx::Error> {
    let mut rest = rows;
    for size in STATEMENTS {
        while let Some((chunk, tail)) = rest.split_at_checked(size) {
            rest = tail;
            let mut builder = QueryBuilder::<Sqlite>::new(
                "INSERT INTO events (id, time_ns, ingested_ns, enforcer_id, epoch, sequence, kind, verdict, src_id, dst_id, rule_id, body) ",
            );
            builder.push_values(chunk, |mut values, row| {
                values
                    .push_bind(row.id)
                    .push_bind(row.arrived.time_ns)
                    .push_bind(row.ingested_ns)
                    .push_bind(row.arrived.enforcer_id)
                    .push_bind(row.arrived.epoch)
                    .push_bind(row.arrived.sequence)
                    .push_bind(row.kind)
                    .push_bind(row.verdict)
                    .push_bind(row.source)
                    .push_bind(row.destination)
                    .push_bind(row.rule)
                    .push_bind(row.body.as_slice());
            });
            builder.push(" ON CONFLICT (enforcer_id, epoch, sequence) DO NOTHING RETURNING id");
            stored.extend(builder.build_query_scalar::<i64>().fetch_all(&mut *connection).await?);
        }
    }
    Ok(())
}

/// For numbers that [`crate::limits`] has let through; anything larger is held at the largest.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
