//! The directory the authority lives in: what is there is either whole or absent, whenever the
//! process dies, and no key is read that somebody else could have read.
//!
//! A file is written under a temporary name, flushed, and only then given its name, by a link (which
//! never replaces: whoever comes second reads what the first one made) or a rename (which replaces).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

const VERSION_FILE: &str = "format-version";
const VERSION: u32 = 2;
const TEMPORARY: &str = ".tmp-";
/// Far above any key and certificate; a bound, so that a wrong file cannot fill memory.
const LARGEST_FILE: u64 = 256 * 1_024;

/// Why the directory, or a file in it, cannot be used. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The file system refused.
    #[error("cannot {action} `{}`: check that it is writable for uid {} and has room", .path.display(), rustix::process::geteuid().as_raw())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Files of somebody else, and no format version of ours.
    #[error("`{}` holds `{entry}` and no authority: name an empty directory", .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files in it.
        entry: String,
    },
    /// Made by a later release.
    #[error("`{}` says `{found}`, this release reads up to {VERSION}: use the newer release", .path.display())]
    Version {
        /// The format-version file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The directory can be written by others, who could replace the keys.
    #[error("`{}` can be written by others (mode {mode:04o}): run `chmod 700 {}`", .path.display(), .path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A key file can be read by others.
    #[error("`{}` can be read by others (mode {mode:04o}): replace its key, or run `chmod 600 {}` if nobody has", .path.display(), .path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Larger than any file of ours.
    #[error("`{}` is not a regular file of at most {LARGEST_FILE} bytes", .path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
}

/// An authority's directory, of a version this release reads.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Opens `path`, making it on first use; an empty directory is adopted and closed to others. Also returns the version of
    /// what is in it: an older one is for the caller to bring up to date, and then to [`upgrade`](Self::upgrade).
    pub(crate) fn open(path: &Path) -> Result<(Self, u32), DirectoryError> {
        let failed = |action| move |source| DirectoryError::Io { action, path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create"))?;
        let directory = Self { path: path.to_owned() };
        directory.clean(failed("read"))?;
        let version = match directory.read(VERSION_FILE)? {
            Some(text) => directory.check_version(&text)?,
            None => {
                directory.refuse_foreign(failed("read"))?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("chmod"))?;
                directory.create(VERSION_FILE, format!("{VERSION}\n").as_bytes())?;
                VERSION
            }
        };
        let mode = fs::metadata(path).map_err(failed("look at"))?.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(DirectoryError::Writable { path: path.to_owned(), mode });
        }
        Ok((directory, version))
    }

    /// Says that everything in the directory is of the present version now.
    pub(crate) fn upgrade(&self) -> Result<(), DirectoryError> {
        self.replace(VERSION_FILE, format!("{VERSION}\n").as_bytes())
    }

    /// Where `name` is kept.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The contents of a file only we can read; `None` if there is none.
    pub(crate) fn read_secret(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, DirectoryError> {
        let path = self.join(name);
        let Some(mode) = self.mode(&path)? else { return Ok(None) };
        if mode & 0o077 != 0 {
            return Err(DirectoryError::Exposed { path, mode });
        }
        self.read(name)
    }

    /// Makes `name` with `contents`, mode 0600; leaves it alone if it is already there.
    pub(crate) fn create(&self, name: &str, contents: &[u8]) -> Result<(), DirectoryError> {
        let (path, temporary) = (self.join(name), self.write_temporary(name, contents)?);
        let linked = match fs::hard_link(&temporary, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        let removed = fs::remove_file(&temporary);
        linked.and(removed).and_then(|()| self.sync()).map_err(|source| io_error("create", path, source))
    }

    /// Puts `contents` in the place of `name`, mode 0600, in one step.
    pub(crate) fn replace(&self, name: &str, contents: &[u8]) -> Result<(), DirectoryError> {
        let (path, temporary) = (self.join(name), self.write_temporary(name, contents)?);
        fs::rename(&temporary, &path).and_then(|()| self.sync()).map_err(|source| io_error("replace", path, source))
    }

    /// Removes `name` if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), DirectoryError> {
        let path = self.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| self.sync()).map_err(|source| io_error("remove", path, source)),
        }
    }

    /// Names of the files that were last changed so long ago.
    pub(crate) fn older_than(&self, age: Duration) -> Result<Vec<String>, DirectoryError> {
        let failed = |source| io_error("read", self.path.clone(), source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            // A time ahead of ours is no age.
            if modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|passed| passed >= age)) {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn write_temporary(&self, name: &str, contents: &[u8]) -> Result<PathBuf, DirectoryError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.join(&format!("{TEMPORARY}{}-{count}-{name}", std::process::id()));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(contents)?;
            file.sync_all()
        };
        match write() {
            Ok(()) => Ok(path),
            Err(source) => {
                // Half a file helps nobody, and the error that matters is the first one.
                drop(fs::remove_file(&path));
                Err(io_error("create", self.join(name), source))
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn mode(&self, path: &Path) -> Result<Option<u32>, DirectoryError> {
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() || metadata.len() > LARGEST_FILE => {
                Err(DirectoryError::NotOurs { path: path.to_owned() })
            }
            Ok(metadata) => Ok(Some(metadata.mode() & 0o7777)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error("look at", path.to_owned(), source)),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, DirectoryError> {
        let path = self.join(name);
        if self.mode(&path)?.is_none() {
            return Ok(None);
        }
        let mut contents = Zeroizing::new(Vec::with_capacity(4_096));
        File::open(&path)
            .and_then(|file| file.take(LARGEST_FILE).read_to_end(&mut contents))
            .map_err(|source| io_error("read", path, source))?;
        Ok(Some(contents))
    }

    fn check_version(&self, text: &[u8]) -> Result<u32, DirectoryError> {
        let found = String::from_utf8_lossy(text).trim().to_owned();
        match found.parse() {
            Ok(version @ 1..=VERSION) => Ok(version),
            _ => Err(DirectoryError::Version { path: self.join(VERSION_FILE), found }),
        }
    }

    fn refuse_foreign(&self, failed: impl Fn(io::Error) -> DirectoryError + Copy) -> Result<(), DirectoryError> {
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            // Another process may have adopted the directory since we looked.
            if !entry.starts_with(TEMPORARY) && entry != VERSION_FILE {
                return Err(DirectoryError::Foreign { path: self.path.clone(), entry });
            }
        }
        Ok(())
    }

    /// Removes what processes that no longer live were writing.
    fn clean(&self, failed: impl Fn(io::Error) -> DirectoryError + Copy) -> Result<(), DirectoryError> {
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(TEMPORARY) else { continue };
            let owner = rest.split_once('-').map_or(rest, |(pid, _)| pid);
            if !Path::new("/proc").join(owner).exists() {
                fs::remove_file(entry.path()).map_err(|source| io_error("remove", entry.path(), source))?;
            }
        }
        Ok(())
    }
}

fn io_error(action: &'static str, path: PathBuf, source: io::Error) -> DirectoryError {
    DirectoryError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn trap_36_first_use_makes_it_private_and_versioned() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state/ca");
        let directory = Directory::open(&path).unwrap().0;
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        directory.create("key", b"one").unwrap();
        directory.create("key", b"two").unwrap();
        assert_eq!(**directory.read_secret("key").unwrap().unwrap(), *b"one", "create never replaces");
        directory.replace("key", b"three").unwrap();
        let again = Directory::open(&path).unwrap().0;
        assert_eq!(**again.read_secret("key").unwrap().unwrap(), *b"three");
        assert_eq!(fs::metadata(path.join("key")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(names(&path), ["format-version", "key"], "no temporary file is left");
        assert!(again.read_secret("absent").unwrap().is_none());
    }

    #[test]
    fn leftovers_of_the_dead_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        // No process has this number: it is above the kernel's highest.
        fs::write(dir.path().join(".tmp-4194305-0-root.pem"), "half").unwrap();
        let mine = format!(".tmp-{}-99-x", std::process::id());
        fs::write(dir.path().join(&mine), "in progress").unwrap();
        Directory::open(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [mine.as_str(), "format-version"]);
    }

    #[test]
    fn foreign_newer_and_open_directories_are_refused_by_name() {
        let foreign = tempfile::tempdir().unwrap();
        fs::write(foreign.path().join("thesis.txt"), "").unwrap();
        let error = Directory::open(foreign.path()).unwrap_err().to_string();
        assert!(error.contains("thesis.txt") && error.contains("empty directory"), "{error}");

        let newer = tempfile::tempdir().unwrap();
        fs::write(newer.path().join(VERSION_FILE), "3\n").unwrap();
        let error = Directory::open(newer.path()).unwrap_err().to_string();
        assert!(error.contains("format-version") && error.contains("`3`"), "{error}");

        let open = tempfile::tempdir().unwrap();
        Directory::open(open.path()).unwrap();
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let error = Directory::open(open.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn trap_36_a_key_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap().0;
        directory.create("key", b"secret").unwrap();
        for mode in [0o640, 0o604, 0o666] {
            fs::set_permissions(dir.path().join("key"), fs::Permissions::from_mode(mode)).unwrap();
            let error = directory.read_secret("key").unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains("key`"), "{error}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_a_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Directory::open(&file.join("ca")).unwrap_err();
        assert!(matches!(&error, DirectoryError::Io { action: "create", .. }), "{error}");
        assert!(error.to_string().contains("file/ca"), "{error}");
    }
}
