//! What this disk needs to make one batch of records durable: the share of a latency that is not ours.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

const ROUNDS: u32 = 1_000;
/// About what the log of the store grows by with a batch.
const PAGES: [u8; 16 * 1_024] = [0x5a; 16 * 1_024];
/// The file is written over from its beginning after so many batches, as the log is.
const TURN: u32 = 400;

/// Seconds of each write with its flush, sorted.
///
/// # Errors
/// When the disk refuses.
pub(super) fn measure(dir: &Path) -> Result<Vec<f64>> {
    let file = File::create(dir.join("flush"))?;
    file.set_len(u64::from(TURN) * PAGES.len() as u64)?;
    file.sync_all()?;
    let mut seconds = Vec::new();
    for round in 0..ROUNDS {
        let begin = Instant::now();
        file.write_all_at(&PAGES, u64::from(round % TURN) * PAGES.len() as u64)?;
        file.sync_data()?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.sort_unstable_by(f64::total_cmp);
    Ok(seconds)
}
