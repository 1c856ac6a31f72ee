//! The program behind `cargo xtask conformance`.

#![expect(clippy::print_stdout, reason = "reproducers and counts are this program's data")]

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use palisade_tests::conformance::dice::Dice;
use palisade_tests::conformance::run::{Options, run};
use palisade_tests::envoy;

fn main() -> ExitCode {
    match conformance() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("palisade-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn conformance() -> Result<ExitCode> {
    let mut options = Options { cases: 20_000, seed: Dice::fresh_seed() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--cases" => options.cases = value.parse().context("--cases")?,
            "--seed" => options.seed = value.parse().context("--seed")?,
            other => bail!("unknown argument {other}"),
        }
    }
    let binary = envoy::binary().context("no Envoy: PALISADE_PYENV does not name an environment that has it")?;
    println!("seed {}", options.seed);
    let summary = run(&binary, options, &mut |text| println!("{text}"))?;
    if summary.workloads > 0 {
        println!("{} workloads with disagreements, of which the first are shown", summary.workloads);
    }
    for (outcome, count) in &summary.outcomes {
        println!("{count:>9}  {outcome}");
    }
    let times = summary.times;
    let [generate, envoy, ours] = [times.generate, times.envoy, times.ours].map(|time| time.as_secs_f64());
    println!("{generate:.1} s to make cases up, {envoy:.1} s for Envoy, {ours:.1} s for the engine");
    println!("{summary}");
    Ok(if summary.disagreements == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
