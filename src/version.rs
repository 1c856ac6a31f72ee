//! `palisade version`.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::exit::Exit;
use crate::output::print;

/// How to print it.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

pub(crate) fn run(options: &Options) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    match options.output {
        Format::Table => print(&format!("palisade {version}\n"))?,
        Format::Json => print(&format!("{}\n", serde_json::json!({ "version": version })))?,
    };
    Ok(Exit::Done)
}
