//! CPU time and memory of another process, from the kernel's own accounting.

use anyhow::{Context as _, Result};

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
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process is gone")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}
