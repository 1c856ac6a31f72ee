//! `cargo xtask test`: everything, with what the tests need installed first, and skips that are counted.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{golang, pyenv, run};

/// Peers that no registry has: a test of theirs may skip where its variable is not set.
const GATED: &[&str] = &["ZTUNNEL_BIN", "KUBEBUILDER_ASSETS", "ISTIO_SRC"];

/// What to run.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Fail when a test skips for another reason than a peer that only a variable can name.
    #[arg(long)]
    pub(crate) forbid_skips: bool,
    /// Only tests whose name contains this.
    pub(crate) filter: Option<String>,
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

/// Builds, runs and prints `N passed, N failed, N skipped` as the last line.
pub(crate) fn run(options: &Options) -> Result<()> {
    let skips = run::target_dir().join("skips.txt");
    fs::create_dir_all(run::target_dir())?;
    fs::write(&skips, "")?;
    let home = pyenv::ensure().inspect_err(|error| {
        eprintln!("xtask: no Python environment, the interop tests will skip: {error:#}");
    });
    let go = home.as_ref().ok().and_then(|home| {
        golang::ensure(home).inspect_err(|error| eprintln!("xtask: no Go peer, its tests will skip: {error:#}")).ok()
    });
    // The end-to-end tests start the real binary.
    run::success(&mut run::cargo(&["build", "--workspace", "--bins", "--quiet"]))?;
    let mut command = run::cargo(&["test", "--workspace", "--no-fail-fast"]);
    command.env("PALISADE_SKIPS", &skips).env("PALISADE_BIN", run::target_dir().join("debug/palisade"));
    if let Ok(home) = &home {
        command.env("PALISADE_PYENV", home);
    }
    if let Some(go) = &go {
        command.env("PALISADE_INTEROP_GO", go);
    }
    command.args(options.filter.iter());
    let (counts, success) = stream(&mut command)?;
    let skipped = report_skips(&skips)?;
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, skipped.total + counts.ignored);
    if !success || counts.failed > 0 {
        bail!("tests failed");
    }
    if counts.passed == 0 {
        bail!("no test ran");
    }
    if options.forbid_skips && skipped.unexpected > 0 {
        bail!("{} test(s) skipped that should run here", skipped.unexpected);
    }
    Ok(())
}

/// Passes the runner's output through and adds up its `test result:` lines.
fn stream(command: &mut std::process::Command) -> Result<(Counts, bool)> {
    eprintln!("$ {}", run::shown(command));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let output = child.stdout.take().context("cargo test has no output")?;
    let mut counts = Counts::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        add(&mut counts, &line);
    }
    Ok((counts, child.wait()?.success()))
}

fn add(counts: &mut Counts, line: &str) {
    let Some((_, rest)) = line.split_once("test result: ") else { return };
    let figure = |word: &str| {
        let before = rest.split(';').find_map(|part| part.trim().strip_suffix(word));
        before.and_then(|part| part.trim().rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    };
    counts.passed += figure("passed");
    counts.failed += figure("failed");
    counts.ignored += figure("ignored");
}

struct Skips {
    total: usize,
    unexpected: usize,
}

fn report_skips(path: &Path) -> Result<Skips> {
    let text = fs::read_to_string(path)?;
    let mut skips = Skips { total: 0, unexpected: 0 };
    for line in text.lines() {
        println!("skipped: {line}");
        skips.total += 1;
        skips.unexpected += usize::from(!GATED.iter().any(|variable| line.contains(variable)));
    }
    Ok(skips)
}

#[cfg(test)]
mod tests {
    use super::{Counts, add};

    #[test]
    fn result_lines_add_up() {
        let mut counts = Counts::default();
        add(
            &mut counts,
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        );
        add(
            &mut counts,
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        );
        add(&mut counts, "test something ... ok");
        assert_eq!((counts.passed, counts.failed, counts.ignored), (15, 2, 1));
    }
}
