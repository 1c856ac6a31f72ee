//! Where a process really listens: with port 0 only the process knows, so it writes it down.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Bound addresses by role, in `addresses.json` of the process' state directory.
#[derive(Debug, Default)]
pub(crate) struct Addresses(BTreeMap<String, String>);

impl Addresses {
    /// Notes that `role` listens at `address`.
    pub(crate) fn note(&mut self, role: &str, address: SocketAddr) {
        self.0.insert(role.to_owned(), address.to_string());
    }

    /// Writes the file in one step, after everything is bound: who sees it can connect.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let path = Self::path(directory);
        let shown = || format!("cannot write {}", path.display());
        let mut file = tempfile::NamedTempFile::new_in(directory).with_context(shown)?;
        serde_json::to_writer_pretty(&mut file, &self.0).with_context(shown)?;
        file.write_all(b"\n").with_context(shown)?;
        file.persist(&path).with_context(shown)?;
        Ok(())
    }

    /// Removes the file: at start, so that a stale one cannot mislead, and at the end.
    pub(crate) fn clear(directory: &Path) {
        if let Err(error) = std::fs::remove_file(Self::path(directory))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %Self::path(directory).display(), "cannot remove the old address file");
        }
    }

    /// The file in `directory`.
    pub(crate) fn path(directory: &Path) -> PathBuf {
        directory.join("addresses.json")
    }
}
