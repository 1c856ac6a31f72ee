//! The keys at hand, and how authorities come to be: made here, found on disk, plugged in, or left by an older release.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use palisade_identity::{CertificateDer, TrustBundle};
use rustls_pki_types::pem::{PemObject, SectionKind};
use zeroize::Zeroizing;

use super::OpenError;
use crate::cacerts::{Files, Plugin};
use crate::config::CaConfig;
use crate::custody::file::FileCustody;
use crate::custody::{Custody as _, CustodyError, key_name};
use crate::directory::Directory;
use crate::journal::{Journal, Origin, Record, State};
use crate::jwt::Ring;
use crate::root::Root;
use crate::signer::{Found, Signer, SignerError, certificate_pem};

/// Files of format 1: key and certificate in one.
const ROOT_1: &str = "root.pem";
const INTERMEDIATE_1: &str = "intermediate.pem";

/// Of no files: what is there is looked at next time.
pub(crate) const UNSEEN: [u8; 32] = [0; 32];
/// A key that no authority needs was about to be used by a process that was killed; one that is younger may be about to be.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// What can be done with an authority.
#[derive(Debug, Default)]
pub(crate) struct Member {
    /// Makes intermediates; an own authority's.
    pub(crate) root: Option<Root>,
    /// Signs leaves; absent where the key is not there any more.
    pub(crate) signer: Option<Arc<Signer>>,
}

/// Where things are kept, and the keys that are open.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) directory: Directory,
    pub(crate) custody: FileCustody,
    pub(crate) members: BTreeMap<String, Member>,
    /// Of the plugged-in files that were judged last, and what is wrong with them.
    pub(crate) plugin: ([u8; 32], Option<String>),
    /// The keys that sign tokens.
    pub(crate) ring: Ring,
}

impl Hands {
    pub(crate) fn new(directory: Directory, custody: FileCustody, ring: Ring) -> Self {
        Self { directory, custody, members: BTreeMap::new(), plugin: (UNSEEN, None), ring }
    }

    pub(crate) fn signer(&self, id: &str) -> Option<Arc<Signer>> {
        self.members.get(id)?.signer.clone()
    }

    /// Reads the journal and opens its keys; makes the first authority if there is none. Of two processes that do so at once
    /// both read back what the first one made.
    pub(crate) fn open(&mut self, config: &CaConfig, version: u32, now: u64) -> Result<Journal, OpenError> {
        let domain = &config.trust_domain;
        let plugin = match &config.cacerts {
            Some(dir) => {
                let files = Files::read(dir)?;
                self.plugin.0 = files.digest();
                Some(files.judge(config.passphrase.as_ref(), domain, now)?)
            }
            None => None,
        };
        if version == 1 {
            self.migrate(config, now)?;
        }
        if Journal::read(&self.directory, domain)?.is_none() {
            let first = match &plugin {
                Some(plugin) => plugged(plugin, now),
                None => self.make(config, now)?.0,
            };
            Journal::begin(domain, first).create(&self.directory)?;
        }
        let missing = || SignerError::Malformed;
        let mut journal = Journal::read(&self.directory, domain)?.ok_or_else(missing)?;
        for old in [ROOT_1, INTERMEDIATE_1] {
            self.directory.remove(old)?;
        }
        let before = journal.clone();
        self.gather(&mut journal, plugin, config, now)?;
        if journal != before {
            journal.write(&self.directory)?;
        }
        let needed = key_names(&journal);
        for abandoned in self.custody.older_than(ABANDONED)?.into_iter().filter(|name| !needed.contains(name)) {
            self.custody.destroy(&abandoned)?;
        }
        Ok(journal)
    }

    /// Opens every key that the journal names.
    fn gather(
        &mut self,
        journal: &mut Journal,
        plugin: Option<Plugin>,
        config: &CaConfig,
        now: u64,
    ) -> Result<(), OpenError> {
        for record in journal.authorities.iter_mut().filter(|record| record.origin == Origin::Own) {
            let member = match self.own(record, config, now) {
                Err(error) if record.state == State::Old => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(authority = record.id, error, "the key of an old authority cannot be used");
                    Member::default()
                }
                other => other?,
            };
            self.members.insert(record.id.clone(), member);
        }
        if let Some(plugin) = plugin {
            self.plug(journal, plugin, now);
        }
        let active = journal.of(State::Active).map(|record| record.id.clone()).unwrap_or_default();
        if self.signer(&active).is_some() {
            return Ok(());
        }
        let prepared = journal.of(State::Prepared).map(|record| record.id.clone()).unwrap_or_default();
        if self.signer(&prepared).is_none() {
            return Err(OpenError::KeyGone(active));
        }
        tracing::warn!(active, prepared, "the active authority's key is gone, the prepared one signs at once");
        journal.activate(now);
        Ok(())
    }

    /// Opens an own authority, with a new intermediate if the present one is due.
    fn own(&self, record: &mut Record, config: &CaConfig, now: u64) -> Result<Member, OpenError> {
        let roots = record.roots();
        let certificate = roots.first().cloned().ok_or(SignerError::Malformed)?;
        let found = Found::read(&certificate).ok_or(SignerError::Malformed)?;
        let name = key_name(&found.key);
        let key = self.custody.find(&name)?.ok_or_else(|| OpenError::KeyMissing(self.custody.path(&name)))?;
        if record.state != State::Old && !(found.not_before..=found.not_after).contains(&now) {
            let (not_before, not_after) = (found.not_before, found.not_after);
            return Err(OpenError::RootDates { id: record.id.clone(), not_before, not_after });
        }
        let root = Root::open(key, certificate, &config.trust_domain)?;
        let bundle = TrustBundle::new(config.trust_domain.clone(), roots)?;
        let chain = record.chain();
        let signer = match chain.first().and_then(Found::read) {
            Some(found) if !root.replaces(&found, now) => self.custody.find(&key_name(&found.key))?,
            _ => None,
        };
        let signer = match signer {
            Some(key) => Signer::new(key, &chain, &bundle)?,
            None => self.renew(&root, record, now)?,
        };
        Ok(Member { root: Some(root), signer: Some(Arc::new(signer)) })
    }

    /// A new intermediate below `root`, which takes the place of the record's. Leaves carry it with them, so nobody has to learn
    /// of it first.
    pub(crate) fn renew(&self, root: &Root, record: &mut Record, now: u64) -> Result<Signer, OpenError> {
        let key = self.custody.generate()?;
        let chain = vec![root.intermediate(Arc::clone(&key), now)?];
        let bundle = TrustBundle::new(root.domain().clone(), vec![root.certificate.clone()])?;
        let signer = Signer::new(key, &chain, &bundle)?;
        record.chain = chain.iter().map(certificate_pem).collect();
        Ok(signer)
    }

    /// A new root and its intermediate. Their keys are durable when this returns.
    pub(crate) fn make(&self, config: &CaConfig, now: u64) -> Result<(Record, Member), OpenError> {
        let root = Root::make(self.custody.generate()?, &config.trust_domain, now, config.root_ttl)?;
        let id = Found::read(&root.certificate).ok_or(SignerError::Malformed)?.id();
        let mut record = prepared(id, Origin::Own, std::slice::from_ref(&root.certificate), &[], now);
        let signer = self.renew(&root, &mut record, now)?;
        tracing::info!(authority = record.id, trust_domain = config.trust_domain.as_str(), "root created");
        Ok((record, Member { root: Some(root), signer: Some(Arc::new(signer)) }))
    }

    /// Takes plugged-in files into the journal; says whether that changed it.
    pub(crate) fn plug(&mut self, journal: &mut Journal, plugin: Plugin, now: u64) {
        let mut record = plugged(&plugin, now);
        let signer = Arc::new(plugin.signer);
        let known = journal.get(&record.id).cloned();
        match known {
            Some(known) if known.roots == record.roots && known.state != State::Old => {
                // The same key under the same roots: what changed is the certificate alone, and leaves carry that.
                journal.change(&known.id, |known| known.chain = record.chain.clone());
            }
            Some(known) if known.state == State::Old => {
                journal.retire(&known.id);
                journal.prepare(record.clone());
            }
            Some(_) => {
                // The same key under other roots is an authority of its own.
                let tag = plugin.roots.first().and_then(Found::read).map(|root| root.id());
                record.id = format!("{}-{}", record.id, tag.unwrap_or_default());
                if journal.get(&record.id).is_none_or(|known| known.state == State::Old) {
                    journal.retire(&record.id.clone());
                    journal.prepare(record.clone());
                }
            }
            None => journal.prepare(record.clone()),
        }
        tracing::info!(authority = record.id, "the signing certificate in --cacerts is taken");
        self.members.insert(record.id, Member { root: None, signer: Some(signer) });
    }

    /// Brings what format 1 kept into the present form. It may have been interrupted at any moment before.
    fn migrate(&mut self, config: &CaConfig, now: u64) -> Result<(), OpenError> {
        let (domain, root) = (&config.trust_domain, self.directory.read_secret(ROOT_1)?);
        let intermediate = self.directory.read_secret(INTERMEDIATE_1)?;
        match (root, intermediate) {
            (None, None) => {}
            (None, Some(_)) => return Err(OpenError::KeyMissing(self.directory.join(ROOT_1))),
            (Some(root), intermediate) => {
                let certificate = self.adopt(ROOT_1, &root)?;
                let chain = intermediate.map(|text| self.adopt(INTERMEDIATE_1, &text)).transpose()?;
                let id = Found::read(&certificate).ok_or(SignerError::Malformed)?.id();
                let mut record = prepared(id, Origin::Own, &[certificate], chain.as_slice(), now);
                if record.chain.is_empty() {
                    self.own(&mut record, config, now)?;
                }
                Journal::begin(domain, record).create(&self.directory)?;
            }
        }
        Ok(self.directory.upgrade()?)
    }

    /// Gives the key in a file of format 1 into custody, and returns its certificate.
    fn adopt(&self, name: &str, text: &[u8]) -> Result<CertificateDer<'static>, OpenError> {
        let path = self.directory.join(name);
        let damaged = || OpenError::Custody(CustodyError::Damaged(path.clone()));
        let (key, certificate) = key_and_certificate(text).ok_or_else(damaged)?;
        let key = self.custody.adopt(&key)?.ok_or_else(damaged)?;
        match Found::read(&certificate) {
            Some(found) if found.key == key.public_key() => Ok(certificate),
            _ => Err(damaged()),
        }
    }
}

fn prepared(
    id: String,
    origin: Origin,
    roots: &[CertificateDer<'_>],
    chain: &[CertificateDer<'_>],
    now: u64,
) -> Record {
    Record {
        id,
        state: State::Prepared,
        origin,
        roots: roots.iter().map(certificate_pem).collect(),
        chain: chain.iter().map(certificate_pem).collect(),
        prepared_at: now,
        activated_at: None,
        replaced_at: None,
        activate_by: None,
        automatic: true,
        tainted: false,
    }
}

fn plugged(plugin: &Plugin, now: u64) -> Record {
    prepared(plugin.signer.found.id(), Origin::Cacerts, &plugin.roots, &plugin.chain, now)
}

fn key_and_certificate(text: &[u8]) -> Option<(Zeroizing<Vec<u8>>, CertificateDer<'static>)> {
    let (mut key, mut certificate) = (None, None);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        match section.ok()? {
            (SectionKind::PrivateKey, der) if key.is_none() => key = Some(Zeroizing::new(der)),
            (SectionKind::Certificate, der) if certificate.is_none() => certificate = Some(der.into()),
            _ => return None,
        }
    }
    Some((key?, certificate?))
}

/// The names of all keys that a journal's own authorities need.
pub(crate) fn key_names(journal: &Journal) -> BTreeSet<String> {
    let own = journal.authorities.iter().filter(|record| record.origin == Origin::Own);
    let certificates = own.flat_map(|record: &Record| record.roots().into_iter().chain(record.chain()));
    certificates.filter_map(|der| Found::read(&der)).map(|found| key_name(&found.key)).collect()
}
