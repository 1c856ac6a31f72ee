//! `palisade policy explain`.

use std::io::Read;
use std::sync::Arc;

use anyhow::Result;
use clap::{Args, ValueEnum};
use palisade_workbench::{World, explain};

use super::decide::Flags;
use crate::exit::{self, Exit};
use crate::output::print;

/// The longest request that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Policies, one request, and how to print why.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    flags: Flags,
    /// The request: a JSON object, a file with one, or - for standard input.
    #[arg(long, value_name = "JSON|FILE|-")]
    request: String,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(super) fn run(options: &Options) -> Result<Exit> {
    if options.request == "-" && options.flags.files.reads_stdin() {
        return Err(exit::usage("-f - and --request - both read standard input: give one of them as a file"));
    }
    let (name, request) = request(&options.request)?;
    let Some(ready) = options.flags.prepare()? else { return Ok(Exit::Invalid) };
    let world = Arc::clone(&ready.world) as Arc<dyn World>;
    let explained = explain::explain(&ready.loaded, &ready.mesh, ready.options, world, &request);
    let explained = match ready.runtime.block_on(explained) {
        Ok(explained) => explained,
        Err(error) => return Err(exit::bad_input(format!("{name}:{error}"))),
    };
    match options.output {
        Format::Table => print(&explained.text())?,
        Format::Json => print(&format!("{}\n", explained.json()?))?,
    };
    ready.world.report();
    Ok(match explained.exit_code() {
        0 => Exit::Done,
        2 => Exit::Denied,
        3 => Exit::Invalid,
        _ => Exit::Undecided,
    })
}

/// The request's text with the name by which errors speak of it.
fn request(argument: &str) -> Result<(String, String)> {
    if argument.trim_start().starts_with('{') {
        return Ok(("--request".to_owned(), argument.to_owned()));
    }
    let failed = |error: std::io::Error| exit::bad_input(format!("cannot read --request {argument}: {error}"));
    let from: Box<dyn Read> = match argument {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    let mut bytes = Vec::new();
    from.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_BYTES) {
        return Err(exit::bad_input(format!("--request {argument} is longer than {MAX_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        exit::bad_input(format!("--request {argument} is not UTF-8, from its byte {} on", at + 1))
    })?;
    Ok((argument.to_owned(), text))
}
