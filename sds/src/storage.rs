//! The last good identity on disk, so that a restart does not need the server.
//!
//! One file holds chain, key and bundles together: no crash can leave halves of two identities. It is written beside
//! its place, flushed and renamed over it. What is read back is checked as if the server had just sent it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use palisade_identity::{Identity, TrustDomain};
use zeroize::Zeroizing;

mod format;

pub use format::{DecodeIdentityError, FORMAT};

const FILE: &str = "identity.json";
/// Far more than any identity takes; bounds what is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

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
        let text = match read(&path) {
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
        self.write(&format::encode(identity)).map_err(|source| SaveIdentityError { path: self.dir.join(FILE), source })
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".identity-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.dir.join(FILE)).map_err(|error| error.error)?;
        File::open(&self.dir)?.sync_all()
    }
}

/// Reads a bounded file, and takes other users' rights away from it should it have any.
fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the stored identity could be read by other users; corrected");
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    // One allocation, so that no shorter copy of the key stays behind.
    let size = usize::try_from(meta.len().min(MAX_BYTES)).unwrap_or(0);
    let mut text = Zeroizing::new(String::with_capacity(size + 1));
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
