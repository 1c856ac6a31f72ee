//! Resident memory of a process, from the kernel.

use anyhow::{Context as _, Result};

/// Megabytes (10^6 bytes) resident in the process `pid`.
pub(super) fn resident_mb(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read the process' status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in the process' status")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is not a number")?;
    Ok(kib * 1024.0 / 1e6)
}
