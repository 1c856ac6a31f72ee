//! The last good identity on disk, so that a restart does not need the server.
//!
//! One file holds chain, key and bundles together: no crash can leave halves of two identities. It is written beside
//! its place, flushed and renamed over it. What is read back is checked as if the server had just sent it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palisade_identity::{Identity, TrustDomain, error_chain};
use zeroize::Zeroizing;

use crate::roster::{Entries, Entry, Held, State};
use crate::secrets::encoded::version_of;

mod format;
mod state;

pub use format::{DecodeIdentityError, FORMAT};
pub(crate) use state::Stored;

const FILE: &str = "identity.json";
/// Entries, keys of tokens and revoked serial numbers.
const STATE: &str = "state.json";
/// One file for each entry's certificate.
const SVIDS: &str = "svids";
/// Far more than any identity takes; bounds what is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Entries take some 300 bytes each.
const MAX_STATE_BYTES: u64 = 256 * 1024 * 1024;

/// The directory that belongs to one agent.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    dir: PathBuf,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenStorageError {
    /// It could not be made, or files cannot be written into it.
    #[error("state directory `{}` cannot be written", path.display())]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Other users may put files into it.
    #[error("state directory `{}` can be written by other users (mode {mode:o}); take that right away", path.display())]
    Shared {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// The stored identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadIdentityError {
    /// The file could not be read.
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no text at all.
    #[error("`{}` is damaged: it is no text", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it stops being text.
        source: io::Error,
    },
    /// Its content is not an identity of this agent.
    #[error("`{}` holds no usable identity", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DecodeIdentityError,
    },
}

/// The identity could not be stored.
#[derive(Debug, thiserror::Error)]
#[error("the identity cannot be stored in `{}`", path.display())]
pub(crate) struct SaveIdentityError {
    path: PathBuf,
    source: io::Error,
}

impl Storage {
    /// Makes the directory (0700) if it is missing, and proves that it can be written.
    pub(crate) fn open(dir: &Path) -> Result<Self, OpenStorageError> {
        let unwritable = |source| OpenStorageError::Unwritable { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unwritable)?;
        let mode = fs::metadata(dir).map_err(unwritable)?.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(OpenStorageError::Shared { path: dir.to_owned(), mode });
        }
        tempfile::NamedTempFile::new_in(dir).map_err(unwritable)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The stored identity, if there is one. Its dates are not looked at: an expired identity still says who we are.
    pub(crate) fn load(&self, trust_domain: &TrustDomain) -> Result<Option<Identity>, LoadIdentityError> {
        let path = self.dir.join(FILE);
        let text = match read(&path, MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) if source.kind() == io::ErrorKind::InvalidData => {
                return Err(LoadIdentityError::Damaged { path, source });
            }
            Err(source) => return Err(LoadIdentityError::Unreadable { path, source }),
        };
        format::decode(&text, trust_domain).map(Some).map_err(|source| LoadIdentityError::Content { path, source })
    }

    /// Replaces the stored identity; afterwards either the new one or the old one is there, whole, whatever happens.
    pub(crate) fn save(&self, identity: &Identity) -> Result<(), SaveIdentityError> {
        self.replace(&self.dir.join(FILE), &format::encode(identity))
    }

    /// What the server said last about everything else. What cannot be used is logged and passed over, for the server will say
    /// it again.
    pub(crate) fn load_state(&self, trust_domain: &TrustDomain) -> Option<Stored> {
        let text = optional(&self.dir.join(STATE), MAX_STATE_BYTES)?;
        match state::decode(&text, trust_domain) {
            Ok(stored) => Some(stored),
            Err(error) => {
                tracing::warn!(error = %error_chain(&error), "the stored entries are not used; the server is asked");
                None
            }
        }
    }

    /// Replaces what the server said last, if it is news: the server says everything again at each change of anything.
    pub(crate) fn save_state(&self, state: &State, denied: &BTreeSet<String>) -> Result<(), SaveIdentityError> {
        let (path, text) = (self.dir.join(STATE), state::encode(state, denied.iter().cloned()));
        if read(&path, MAX_STATE_BYTES).is_ok_and(|kept| *kept == text) {
            return Ok(());
        }
        self.replace(&path, &text)
    }

    /// The certificates of these entries, as far as they can still be read.
    pub(crate) fn load_svids(&self, entries: &Entries, trust_domain: &TrustDomain) -> BTreeMap<String, Arc<Held>> {
        let load = |entry: &Arc<Entry>| {
            let text = optional(&self.svid_path(&entry.id), MAX_BYTES)?;
            match state::decode_svid(&text, trust_domain) {
                Ok(held) if held.made_for.id == entry.id => Some((entry.id.clone(), Arc::new(held))),
                Ok(_) => None,
                Err(error) => {
                    tracing::warn!(entry = entry.id, error = %error_chain(&error), "a stored certificate is not used");
                    None
                }
            }
        };
        entries.iter().filter_map(load).collect()
    }

    /// Replaces the certificate of one entry.
    pub(crate) fn save_svid(&self, held: &Held) -> Result<(), SaveIdentityError> {
        let path = self.svid_path(&held.made_for.id);
        if let Some(dir) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|source| SaveIdentityError { path: dir.to_owned(), source })?;
        }
        self.replace(&path, &state::encode_svid(held))
    }

    /// Removes the certificates of entries that are no more.
    pub(crate) fn keep_svids(&self, entries: &Entries) {
        let kept: BTreeSet<PathBuf> = entries.iter().map(|entry| self.svid_path(&entry.id)).collect();
        let Ok(found) = fs::read_dir(self.dir.join(SVIDS)) else { return };
        let finished = found.flatten().filter(|file| !file.file_name().as_encoded_bytes().starts_with(b"."));
        for path in finished.map(|file| file.path()).filter(|path| !kept.contains(path)) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "the certificate of an entry that is no more stays on disk");
            }
        }
    }

    /// Names of entries may hold anything, names of files may not.
    fn svid_path(&self, entry: &str) -> PathBuf {
        self.dir.join(SVIDS).join(format!("{}.json", version_of(&[entry.as_bytes()])))
    }

    fn replace(&self, path: &Path, text: &str) -> Result<(), SaveIdentityError> {
        self.write(path, text).map_err(|source| SaveIdentityError { path: path.to_owned(), source })
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        let dir = path.parent().unwrap_or(&self.dir);
        let mut file =
            tempfile::Builder::new().prefix(".new-").permissions(Permissions::from_mode(0o600)).tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()
    }
}

/// A file that need not be there; one that cannot be read is logged.
fn optional(path: &Path, limit: u64) -> Option<Zeroizing<String>> {
    match read(path, limit) {
        Ok(text) => Some(text),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "a stored file is not used");
            }
            None
        }
    }
}

/// Reads a bounded file, and takes other users' rights away from it should it have any.
fn read(path: &Path, limit: u64) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the stored identity could be read by other users; corrected");
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    // One allocation, so that no shorter copy of the key stays behind.
    let size = usize::try_from(meta.len().min(limit)).unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(size + 1));
    file.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
