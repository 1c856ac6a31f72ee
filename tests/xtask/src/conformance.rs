//! `cargo xtask conformance`: random policies and requests, decided by the engine and by a real Envoy.

use anyhow::Result;
use clap::Args;

use crate::{pyenv, run};

/// From this many cases on an optimised build pays for itself.
const MANY: usize = 200_000;

/// How much, and what.
#[derive(Args)]
pub(crate) struct Options {
    /// Requests to decide.
    #[arg(long, default_value_t = 20_000)]
    cases: usize,
    /// What the cases are made from; a fresh one, which is printed, where none is given.
    #[arg(long)]
    seed: Option<u64>,
}

/// Prints every disagreement as a small reproducer; the last line counts. Fails where there is one.
pub(crate) fn run(options: &Options) -> Result<()> {
    let home = pyenv::ensure()?;
    let profile = if options.cases < MANY { "debug" } else { "release" };
    let mut build = run::cargo(&["build", "--quiet", "--package", "palisade-tests", "--bin", "palisade-conformance"]);
    if profile == "release" {
        build.arg("--release");
    }
    run::success(&mut build)?;
    let program = run::target_dir().join(profile).join("palisade-conformance");
    let mut command = std::process::Command::new(program);
    command.arg("--cases").arg(options.cases.to_string()).env("PALISADE_PYENV", home).current_dir(run::root());
    if let Some(seed) = options.seed {
        command.arg("--seed").arg(seed.to_string());
    }
    run::success(&mut command)
}
