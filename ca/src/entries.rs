//! Registration entries: which workload of which agent gets which identity.
//!
//! They come from two places: RegistrationEntry resources of the configuration directory, and the administration API, whose
//! entries are rows of `ca.db`. Readers see both as one map, replaced as a whole with every change, so that an entry reaches the
//! agents that follow the map without anybody polling.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use palisade_identity::{SpiffeId, TrustDomain};
use palisade_policies::RegistrationEntry;
use palisade_wire::{admin, agents};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;

mod entry;
mod map;
mod rows;

pub use entry::{Entry, EntryError};
use map::ById;
pub use map::EntryMap;
use rows::Rows;

use crate::agents::{EntryChanges, EntrySource};
use crate::signer::{SignerError, hex, random};

/// Entries of the administration API; more are refused.
const MAX_ENTRIES: usize = 200_000;
const ID_BYTES: usize = 16;

/// Why the entries cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum EntriesError {
    /// The entry itself.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Parent, identity and selectors are those of another entry.
    #[error("entry `{0}` says the same already")]
    Exists(String),
    /// No entry has this ID.
    #[error("there is no entry `{0}`: list them to see their IDs")]
    Unknown(String),
    /// The entry is a resource of the configuration directory.
    #[error("entry `{id}` is written in {origin}: remove it there")]
    InFile {
        /// The entry.
        id: String,
        /// File and line.
        origin: String,
    },
    /// Too many.
    #[error("there are {MAX_ENTRIES} entries already: delete some, or write them as resources")]
    TooMany,
    /// No randomness for an ID.
    #[error("cannot make an ID")]
    Random(#[from] SignerError),
    /// The database.
    #[error("the entries in `{path}` cannot be used: check that it is a database, writable, and its disk not full")]
    Database {
        /// The database.
        path: String,
        /// Why.
        source: sqlx::Error,
    },
    /// A row that no release has written.
    #[error("entry `{id}` in the database is damaged: {reason}")]
    Damaged {
        /// The entry.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What entries give to a certificate.
#[derive(Debug, Default)]
pub(crate) struct Grant {
    pub(crate) dns_names: Vec<String>,
    pub(crate) x509_ttl: Option<Duration>,
    /// The entry's ID; empty where none of several can be named.
    pub(crate) entry: String,
}

impl From<&Entry> for Grant {
    fn from(entry: &Entry) -> Self {
        Self { dns_names: entry.dns_names.clone(), x509_ttl: entry.x509_ttl, entry: entry.id.clone() }
    }
}

/// The entries of one trust domain; clones share them.
#[derive(Clone, Debug)]
pub struct Entries(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    domain: TrustDomain,
    rows: Rows,
    parts: Mutex<Parts>,
    merged: watch::Sender<Arc<EntryMap>>,
    /// Changes of rows, one after the other.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Parts {
    files: ById,
    rows: ById,
}

impl Entries {
    /// Opens the entries of `domain` in an authority's database (`ca.db`), which must exist.
    ///
    /// # Errors
    /// [`EntriesError::Database`] or [`EntriesError::Damaged`].
    pub async fn open(database: &Path, domain: TrustDomain) -> Result<Self, EntriesError> {
        let rows = Rows::open(database).await?;
        let found = rows.all(&domain).await?;
        let entries = Self(Arc::new(Inner {
            domain,
            rows,
            parts: Mutex::default(),
            merged: watch::Sender::default(),
            changing: tokio::sync::Mutex::default(),
        }));
        entries.change(|parts| parts.rows = found);
        Ok(entries)
    }

    /// Puts the configuration directory's entries in the place of those it had before. An entry's ID is
    /// `namespace/name`.
    pub fn set_files(&self, entries: &[Arc<RegistrationEntry>]) {
        let files = entries.iter().map(|entry| Entry::of_file(entry)).map(|entry| (entry.id.clone(), Arc::new(entry)));
        let files: ById = files.collect();
        self.change(|parts| parts.files = files);
    }

    /// Makes an entry of the administration API; it is durable when this returns. `id` and `origin` are ours to give.
    ///
    /// # Errors
    /// [`EntriesError`]; its text is for the caller.
    pub async fn create(&self, wanted: &admin::RegistrationEntry) -> Result<Arc<Entry>, EntriesError> {
        let _changing = self.0.changing.lock().await;
        let entry = Arc::new(Entry::of_wire(wanted, hex(&random::<ID_BYTES>()?), &self.0.domain)?);
        if let Some(same) =
            self.current().of_identity(&entry.spiffe_id).iter().find(|other| other.says_the_same(&entry))
        {
            return Err(EntriesError::Exists(same.id.clone()));
        }
        if self.parts().rows.len() >= MAX_ENTRIES {
            return Err(EntriesError::TooMany);
        }
        self.0.rows.insert(&entry).await?;
        self.change(|parts| drop(parts.rows.insert(entry.id.clone(), Arc::clone(&entry))));
        tracing::info!(entry = entry.id, id = %entry.spiffe_id, selectors = ?entry.selectors, "registration entry created");
        Ok(entry)
    }

    /// Deletes an entry of the administration API.
    ///
    /// # Errors
    /// [`EntriesError::Unknown`], [`EntriesError::InFile`], or the database's.
    pub async fn delete(&self, id: &str) -> Result<(), EntriesError> {
        let _changing = self.0.changing.lock().await;
        if let Some(entry) = self.parts().files.get(id) {
            let origin = entry.origin.clone().unwrap_or_default();
            return Err(EntriesError::InFile { id: id.to_owned(), origin });
        }
        if !self.0.rows.delete(id).await? {
            return Err(EntriesError::Unknown(id.to_owned()));
        }
        self.change(|parts| drop(parts.rows.remove(id)));
        tracing::info!(entry = id, "registration entry deleted");
        Ok(())
    }

    /// All entries now, and after every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<EntryMap>> {
        self.0.merged.subscribe()
    }

    /// All entries.
    #[must_use]
    pub fn current(&self) -> Arc<EntryMap> {
        Arc::clone(&self.0.merged.borrow())
    }

    /// The entry with this ID.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Entry>> {
        self.0.merged.borrow().get(id).cloned()
    }

    /// The entries for workloads of this agent: those that name it as their parent. Whoever serves an entry decides who is
    /// selected by it, so nobody may that was not named: an entry without a parent is for callers that prove themselves to
    /// the server ([`Entries::for_caller`]).
    #[must_use]
    pub fn for_agent(&self, agent: &SpiffeId) -> Vec<Arc<Entry>> {
        self.current().of_parent(agent).to_vec()
    }

    /// The entry without a parent that speaks about a caller of this identity, attested with these selectors: all of the entry's
    /// selectors must be among them. Of several the one with most selectors counts, then the one whose ID is first.
    #[must_use]
    pub fn for_caller(&self, id: &SpiffeId, selectors: &[String]) -> Option<Arc<Entry>> {
        let proven = |entry: &Entry| entry.selectors.iter().all(|one| selectors.contains(one));
        let fits = |entry: &&Arc<Entry>| entry.parent_id.is_none() && proven(entry);
        self.current().of_identity(id).iter().rev().filter(fits).max_by_key(|entry| entry.selectors.len()).cloned()
    }

    /// What a caller gets that renews a certificate with these DNS names: those of them that an entry of its identity still
    /// grants, and the shortest life that one of them wants. What once selected the entry is not known any more.
    #[must_use]
    pub(crate) fn for_renewal(&self, id: &SpiffeId, dns_names: &[String]) -> Grant {
        let entries = self.current().of_identity(id);
        let granted = |name: &&String| entries.iter().any(|entry| entry.dns_names.contains(name));
        Grant {
            dns_names: dns_names.iter().filter(granted).cloned().collect(),
            x509_ttl: entries.iter().filter_map(|entry| entry.x509_ttl).min(),
            entry: match entries.as_slice() {
                [one] => one.id.clone(),
                _ => String::new(),
            },
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Parts)) {
        let mut parts = self.parts();
        change(&mut parts);
        // A resource of this very name could only stand beside a row if somebody chose its name to be 32 hex digits.
        let merged: ById =
            parts.rows.iter().chain(&parts.files).map(|(id, entry)| (id.clone(), Arc::clone(entry))).collect();
        self.0.merged.send_if_modified(|held| {
            let changed = ***held != merged;
            if changed {
                *held = Arc::new(EntryMap::new(merged, held));
            }
            changed
        });
    }
}

/// What agents are told.
impl EntrySource for Entries {
    fn for_agent(&self, agent: &SpiffeId) -> Vec<agents::Entry> {
        Self::for_agent(self, agent).iter().map(|entry| entry.to_agent()).collect()
    }

    fn get(&self, agent: &SpiffeId, id: &str) -> Option<agents::Entry> {
        let entry = Self::get(self, id)?;
        (entry.parent_id.as_ref() == Some(agent)).then(|| entry.to_agent())
    }

    fn changes(&self, agent: &SpiffeId) -> EntryChanges {
        let (agent, mut all) = (agent.clone(), self.subscribe());
        let mut known = all.borrow_and_update().mark(&agent);
        let concerns = move |all: &Arc<EntryMap>| {
            let before = std::mem::replace(&mut known, all.mark(&agent));
            before != known
        };
        Box::pin(WatchStream::from_changes(all).filter(concerns).map(drop))
    }
}

#[cfg(test)]
mod tests;
