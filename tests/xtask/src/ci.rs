//! `cargo xtask ci`: the same on a laptop and in continuous integration, cheapest step first.

use anyhow::Result;

use crate::{check, deny, run, test};

/// Format, architecture, licences and bans, lints, documentation, tests.
pub(crate) fn run() -> Result<()> {
    run::success(&mut run::cargo(&["fmt", "--all", "--check"]))?;
    check::run()?;
    deny::run()?;
    run::success(&mut run::cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    let mut documentation = run::cargo(&["doc", "--workspace", "--no-deps", "--quiet"]);
    run::success(documentation.env("RUSTDOCFLAGS", "-D warnings"))?;
    test::run(&test::Options { forbid_skips: true, filter: None })
}
