//! Which authorities there are and what each is for: one file, replaced as a whole.
//!
//! Everything that must agree (which authority signs, which roots peers are told, what comes next) stands in this one file, so
//! a process killed at any moment leaves the state before a step or the state after it. Keys stand elsewhere, by name, and are
//! there before the journal needs them.

use std::path::PathBuf;

use palisade_identity::{CertificateDer, TrustDomain};
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::directory::{Directory, DirectoryError};

const FILE: &str = "authorities.json";

/// What an authority is for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its root is in the bundle, and it signs nothing yet.
    Prepared,
    /// It signs.
    Active,
    /// It signs no more, and its root stays in the bundle while its leaves live.
    Old,
}

/// Where an authority comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Root and intermediate were made here.
    Own,
    /// Files of the operator (`--cacerts`).
    Cacerts,
}

/// One authority, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Subject key identifier, lower-case hex: the root's of an own one, the signing certificate's of a plugged-in one.
    pub(crate) id: String,
    pub(crate) state: State,
    pub(crate) origin: Origin,
    /// PEM, one certificate an element.
    pub(crate) roots: Vec<String>,
    /// PEM: the signing certificate and those between it and a root.
    pub(crate) chain: Vec<String>,
    /// Unix seconds.
    pub(crate) prepared_at: u64,
    pub(crate) activated_at: Option<u64>,
    pub(crate) replaced_at: Option<u64>,
    /// The operator's deadline: from then on it is used though somebody has not acknowledged it.
    pub(crate) activate_by: Option<u64>,
    /// It goes on by itself; otherwise the operator says when.
    pub(crate) automatic: bool,
    pub(crate) tainted: bool,
}

impl Record {
    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.roots)
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        certificates(&self.chain)
    }
}

fn certificates(pem: &[String]) -> Vec<CertificateDer<'static>> {
    pem.iter().filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok()).collect()
}

/// Why a journal is not read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory.
    #[error("the list of authorities cannot be kept")]
    Directory(#[from] DirectoryError),
    /// Not what was written.
    #[error("`{}` is damaged ({reason}): restore it from a backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Of another trust domain.
    #[error("`{}` is of trust domain `{found}`, not `{domain}`: an authority keeps its trust domain, name an empty directory for another", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The trust domain it was made for.
        found: String,
        /// The trust domain configured.
        domain: TrustDomain,
    },
}

/// All authorities, oldest first: exactly one active, at most one prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    pub(crate) trust_domain: String,
    pub(crate) authorities: Vec<Record>,
}

impl Journal {
    /// The journal of a new directory.
    pub(crate) fn begin(domain: &TrustDomain, mut first: Record) -> Self {
        first.state = State::Active;
        first.activated_at = Some(first.prepared_at);
        Self { trust_domain: domain.as_str().to_owned(), authorities: vec![first] }
    }

    pub(crate) fn read(directory: &Directory, domain: &TrustDomain) -> Result<Option<Self>, JournalError> {
        let Some(text) = directory.read_secret(FILE)? else { return Ok(None) };
        let path = directory.join(FILE);
        let damaged = |reason: String| JournalError::Damaged { path: path.clone(), reason };
        let journal: Self = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if journal.trust_domain != domain.as_str() {
            return Err(JournalError::Foreign { path, found: journal.trust_domain, domain: domain.clone() });
        }
        journal.check().map_err(damaged)?;
        Ok(Some(journal))
    }

    fn check(&self) -> Result<(), String> {
        let count = |state| self.authorities.iter().filter(|record| record.state == state).count();
        if count(State::Active) != 1 || count(State::Prepared) > 1 {
            return Err("not exactly one authority is active".to_owned());
        }
        for record in &self.authorities {
            let whole = record.roots().len() == record.roots.len() && record.chain().len() == record.chain.len();
            if !whole || record.roots.is_empty() || record.chain.is_empty() {
                return Err(format!("a certificate of authority {} is unreadable", record.id));
            }
        }
        Ok(())
    }

    /// Makes it the first journal of the directory, unless somebody else's is there already.
    pub(crate) fn create(&self, directory: &Directory) -> Result<(), JournalError> {
        Ok(directory.create(FILE, &self.text())?)
    }

    pub(crate) fn write(&self, directory: &Directory) -> Result<(), JournalError> {
        Ok(directory.replace(FILE, &self.text())?)
    }

    fn text(&self) -> Vec<u8> {
        // Strings and numbers always have a JSON form.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    pub(crate) fn of(&self, state: State) -> Option<&Record> {
        self.authorities.iter().find(|record| record.state == state)
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Record> {
        self.authorities.iter().find(|record| record.id == id)
    }

    pub(crate) fn old(&self) -> impl Iterator<Item = &Record> {
        self.authorities.iter().filter(|record| record.state == State::Old)
    }

    pub(crate) fn change(&mut self, id: &str, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.authorities.iter_mut().find(|record| record.id == id) {
            change(record);
        }
    }

    /// Adds a prepared authority; one that was prepared before and never used gives way.
    pub(crate) fn prepare(&mut self, mut record: Record) {
        self.authorities.retain(|record| record.state != State::Prepared);
        record.state = State::Prepared;
        self.authorities.push(record);
    }

    /// The prepared authority signs from now on, and the one that did is old.
    pub(crate) fn activate(&mut self, now: u64) {
        for record in &mut self.authorities {
            match record.state {
                State::Active => (record.state, record.replaced_at) = (State::Old, Some(now)),
                State::Prepared => (record.state, record.activated_at) = (State::Active, Some(now)),
                State::Old => {}
            }
        }
    }

    /// Takes an authority out, and its root out of the bundle.
    pub(crate) fn retire(&mut self, id: &str) {
        self.authorities.retain(|record| record.id != id);
    }

    /// All roots, each once, oldest first: the order does not change with what each is for, as that is no change of trust.
    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        let mut roots = Vec::new();
        for root in self.authorities.iter().flat_map(Record::roots) {
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal as it was written while it still counted its changes.
    #[test]
    fn a_journal_that_counts_its_changes_is_still_read() {
        let root = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
        let (home, domain) = (tempfile::tempdir().unwrap(), TrustDomain::parse("cluster.local").unwrap());
        let (directory, _) = Directory::open(home.path()).unwrap();
        let record = serde_json::json!({"id": "a", "state": "active", "origin": "own", "roots": [root], "chain": [root],
            "prepared_at": 1, "activated_at": 1, "replaced_at": null, "activate_by": null, "automatic": true, "tainted": false});
        let written = serde_json::json!({"trust_domain": "cluster.local", "sequence": 7, "authorities": [record]});
        directory.create(FILE, written.to_string().as_bytes()).unwrap();
        let journal = Journal::read(&directory, &domain).unwrap().unwrap();
        assert_eq!(journal.of(State::Active).map(|active| active.id.as_str()), Some("a"));
    }
}
