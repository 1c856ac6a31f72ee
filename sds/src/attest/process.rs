//! One process, held so that what is read is its own.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use palisade_wire::UnixCaller;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Bounds what is read of a file below `/proc`.
const MAX_PROC: u64 = 64 * 1024;

/// Why a process cannot be attested.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// It lives in a process namespace that cannot be seen from here, so nothing about it can be checked.
    #[error("it is not visible from the agent's process namespace")]
    Hidden,
    /// It has ended.
    #[error("process {0} has ended")]
    Gone(i32),
    /// Its number belongs to another process now.
    #[error("process {0} is not the one that connected: the number was given away again")]
    Recycled(i32),
    /// It runs as somebody else than it connected as.
    #[error("process {pid} connected as user {connected} and runs as user {now}")]
    UserChanged {
        /// Its number.
        pid: i32,
        /// The effective user when it connected.
        connected: u32,
        /// The effective user now.
        now: u32,
    },
    /// The system's description of it cannot be read.
    #[error("`/proc/{pid}/{name}` cannot be read")]
    Unreadable {
        /// Its number.
        pid: i32,
        /// Which file.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A process' directory below `/proc`. The kernel binds it to the process itself: once that has ended, nothing can be read through
/// it, even if the number is in use again.
pub(super) struct Process {
    pub(super) caller: UnixCaller,
    dir: OwnedFd,
}

impl Process {
    /// Takes hold of the process that connected, and makes sure that it is that one.
    pub(super) fn open(caller: UnixCaller) -> Result<Self, ProcessError> {
        let process = Self::hold(caller)?;
        process.check()?;
        Ok(process)
    }

    /// Takes hold of whoever has the number.
    fn hold(caller: UnixCaller) -> Result<Self, ProcessError> {
        let pid = caller.pid;
        if pid <= 0 {
            return Err(ProcessError::Hidden);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())
            .map_err(|error| failed(pid, ".", error.into()))?;
        Ok(Self { caller, dir })
    }

    /// Is it still the process that connected, alive, and the same user? Asked before and after everything else is read.
    pub(super) fn check(&self) -> Result<(), ProcessError> {
        let (pid, connected) = (self.caller.pid, self.caller.uid);
        let expected = self.caller.started.ok_or(ProcessError::Gone(pid))?;
        let stat = self.read("stat")?;
        let (state, started) = state_and_start(&stat).ok_or(ProcessError::Gone(pid))?;
        if started != expected {
            return Err(ProcessError::Recycled(pid));
        }
        if matches!(state, "Z" | "X") {
            return Err(ProcessError::Gone(pid));
        }
        match self.status_numbers("Uid:")?.get(1) {
            Some(now) if *now == connected => Ok(()),
            Some(now) => Err(ProcessError::UserChanged { pid, connected, now: *now }),
            None => Err(ProcessError::Gone(pid)),
        }
    }

    /// The numbers of one line of its status.
    pub(super) fn status_numbers(&self, line: &str) -> Result<Vec<u32>, ProcessError> {
        let status = self.read("status")?;
        let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_default();
        Ok(found.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect())
    }

    /// A small text file of the process.
    pub(super) fn read(&self, name: &'static str) -> Result<String, ProcessError> {
        let mut bytes = Vec::new();
        self.file(name)
            .and_then(|file| file.take(MAX_PROC).read_to_end(&mut bytes))
            .map_err(|error| failed(self.caller.pid, name, error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Opens a file of the process; for `exe` that is the binary itself, whatever its path leads to by now.
    pub(super) fn file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::openat(&self.dir, name, flags, Mode::empty())?))
    }

    /// Where a link of the process leads.
    pub(super) fn link(&self, name: &str) -> io::Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let target = rustix::fs::readlinkat(&self.dir, name, Vec::new())?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes())))
    }

    /// Can the agent see where that link leads? False also for a process that hides behind other rights.
    pub(super) fn shares(&self, namespace: &str) -> bool {
        let stat = |dir: &dyn std::os::fd::AsFd, name: &str| rustix::fs::statat(dir.as_fd(), name, AtFlags::empty());
        match (stat(&self.dir, namespace), stat(&CWD, &format!("/proc/self/{namespace}"))) {
            (Ok(theirs), Ok(ours)) => (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino),
            _ => false,
        }
    }
}

/// The process that has a number now, as if it had connected.
pub(super) fn by_number(pid: i32) -> Result<UnixCaller, ProcessError> {
    if pid <= 0 {
        return Err(ProcessError::Hidden);
    }
    let process = Process::hold(UnixCaller { pid, uid: 0, gid: 0, started: None })?;
    let effective = |line| Ok(process.status_numbers(line)?.get(1).copied());
    let (uid, gid) = (effective("Uid:")?, effective("Gid:")?);
    let (uid, gid) = uid.zip(gid).ok_or(ProcessError::Gone(pid))?;
    let started = state_and_start(&process.read("stat")?).map(|(_, started)| started);
    Ok(UnixCaller { pid, uid, gid, started })
}

/// A process that ended while it was read is no unreadable file.
fn failed(pid: i32, name: &'static str, source: io::Error) -> ProcessError {
    match Errno::from_io_error(&source) {
        Some(Errno::NOENT | Errno::SRCH) => ProcessError::Gone(pid),
        _ => ProcessError::Unreadable { pid, name, source },
    }
}

/// Fields 3 and 22 of `stat` (proc_pid_stat(5)); the name in field 2 may hold anything.
fn state_and_start(stat: &str) -> Option<(&str, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}
