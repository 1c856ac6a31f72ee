//! Cleans up after a demo that could not do it itself: `kill -9` of the story-teller must leave nothing behind either.
//!
//! The janitor is a child that outlives the demo. It reads the demo's process group from its standard input, then waits
//! for the end of that pipe, which the kernel closes however the demo dies.

use std::io::BufRead as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::exit::Exit;

/// How long the processes get to end by themselves.
const GRACE: Duration = Duration::from_secs(3);

/// What to clean.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Removed at the end.
    #[arg(long)]
    remove: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<Exit> {
    let mut group = None;
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        group = line.trim().parse().ok().and_then(Pid::from_raw).or(group);
    }
    if let Some(group) = group {
        end(group);
    }
    if let Some(directory) = &options.remove
        && directory.exists()
    {
        std::fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(Exit::Done)
}

/// Asks the whole group to end, waits, then insists. An error means that nobody is left.
fn end(group: Pid) {
    if kill_process_group(group, Signal::TERM).is_err() {
        return;
    }
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline {
        if test_kill_process_group(group).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // Nobody left in the meantime is the good case.
    let _ = kill_process_group(group, Signal::KILL);
}
