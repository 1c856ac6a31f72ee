//! `cargo xtask fuzz [TARGET..]`: builds the fuzz targets as libFuzzer wants them, on stable Rust and without a tool to install,
//! and runs each for a while, starting from the kept corpus.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;

use crate::run;

/// The coverage that libFuzzer steers by; the same flags as `cargo fuzz -s none` gives.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions";

/// What to run, and for how long.
#[derive(Args)]
pub(crate) struct Options {
    /// Only these targets; all of them where none is named.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 30)]
    pub(crate) seconds: u32,
}

impl Options {
    /// Every target for `seconds`.
    pub(crate) fn all(seconds: u32) -> Self {
        Self { targets: Vec::new(), seconds }
    }
}

/// Whether libFuzzer, which is C++, can be built here.
pub(crate) fn possible() -> bool {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let version = Command::new(compiler).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Fails with the first finding; its input stays under `target/fuzz/artifacts`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Some(host) = host()? else { bail!("rustc does not name its host") };
    let manifest = run::root().join("tests/fuzz/Cargo.toml");
    let names = names(&manifest, &options.targets)?;
    let directory = run::target_dir().join("fuzz");
    let mut build = run::cargo(&["build", "--release", "--quiet", "--bins", "--target", &host, "--manifest-path"]);
    build.arg(&manifest).arg("--target-dir").arg(&directory).env("RUSTFLAGS", FLAGS);
    run::success(&mut build)?;
    let programs = directory.join(&host).join("release");
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    for group in names.chunks(at_once) {
        let started =
            group.iter().map(|name| start(&directory, &programs, name, options.seconds)).collect::<Result<Vec<_>>>()?;
        finish(started, &directory)?;
    }
    println!("{} fuzz targets, {} s each, no finding", names.len(), options.seconds);
    Ok(())
}

fn host() -> Result<Option<String>> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned))
}

fn names(manifest: &Path, wanted: &[String]) -> Result<Vec<String>> {
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
    let targets = metadata.packages.iter().flat_map(|package| &package.targets);
    let all: Vec<String> = targets.filter(|target| target.is_bin()).map(|target| target.name.clone()).collect();
    match wanted.iter().find(|name| !all.contains(name)) {
        Some(unknown) => bail!("no fuzz target `{unknown}`; there are {}", all.join(", ")),
        None if wanted.is_empty() => Ok(all),
        None => Ok(wanted.to_vec()),
    }
}

struct Started {
    name: String,
    child: Child,
    log: PathBuf,
}

fn start(directory: &Path, programs: &Path, name: &str, seconds: u32) -> Result<Started> {
    let (found, artifacts) = (directory.join("corpus").join(name), directory.join("artifacts").join(name));
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&artifacts)?;
    let log = directory.join(format!("{name}.log"));
    let mut command = Command::new(programs.join(name));
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-rss_limit_mb=2048", "-timeout=25"])
        .arg(&found);
    let kept = run::root().join("tests/fuzz/corpus").join(name);
    command.args(kept.exists().then_some(kept));
    eprintln!("$ {}", run::shown(&command));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log)?).spawn();
    Ok(Started { name: name.to_owned(), child: child.with_context(|| format!("cannot start {name}"))?, log })
}

/// Waits for all, so that none is left running when one fails.
fn finish(started: Vec<Started>, directory: &Path) -> Result<()> {
    let mut failed = Vec::new();
    for Started { name, mut child, log } in started {
        let status = child.wait()?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let runs = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")).unwrap_or("?");
        eprintln!("  {name}: {} runs, {status}", runs.trim());
        if !status.success() {
            let lines: Vec<&str> = text.lines().rev().take(30).collect();
            eprintln!("{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("findings in {}: see {}", failed.join(", "), directory.join("artifacts").display())
}
