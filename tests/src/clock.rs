//! A process whose clock is wrong: the real binary, with the time of day that the test says, from one moment to the next.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A clock that processes can be started with.
#[derive(Debug)]
pub struct Clock {
    directory: tempfile::TempDir,
    offset: File,
}

impl Clock {
    /// A clock that is right so far. Needs a C compiler, as the build does.
    ///
    /// # Errors
    /// When the library that tells the time cannot be compiled.
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("palisade-clock-").tempdir()?;
        let (source, library) = (directory.path().join("clock.c"), directory.path().join("clock.so"));
        fs::write(&source, include_str!("clock.c"))?;
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let made = Command::new(&compiler).args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).output();
        let made = made.with_context(|| format!("cannot run {}", compiler.display()))?;
        ensure!(made.status.success(), "clock.c: {}", String::from_utf8_lossy(&made.stderr));
        let offset = File::create(directory.path().join("offset"))?;
        let clock = Self { directory, offset };
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
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let preload = format!("LD_PRELOAD={}", path("clock.so"));
        vec!["env".to_owned(), preload, format!("PALISADE_TEST_CLOCK={}", path("offset"))]
    }
}
