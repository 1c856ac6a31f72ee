//! The real binary as a child: started, watched, stopped or killed, never left behind.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};

use crate::poll;

/// The `palisade` binary: `PALISADE_BIN`, else the one beside the running test.
///
/// # Panics
/// When there is none, naming the command that builds it.
#[expect(clippy::panic, reason = "without the binary no test of this crate can run")]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PALISADE_BIN") {
        return path.into();
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("palisade")));
    match beside {
        Some(path) if path.exists() => path,
        other => panic!("no palisade binary at {other:?}: run `cargo build --bin palisade`, or set PALISADE_BIN"),
    }
}

/// What a run of the binary left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Everything on stdout.
    pub stdout: String,
    /// Everything on stderr.
    pub stderr: String,
}

/// Runs the binary to its end with `input` on its stdin; a run that does not end by itself fails the test.
///
/// # Errors
/// When it cannot be started.
///
/// # Panics
/// When it does not end.
pub fn run(arguments: &[&str], input: &str) -> Result<Finished> {
    // Files, not pipes: nobody has to read while it writes.
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("in"), input)?;
    let child = Command::new(binary())
        .args(arguments)
        .stdin(File::open(path("in"))?)
        .stdout(File::create(path("out"))?)
        .stderr(File::create(path("err"))?)
        .spawn()
        .context("cannot start palisade")?;
    let code = Palisade { child, log: path("err") }.ended().code();
    let read = |name: &str| Ok::<_, anyhow::Error>(String::from_utf8_lossy(&std::fs::read(path(name))?).into_owned());
    Ok(Finished { code, stdout: read("out")?, stderr: read("err")? })
}

/// A running `palisade` process; killed when dropped.
#[derive(Debug)]
pub struct Palisade {
    child: Child,
    log: PathBuf,
}

impl Palisade {
    /// Starts the binary; its stderr goes to `log`, appended.
    ///
    /// # Errors
    /// When the log cannot be opened or the binary cannot be started.
    pub fn start(arguments: &[&str], log: &Path) -> Result<Self> {
        Self::start_by(&[], arguments, log)
    }

    /// [`Palisade::start`] by another command that is told binary and arguments and becomes it: `env`, or a shell that ends with `exec`.
    ///
    /// # Errors
    /// As [`Palisade::start`].
    pub fn start_by(command: &[String], arguments: &[&str], log: &Path) -> Result<Self> {
        let stderr = File::options().create(true).append(true).open(log).context("cannot open the log")?;
        let words: Vec<OsString> = command.iter().map(OsString::from).chain([binary().into()]).collect();
        let (first, rest) = words.split_first().context("no command")?;
        let child = Command::new(first)
            .args(rest)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .context("cannot start palisade")?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    /// [`Palisade::start`] with its stdout in a file, more variables, and the log's directory as the current one.
    ///
    /// # Errors
    /// As [`Palisade::start`].
    pub fn start_in(arguments: &[&str], log: &Path, stdout: &Path, variables: &[(&str, &Path)]) -> Result<Self> {
        let stderr = File::options().create(true).append(true).open(log).context("cannot open the log")?;
        let child = Command::new(binary())
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(log.parent().context("the log has no directory")?)
            .stdin(Stdio::null())
            .stdout(File::create(stdout).context("cannot open the output")?)
            .stderr(stderr)
            .spawn()
            .context("cannot start palisade")?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process wrote on stderr so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for `addresses.json` in `directory` and returns the bound addresses by role.
    ///
    /// # Panics
    /// When the process ends first or the wait is in vain; the log is part of the message.
    pub fn addresses(&mut self, directory: &Path) -> BTreeMap<String, SocketAddr> {
        let found = poll("addresses.json", || match self.try_addresses(directory) {
            Err(error) if matches!(self.child.try_wait(), Ok(Some(_))) => Ok(Err(error)),
            other => other.map(Ok),
        });
        #[expect(clippy::panic, reason = "a process that has ended will never listen")]
        found.unwrap_or_else(|error| panic!("the process has ended: {error:#}"))
    }

    fn try_addresses(&mut self, directory: &Path) -> Result<BTreeMap<String, SocketAddr>> {
        let read = || -> Result<BTreeMap<String, SocketAddr>> {
            Ok(serde_json::from_slice(&std::fs::read(directory.join("addresses.json"))?)?)
        };
        read().map_err(|error| {
            let state = self.child.try_wait();
            anyhow!("{error:#}; process: {state:?}; log:\n{}", self.log())
        })
    }

    /// Kills without a warning, as a crash would.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub fn kill_9(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Asks the process to end and waits for it.
    ///
    /// # Errors
    /// When it cannot be signalled.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        Ok(self.ended())
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not end; the log is part of the message.
    pub fn ended(&mut self) -> ExitStatus {
        poll("the process to end", || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}; log:\n{}", self.log())),
        })
    }
}

impl Drop for Palisade {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
