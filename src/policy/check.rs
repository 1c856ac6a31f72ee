//! `palisade policy check`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use palisade_workbench::check;

use super::input::{DEFAULT_NAMESPACE, Files};
use crate::exit::Exit;
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
    /// SARIF 2.1.0, for editors and code review.
    Sarif,
}

pub(super) fn run(options: &Options) -> Result<Exit> {
    let texts = options.files.read()?;
    let mut report = check::check(&texts.resources, texts.mesh.as_ref(), &options.namespace);
    report.refuse_files(texts.refused);
    if let Some(settings) = &texts.ca {
        report.add_settings(settings);
    }
    match options.output {
        Format::Table => print(&report.table())?,
        Format::Json => print(&format!("{}\n", report.json()?))?,
        Format::Sarif => print(&format!("{}\n", report.sarif()?))?,
    };
    Ok(if report.exit_code() == 0 { Exit::Done } else { Exit::Invalid })
}
