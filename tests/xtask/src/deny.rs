//! Licences, banned crates and sources, by cargo-deny and without a network: the advisory database is not asked.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::run;

const VERSION: &str = "0.20.2";

/// Installs cargo-deny under `target/tools` where the machine has none, then runs the offline checks.
pub(crate) fn run() -> Result<()> {
    let tools = run::target_dir().join("tools");
    let own = tools.join("bin/cargo-deny");
    let program = if answers("cargo-deny") { "cargo-deny".into() } else { own.clone() };
    if program == own && !own.exists() {
        let mut install = run::cargo(&["install", "--quiet", "--locked", "--version", VERSION, "cargo-deny", "--root"]);
        run::success(install.arg(&tools))?;
    }
    // cargo-deny reads every crate of the lock file, also those for other platforms, from cargo's cache. Without a
    // network the cache is what there is.
    if let Err(error) = run::success(&mut run::cargo(&["fetch", "--locked", "--quiet"])) {
        eprintln!("deny: {error:#}; going on with what is cached");
    }
    let mut check = Command::new(program);
    check.args(["--offline", "check", "licenses", "bans", "sources"]).current_dir(run::root());
    run::success(&mut check)
}

fn answers(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}
