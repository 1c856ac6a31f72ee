//! `palisade policy eval`.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use palisade_authz::Semantics;
use palisade_policies::{MeshConfig, load};
use palisade_workbench::eval::{Evaluator, RunError, Summary};

use super::input::{DEFAULT_NAMESPACE, Files};
use crate::exit::{self, Exit};
use crate::output::still_read;

/// Policies, requests, and how to read them.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    files: Files,
    /// Requests, one JSON object a line; - for standard input.
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// Evaluate every request so, whatever its `protocol` says.
    #[arg(long, value_enum)]
    semantics: Option<SemanticsFlag>,
    /// Verify tokens by RequestAuthentication instead of trusting `jwt`.
    #[arg(long, hide = true)]
    authenticate: bool,
    /// Namespace of resources that name none.
    #[arg(short, long, value_name = "NAMESPACE", default_value = DEFAULT_NAMESPACE)]
    namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SemanticsFlag {
    /// Envoy's HTTP filter.
    Http,
    /// Envoy's network filter.
    Tcp,
    /// What ztunnel does with the same policy.
    L4,
}

pub(super) fn run(options: &Options) -> Result<Exit> {
    if options.authenticate {
        return Err(exit::usage("--authenticate is not supported yet: RequestAuthentication is not evaluated"));
    }
    if options.requests.as_os_str() == "-" && options.files.reads_stdin() {
        return Err(exit::usage("-f - and --requests - both read standard input: give one of them as a file"));
    }
    let texts = options.files.read()?;
    let (mesh, mut diagnostics) = match &texts.mesh {
        Some(text) => MeshConfig::parse(text),
        None => (Some(MeshConfig::default()), Vec::new()),
    };
    let loaded = load(&texts.resources, &options.namespace);
    diagnostics.extend(loaded.diagnostics.iter().cloned());
    for diagnostic in &diagnostics {
        eprintln!("{diagnostic}");
    }
    let Some(mesh) = mesh else { return Ok(Exit::Invalid) };
    let semantics = options.semantics.map(|flag| match flag {
        SemanticsFlag::Http => Semantics::Http,
        SemanticsFlag::Tcp => Semantics::Tcp,
        SemanticsFlag::L4 => Semantics::L4,
    });
    let mut evaluator = Evaluator::new(&loaded, &mesh, semantics);
    let name = options.requests.display().to_string();
    let mut output = BufWriter::new(std::io::stdout().lock());
    let ran = evaluator.run(requests(&options.requests)?, &mut output, &mut |error| eprintln!("{name}:{error}"));
    let written = match ran {
        Ok(()) => output.flush(),
        Err(RunError::Write(error)) => Err(error),
        Err(RunError::Read(error)) => return Err(exit::bad_input(format!("cannot read {name} to its end: {error}"))),
    };
    still_read(written)?;
    Ok(exit_of(&evaluator.summary()))
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
