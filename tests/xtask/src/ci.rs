//! `cargo xtask ci`: the same on a laptop and in continuous integration, cheapest step first.

use anyhow::Result;

use crate::{check, deny, fuzz, run, test};

/// Seconds that every fuzz target gets.
const FUZZ_SECONDS: u32 = 30;

/// Format, architecture, licences and bans, lints, documentation, tests, fuzz targets.
pub(crate) fn run() -> Result<()> {
    run::success(&mut run::cargo(&["fmt", "--all", "--check"]))?;
    check::run()?;
    deny::run()?;
    run::success(&mut run::cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    let mut documentation = run::cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
    run::success(documentation.env("RUSTDOCFLAGS", "-D warnings"))?;
    test::run(&test::Options { forbid_skips: true, filter: None })?;
    if !fuzz::possible() {
        eprintln!("skipped: the fuzz targets: libFuzzer needs a C++ compiler, there is none");
        return Ok(());
    }
    fuzz::run(&fuzz::Options::all(FUZZ_SECONDS))
}
