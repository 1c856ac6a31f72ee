//! The record of all enforcers, in one SQLite file.
//!
//! One task writes and every commit is durable before anybody is told (write-ahead log, `synchronous=FULL`); readers see a
//! consistent state and never hold the writer up. An event is known by enforcer, epoch and sequence, so whatever is sent twice
//! is stored once.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use palisade_wire::audit::Event;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{mpsc, oneshot};

use crate::clock::NanoClock;
use crate::limits::{self, Nonsense};
use crate::query::{Answer, Query, Reason};

mod coding;
mod completeness;
mod dictionary;
mod follow;
mod marks;
mod presence;
mod schema;
mod select;
mod writer;

pub use completeness::Account;
use follow::Followers;
pub(crate) use follow::{BEHIND, Behind, Following};
pub(crate) use presence::{Here, Presence};
use schema::Tables;
use writer::{Request, Writer};

/// Why the store did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be made or opened.
    #[error("cannot open the audit store `{}`; check that this user may write it and that it is a SQLite file", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: Arc<sqlx::Error>,
    },
    /// The file cannot be made.
    #[error("cannot create the audit store `{}`; make its directory writable for this user", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// A SQLite file, but another program's.
    #[error("`{}` is not an audit store; name another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Written by another version.
    #[error("the audit store `{}` has schema {found}, this version knows {known}; use the version that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: i64,
        /// What would do.
        known: i64,
    },
    /// A transaction failed; nothing of it is stored.
    #[error("cannot write the audit store `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: Arc<sqlx::Error>,
    },
    /// A question could not be answered.
    #[error("cannot read the audit store `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: Arc<sqlx::Error>,
    },
    /// An event that no enforcer writes.
    #[error("event {index} of the batch is refused")]
    Nonsense {
        /// Its place, from 0.
        index: usize,
        /// Why.
        source: Nonsense,
    },
    /// The writer is gone: the process is stopping.
    #[error("the audit store is closed")]
    Closed,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// Rows stored.
    pub new: u64,
    /// Events that the store had already.
    pub duplicates: u64,
}

/// A handle; cheap to clone. The writing task ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    path: Arc<Path>,
    requests: mpsc::Sender<Request>,
    readers: SqlitePool,
    followers: Arc<Followers>,
    presence: Arc<Presence>,
}

impl Store {
    /// Opens or makes the file (mode 0600) and spawns the writing task on the current runtime.
    ///
    /// # Errors
    /// [`StoreError::Create`], [`StoreError::Open`], [`StoreError::Foreign`] and [`StoreError::Version`], all with the path.
    pub async fn open(path: impl Into<PathBuf>, clock: NanoClock) -> Result<Self, StoreError> {
        let path = path.into();
        // SQLite gives its side files the mode of this one.
        if let Err(source) = OpenOptions::new().create(true).append(true).mode(0o600).open(&path) {
            return Err(StoreError::Create { path, source: Arc::new(source) });
        }
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let (connection, last) = match schema::connect(&options).await {
            Ok((connection, Tables::Ready { last })) => (connection, last),
            Ok((_, Tables::Foreign)) => return Err(StoreError::Foreign { path }),
            Ok((_, Tables::Version { found, known })) => return Err(StoreError::Version { path, found, known }),
            Err(source) => return Err(StoreError::Open { path, source: Arc::new(source) }),
        };
        let reading = options.pragma("query_only", "1");
        let readers = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(reading);
        let (requests, receiver) = mpsc::channel(64);
        let followers = Arc::<Followers>::default();
        let writer = Writer {
            path: path.clone(),
            connection,
            requests: receiver,
            followers: Arc::clone(&followers),
            clock,
            next_id: last.saturating_add(1),
            dictionary: dictionary::Dictionary::default(),
        };
        tokio::spawn(writer.run());
        Ok(Self { path: path.into(), requests, readers, followers, presence: Arc::default() })
    }

    /// Stores what is new. When this returns, all of it is durable. Batches of several callers share one commit.
    ///
    /// # Errors
    /// [`StoreError::Nonsense`] and nothing stored; [`StoreError::Write`] and nothing stored.
    pub async fn insert_batch(&self, events: Vec<Event>) -> Result<Inserted, StoreError> {
        self.insert(events, None).await
    }

    /// Stores a batch and, after it, that an enforcer's epoch has ended.
    pub(crate) async fn insert(
        &self,
        events: Vec<Event>,
        closed: Option<(String, u64)>,
    ) -> Result<Inserted, StoreError> {
        for (index, event) in events.iter().enumerate() {
            limits::check(event).map_err(|source| StoreError::Nonsense { index, source })?;
        }
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { events, closed, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Answers a question from one consistent state.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn query(&self, query: &Query) -> Result<Answer, StoreError> {
        Ok(self.query_until(query).await?.0)
    }

    /// The answer, and the last row's number in the state that it was taken from.
    pub(crate) async fn query_until(&self, query: &Query) -> Result<(Answer, i64), StoreError> {
        self.read(query).await.map_err(|source| self.unreadable(source))
    }

    async fn read(&self, query: &Query) -> Result<(Answer, i64), sqlx::Error> {
        let mut transaction = self.readers.begin().await?;
        let (events, more) = select::events(&mut transaction, query).await?;
        let mut completeness = completeness::of(&mut transaction, query, &self.presence).await?;
        if more {
            completeness.reasons.insert(0, Reason::Limit { rows: query.rows() });
        }
        let last = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM events").fetch_one(&mut *transaction).await?;
        Ok((Answer { events, completeness }, last))
    }

    /// Every epoch of every enforcer with its counts.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        completeness::accounts(&self.readers).await.map_err(|source| self.unreadable(source))
    }

    fn unreadable(&self, source: sqlx::Error) -> StoreError {
        StoreError::Read { path: self.path.to_path_buf(), source: Arc::new(source) }
    }

    /// Rows that `query` wants, from the next commit on.
    pub(crate) fn follow(&self, query: Query) -> Following {
        self.followers.follow(query)
    }

    pub(crate) fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }
}
