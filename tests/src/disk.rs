//! A process whose disk is slow: the real binary, with flushes of one SQLite database that wait until the test lets them pass.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use anyhow::Result;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::preload;

/// More flushes than any test lives to see.
const ALL: u64 = u64::MAX;

/// A disk that a process can be started with.
#[derive(Debug)]
pub struct Disk {
    directory: tempfile::TempDir,
    preload: String,
    database: String,
    numbers: File,
    wake: File,
}

impl Disk {
    /// A disk that is fast so far, for the database in files of this name. Needs a C compiler, as the build does.
    ///
    /// # Errors
    /// When the library that flushes cannot be compiled.
    pub fn new(database: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("palisade-disk-").tempdir()?;
        let preload = preload::library(directory.path(), "disk", include_str!("disk.c"))?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("numbers"), [0; 32])?;
        mknodat(CWD, path("wake"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let open = |name| File::options().read(true).write(true).open(path(name));
        let (numbers, wake) = (open("numbers")?, open("wake")?);
        let disk = Self { directory, preload, database: format!("/{database}"), numbers, wake };
        disk.allow(ALL)?;
        Ok(disk)
    }

    /// The command that starts a process with this disk (see [`crate::Palisade::start_by`]).
    pub fn command(&self) -> Vec<String> {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        vec![
            "env".to_owned(),
            self.preload.clone(),
            format!("PALISADE_TEST_DISK={}", path("numbers")),
            format!("PALISADE_TEST_DISK_WAKE={}", path("wake")),
            format!("PALISADE_TEST_DISK_DATABASE={}", self.database),
        ]
    }

    /// From now on a flush of the database's log, by which transactions become durable, waits.
    ///
    /// # Errors
    /// When the numbers cannot be read or written.
    pub fn block(&self) -> Result<()> {
        self.allow(self.begun()?)
    }

    /// Lets one flush pass: the one that waits, or the next.
    ///
    /// # Errors
    /// As [`Disk::block`].
    pub fn pass(&self) -> Result<()> {
        self.allow(self.number(0)?.saturating_add(1))
    }

    /// Lets all pass, as at first.
    ///
    /// # Errors
    /// As [`Disk::block`].
    pub fn open(&self) -> Result<()> {
        self.allow(ALL)
    }

    /// Flushes of the log so far, with those that wait.
    ///
    /// # Errors
    /// As [`Disk::block`].
    pub fn begun(&self) -> Result<u64> {
        self.number(1)
    }

    /// Flushes of the log that are done.
    ///
    /// # Errors
    /// As [`Disk::block`].
    pub fn done(&self) -> Result<u64> {
        self.number(2)
    }

    /// How often the log was moved into the database.
    ///
    /// # Errors
    /// As [`Disk::block`].
    pub fn moved(&self) -> Result<u64> {
        self.number(3)
    }

    fn allow(&self, flushes: u64) -> Result<()> {
        self.numbers.write_all_at(&flushes.to_ne_bytes(), 0)?;
        // Whoever waits looks again; what nobody reads wakes somebody later, who looks and waits on.
        Ok((&self.wake).write_all(&[0; 4])?)
    }

    fn number(&self, at: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.numbers.read_exact_at(&mut bytes, at * 8)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
