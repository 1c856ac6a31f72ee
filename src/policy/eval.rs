//! `palisade policy eval`.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use palisade_workbench::World;
use palisade_workbench::eval::{Evaluator, RunError, Summary};

use super::decide::Flags;
use crate::exit::{self, Exit};
use crate::output::still_read;

/// Policies, requests, and how to read them.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    flags: Flags,
    /// Requests, one JSON object a line; - for standard input.
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
}

pub(super) fn run(options: &Options) -> Result<Exit> {
    if options.requests.as_os_str() == "-" && options.flags.files.reads_stdin() {
        return Err(exit::usage("-f - and --requests - both read standard input: give one of them as a file"));
    }
    let Some(ready) = options.flags.prepare()? else { return Ok(Exit::Invalid) };
    let requests = requests(&options.requests)?;
    let world = Arc::clone(&ready.world) as Arc<dyn World>;
    let mut evaluator = Evaluator::new(&ready.loaded, &ready.mesh, ready.options, world);
    let name = options.requests.display().to_string();
    let mut output = BufWriter::new(std::io::stdout().lock());
    let mut report = |error: &palisade_workbench::InputError| eprintln!("{name}:{error}");
    let ran = ready.runtime.block_on(evaluator.run(requests, &mut output, &mut report));
    let written = match ran {
        Ok(()) => output.flush(),
        Err(RunError::Write(error)) => Err(error),
        Err(RunError::Read(error)) => return Err(exit::bad_input(format!("cannot read {name} to its end: {error}"))),
    };
    still_read(written)?;
    ready.world.report();
    let summary = evaluator.summary();
    if summary.unread_claims > 0 {
        eprintln!(
            "palisade: --authenticate: `jwt` of {} requests was not looked at, their headers were",
            summary.unread_claims
        );
    }
    Ok(exit_of(&summary))
}

fn requests(path: &std::path::Path) -> Result<Box<dyn BufRead>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path)
        .map_err(|error| exit::bad_input(format!("cannot read --requests {}: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

fn exit_of(summary: &Summary) -> Exit {
    match summary.exit_code() {
        0 => Exit::Done,
        2 => Exit::Denied,
        3 => Exit::Invalid,
        4 => Exit::Undecided,
        _ => Exit::BadInput,
    }
}
