//! `cargo xtask bench NAME`: release build, then the measuring program of the tests crate.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{pyenv, run};

/// What to measure and how to print it.
#[derive(Args)]
pub(crate) struct Options {
    /// Which benchmark.
    name: Name,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Of `identity` only the subscribers of an agent.
    #[arg(long)]
    streams_only: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// One decision, a compilation, one change: ours, a linear evaluator, Cedar, Envoy's RBAC filter.
    Authz,
    /// Certificates per CPU-second of the server, agents that start at once, subscribers of one agent.
    Identity,
    /// The proxy pair beside a direct connection: requests per second and per CPU-second, memory, start-up.
    Proxy,
}

/// Figures go to stdout; nothing is judged.
pub(crate) fn run(options: &Options) -> Result<()> {
    run::success(&mut run::cargo(&[
        "build",
        "--release",
        "--quiet",
        "--package",
        "palisade",
        "--package",
        "palisade-tests",
        "--bins",
    ]))?;
    let release = run::target_dir().join("release");
    let name = match options.name {
        Name::Authz => "authz",
        Name::Identity => "identity",
        Name::Proxy => "proxy",
    };
    let mut command = std::process::Command::new(release.join("palisade-bench"));
    command.arg(name).env("PALISADE_BIN", release.join("palisade")).current_dir(run::root());
    if matches!(options.name, Name::Authz) {
        match pyenv::ensure() {
            Ok(home) => _ = command.env("PALISADE_PYENV", home),
            Err(error) => eprintln!("xtask: no Python environment, Envoy is left out: {error:#}"),
        }
    }
    for (wanted, flag) in [(options.json, "--json"), (options.streams_only, "--streams-only")] {
        if wanted {
            command.arg(flag);
        }
    }
    run::success(&mut command)
}
