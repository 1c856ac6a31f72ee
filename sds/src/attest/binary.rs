//! Hashes of binaries, each read once.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest;

/// Larger binaries are not hashed: any local user could keep the agent reading.
pub(super) const MAX_BINARY: u64 = 256 * 1024 * 1024;
const MAX_KNOWN: usize = 1024;
const CHUNK: usize = 64 * 1024;
/// A file system whose answers come from a process, which may never give one (statfs(2)).
const FUSE: i64 = 0x6573_5546;

/// Hashes by what identifies a file's content. The time of change cannot be set back by whoever writes the file.
#[derive(Debug, Default)]
pub(super) struct Binaries {
    known: Mutex<HashMap<Content, String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Content {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Content {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Binaries {
    /// SHA-256 in lower-case hex, or why there is none.
    pub(super) fn sha256(&self, file: File) -> Result<String, String> {
        let meta = file.metadata().map_err(|error| error.to_string())?;
        let content = Content::of(&meta);
        if let Some(hash) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&content) {
            return Ok(hash.clone());
        }
        if !meta.is_file() || content.size > MAX_BINARY {
            return Err(format!("its binary has {} bytes, at most {MAX_BINARY} are hashed", content.size));
        }
        if rustix::fs::fstatfs(&file).is_ok_and(|system| system.f_type == FUSE) {
            return Err("its binary is on a file system that another process answers for".to_owned());
        }
        let hash = hash(&file).map_err(|error| format!("its binary cannot be read: {error}"))?;
        if file.metadata().map(|meta| Content::of(&meta)).ok() != Some(content) {
            return Err("its binary was changed while it was read".to_owned());
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(content, hash.clone());
        Ok(hash)
    }
}

fn hash(file: &File) -> io::Result<String> {
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut bounded, mut chunk) = (file.take(MAX_BINARY), vec![0; CHUNK]);
    loop {
        let read = bounded.read(&mut chunk)?;
        if read == 0 {
            return Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        context.update(chunk.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_read_once_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app");
        std::fs::write(&path, "abc").unwrap();
        let binaries = Binaries::default();
        let hash = || binaries.sha256(File::open(&path).unwrap()).unwrap();
        assert_eq!(hash(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        hash();
        assert_eq!(binaries.known.lock().unwrap().len(), 1);
        std::fs::write(&path, "abd").unwrap();
        assert_eq!(hash(), "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9");
    }

    #[test]
    fn a_huge_binary_is_not_read() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MAX_BINARY + 1).unwrap();
        let why = Binaries::default().sha256(file).unwrap_err();
        assert!(why.contains("at most"), "{why}");
    }
}
