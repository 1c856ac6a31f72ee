#![doc = include_str!("../README.md")]
#![expect(clippy::print_stdout, reason = "the runner's output and the counts are this program's data")]

mod bench;
mod check;
mod ci;
mod conformance;
mod deny;
mod fuzz;
mod golang;
mod pyenv;
mod run;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Repository chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check layers, lints, dependency versions and file sizes.
    Check,
    /// Run every test, installing what the tests need under target/.
    Test(test::Options),
    /// What continuous integration runs: fmt, check, deny, clippy, docs, test.
    Ci,
    /// Decide random policies and requests beside a real Envoy.
    Conformance(conformance::Options),
    /// Run the fuzz targets for a while, starting from the kept corpus.
    Fuzz(fuzz::Options),
    /// Measure: prints figures, judges nothing.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().chore {
        Chore::Check => check::run(),
        Chore::Test(options) => test::run(&options),
        Chore::Ci => ci::run(),
        Chore::Conformance(options) => conformance::run(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Bench(options) => bench::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
