//! `palisade policy check`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use palisade_workbench::check;

use super::input::{DEFAULT_NAMESPACE, Files};
use crate::exit::{self, Exit};
use crate::output::print;

/// What to check, and how to print it.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    files: Files,
    /// Namespace of resources that name none.
    #[arg(short, long, value_name = "NAMESPACE", default_value = DEFAULT_NAMESPACE)]
    namespace: String,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    #[value(hide = true)]
    Sarif,
}

pub(super) fn run(options: &Options) -> Result<Exit> {
    if options.output == Format::Sarif {
        return Err(exit::usage("-o sarif is not supported yet; use table or json"));
    }
    let texts = options.files.read()?;
    let report = check::check(&texts.resources, texts.mesh.as_ref(), &options.namespace);
    match options.output {
        Format::Json => print(&format!("{}\n", report.json()?))?,
        Format::Table | Format::Sarif => print(&report.table())?,
    };
    Ok(if report.exit_code() == 0 { Exit::Done } else { Exit::Invalid })
}
