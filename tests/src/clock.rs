//! A process whose clock is wrong: the real binary, with the time of day that the test says, from one moment to the next.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::Result;

use crate::preload;

/// A clock that processes can be started with.
#[derive(Debug)]
pub struct Clock {
    directory: tempfile::TempDir,
    preload: String,
    offset: File,
}

impl Clock {
    /// A clock that is right so far. Needs a C compiler, as the build does.
    ///
    /// # Errors
    /// When the library that tells the time cannot be compiled.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("palisade-clock-").tempdir()?;
        let preload = preload::library(directory.path(), "clock", include_str!("clock.c"))?;
        let offset = File::create(directory.path().join("offset"))?;
        let clock = Self { directory, preload, offset };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets the clock of every process that has it to so many seconds before or after the time.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        Ok(self.offset.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }

    /// The command that starts a process with this clock (see [`crate::Palisade::start_by`]).
    pub fn command(&self) -> Vec<String> {
        let offset = self.directory.path().join("offset");
        vec!["env".to_owned(), self.preload.clone(), format!("PALISADE_TEST_CLOCK={}", offset.display())]
    }
}
