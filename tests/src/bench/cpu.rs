//! CPU time and memory of another process, from the kernel's own accounting; and who runs on which core.

use anyhow::{Context as _, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// User and system seconds that the process has used so far (granularity: one clock tick, 10 ms).
///
/// # Errors
/// When the process is gone.
pub fn seconds(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process is gone")?;
    // The name in parentheses may hold spaces; the fields after it are counted from the closing one.
    let (_, rest) = text.rsplit_once(')').context("unexpected /proc/PID/stat")?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || -> Result<f64> { Ok(fields.next().context("short /proc/PID/stat")?.parse()?) };
    Ok((ticks()? + ticks()?) / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident megabytes (10^6 bytes).
///
/// # Errors
/// When the process is gone.
pub fn resident_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmRSS:")
}

fn status_mb(pid: u32, key: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// The most that the process ever had resident, megabytes (10^6 bytes).
///
/// # Errors
/// When the process is gone.
pub fn peak_mb(pid: u32) -> Result<f64> {
    status_mb(pid, "VmHWM:")
}

/// Whether load and server can have a core each.
///
/// # Errors
/// When the system does not say how many there are.
pub fn two() -> Result<bool> {
    Ok(std::thread::available_parallelism()?.get() > 1)
}

/// Keeps this process' calling thread, and threads it starts later, on one core.
///
/// # Errors
/// When the system refuses.
pub fn pin_self(core: usize) -> Result<()> {
    sched_setaffinity(None, &only(core)).context("cannot pin the load to its core")
}

/// Keeps another process on one core: threads that exist get it, threads they start later inherit it.
///
/// # Errors
/// When the process is gone.
pub fn pin(pid: u32, core: usize) -> Result<()> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread: i32 = task?.file_name().to_string_lossy().parse()?;
        // A thread that ended in the meantime needs no core.
        let _ = sched_setaffinity(Pid::from_raw(thread), &only(core));
    }
    Ok(())
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}
