//! Waiting for a condition, never for a time: every wait is bounded and a failed one tells the last state it saw.

use std::fmt::Debug;
use std::future::Future;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Longest wait for anything that should happen at once: generous, because machines are shared.
const BOUND: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(5);

/// Calls `probe` until it answers `Ok`, then returns the value.
///
/// # Panics
/// After 30 seconds, with `what` and the last `Err`.
pub fn poll<T, E: Debug>(what: &str, probe: impl FnMut() -> Result<T, E>) -> T {
    poll_for(BOUND, what, probe)
}

/// As [`poll`], for what takes its time by its nature: the end of a certificate, for one.
///
/// # Panics
/// After `bound`, with `what` and the last `Err`.
#[expect(clippy::panic, reason = "a test that waited in vain has failed")]
pub fn poll_for<T, E: Debug>(bound: Duration, what: &str, mut probe: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(state) if Instant::now() >= deadline => panic!("waited for {what} in vain; last state: {state:?}"),
            Err(_) => std::thread::sleep(STEP),
        }
    }
}

/// As [`poll`], for a probe that must itself wait.
///
/// # Panics
/// After 30 seconds, with `what` and the last `Err`.
#[expect(clippy::panic, reason = "a test that waited in vain has failed")]
pub async fn poll_async<T, E: Debug, F: Future<Output = Result<T, E>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(state) if Instant::now() >= deadline => panic!("waited for {what} in vain; last state: {state:?}"),
            Err(_) => tokio::time::sleep(STEP).await,
        }
    }
}

/// Says that `test` did not run, and why: in the file that `cargo xtask test` counts, or on stderr.
pub fn skip(test: &str, reason: &str) {
    let line = format!("{test}: {reason}\n");
    let file = std::env::var_os("PALISADE_SKIPS")
        .and_then(|path| std::fs::OpenOptions::new().create(true).append(true).open(path).ok());
    // Past the test runner's capture: a skip that nobody sees would be a silent pass.
    let written = match file {
        Some(mut file) => file.write_all(line.as_bytes()),
        None => std::io::stderr().write_all(format!("SKIP {line}").as_bytes()),
    };
    drop(written);
}
