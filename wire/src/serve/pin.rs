//! Which process is at the other end of a Unix socket, beyond its number.
//!
//! The number in `SO_PEERCRED` may belong to somebody else by the time it is looked at. So the process is held by a descriptor
//! while its start time is read, and the descriptor is let go: number and start time together are never given twice.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process' line of statistics is far shorter.
const MAX_STAT: u64 = 4_096;

/// The start of the peer's process in clock ticks; `None` if it is gone or cannot be seen.
pub(super) fn started(socket: &impl AsFd, pid: i32) -> Option<u64> {
    let held = hold(socket, pid)?;
    let started = read_start(pid)?;
    // It lives still, so what was read under its number is its own.
    is_alive(&held).then_some(started)
}

/// Linux 6.5 names the very process that connected. Older kernels have its number only: whoever has that now is held, and a
/// process that took the number over between connecting and accepting cannot be told apart there.
fn hold(socket: &impl AsFd, pid: i32) -> Option<OwnedFd> {
    match getsockopt(socket, sockopt::PeerPidfd) {
        Ok(held) => Some(held),
        Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok(),
        Err(_) => None,
    }
}

/// Such a descriptor can be read from when its process has ended.
fn is_alive(held: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(held, PollFlags::IN)];
    poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
}

fn read_start(pid: i32) -> Option<u64> {
    let mut text = Vec::new();
    File::open(format!("/proc/{pid}/stat")).ok()?.take(MAX_STAT).read_to_end(&mut text).ok()?;
    start_of(&String::from_utf8_lossy(&text))
}

/// Field 22 of `/proc/<pid>/stat` (proc_pid_stat(5)). The name in field 2 may hold anything, parentheses and spaces too.
fn start_of(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_start_stands_behind_a_name_that_may_hold_anything() {
        let rest: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("17 (a) b) 9 (x) {}", rest.join(" "));
        assert_eq!(start_of(&stat), Some(22));
        for short in ["", "17 (a", "17 (a) S 1"] {
            assert_eq!(start_of(short), None, "{short}");
        }
    }

    #[test]
    fn a_living_peer_has_a_start() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(started(&ours, own), read_start(own));
        assert!(started(&ours, own).is_some());
        assert_eq!(started(&ours, i32::MAX), None, "its number says somebody else");
    }

    /// A process connects, gives its end to a child and ends: the connection lives, the process does not.
    #[test]
    fn trap_34_a_peer_that_has_ended_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let script = "import os, socket, sys\n\
             s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
             if os.fork(): os._exit(0)\n\
             sys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(&path).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let holder = child.stdin.take();
        let (connection, _) = listener.accept().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert_eq!(started(&connection, pid), None);
        drop(holder);
    }
}
