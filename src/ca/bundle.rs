//! `palisade ca bundle`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use palisade_wire::admin::GetBundleRequest;

use crate::admin::AdminOptions;
use crate::exit::Exit;
use crate::output::print;

/// In which form.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// `pem`: the X.509 roots; `spiffe`: the JSON document of SPIFFE's bundle endpoint, keys of tokens included.
    #[arg(long, value_enum, default_value_t = Format::Pem)]
    format: Format,
    #[command(flatten)]
    admin: AdminOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Pem,
    Spiffe,
}

pub(super) async fn run(options: &Options) -> Result<Exit> {
    let answer = options.admin.client().get_bundle(GetBundleRequest {}).await;
    let bundle = answer.map_err(|status| options.admin.error(&status))?.into_inner();
    match options.format {
        Format::Pem => print(&bundle.pem)?,
        Format::Spiffe => print(&format!("{}\n", bundle.spiffe))?,
    };
    Ok(Exit::Done)
}
