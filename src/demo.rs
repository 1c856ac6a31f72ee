//! `palisade demo`: a small mesh of real processes on loopback, and its story told with real traffic.

pub(crate) mod app;
mod call;
mod children;
pub(crate) mod janitor;
mod load;
mod memory;
mod proxies;
mod report;
mod stage;
mod story;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::report::{Format, Report};
use self::stage::Stage;
use crate::exit::{self, Exit};

/// How to play.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Keep the mesh running after the story, and print what to play with.
    #[arg(long)]
    keep: bool,
    /// Where state, configuration and logs go: a new or empty directory, kept afterwards. Default: a temporary one, removed
    /// at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

pub(crate) fn run(options: Options) -> Result<Exit> {
    // One thread: the children's lifetime must not hang on a worker thread, and memory counts.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(play(options))
}

async fn play(options: Options) -> Result<Exit> {
    let report = Report::new(options.output);
    let (directory, temporary) = directory(options.data_dir.as_deref())?;
    let mut stop = Stop::new()?;
    let setting = Stage::set(&directory, temporary, &report);
    let stage = tokio::select! {
        stage = setting => stage?,
        () = stop.asked() => return Ok(Exit::Failure),
    };
    let outcome = tokio::select! {
        outcome = tell(&stage, &report, options.keep) => outcome,
        () = stop.asked() => Ok(Exit::Failure),
    };
    let outcome = match outcome {
        Ok(Exit::Done) if options.keep => {
            stop.asked().await;
            Ok(Exit::Done)
        }
        outcome => outcome,
    };
    report.progress("stopping");
    // On a thread of its own: connections to the server close only while this runtime runs.
    let children = stage.children;
    tokio::task::spawn_blocking(move || children.stop()).await??;
    outcome
}

/// The data directory, absolute, and whether it is ours to remove.
fn directory(wanted: Option<&Path>) -> Result<(PathBuf, bool)> {
    let Some(wanted) = wanted else {
        let directory =
            tempfile::Builder::new().prefix("palisade-demo-").tempdir().context("cannot make a temporary directory")?;
        // The janitor removes it: it outlives this process.
        return Ok((directory.keep(), true));
    };
    std::fs::create_dir_all(wanted).map_err(|error| {
        exit::usage(format!("cannot make --data-dir {}: {error}; choose another", wanted.display()))
    })?;
    let mut entries = std::fs::read_dir(wanted).with_context(|| format!("cannot list {}", wanted.display()))?;
    if entries.next().is_some() {
        let directory = wanted.display();
        return Err(exit::usage(format!("--data-dir {directory} is not empty: choose a new or empty directory")));
    }
    let directory = wanted.canonicalize().with_context(|| format!("cannot find {}", wanted.display()))?;
    Ok((directory, false))
}

async fn tell(stage: &Stage, report: &Report, keep: bool) -> Result<Exit> {
    let (megabytes, processes) = stage.memory()?;
    report.start(stage.ready_seconds, megabytes, processes, &stage.cast()?)?;
    let (steps, failed) = story::tell(stage, report).await?;
    for (flags, query) in story::questions() {
        let table = palisade_audit::render::table(&stage.audit(query).await?);
        report.text(&format!("$ palisade audit query {flags}\n{table}"))?;
    }
    report.end(steps, failed)?;
    if keep {
        report.text(&hints(stage)?)?;
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::Failure })
}

fn hints(stage: &Stage) -> Result<String> {
    let binary = std::env::current_exe().context("cannot find the running binary")?;
    let binary = binary.display();
    let (web, legacy) = (stage.address("web-app", "http")?, stage.address("legacy-app", "http")?);
    let (config, socket) = (stage.path("config"), stage.path("server/admin.sock"));
    Ok(format!(
        "Still running; Ctrl-C ends it. To play with, in another terminal:\n\n\
         # web calls payments through the mesh; legacy is refused under STRICT: say PERMISSIVE in peer-authentication.yaml\n\
         curl -i http://{web}/call/balance\n\
         curl -i http://{legacy}/call/balance\n\n\
         # edit a policy and see it bite within a second\n\
         ${{EDITOR:-vi}} {config}/policies.yaml\n\
         {binary} policy check -f {config}\n\n\
         # watch the decisions\n\
         {binary} audit follow --admin-socket {socket}\n\
         {binary} audit query --admin-socket {socket} --verdict deny --since 10m -o json\n"
    ))
}

/// SIGINT and SIGTERM of the story-teller itself.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        Ok(Self { interrupt, terminate })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
