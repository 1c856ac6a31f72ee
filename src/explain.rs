//! `palisade explain CODE`: what a diagnostic means, offline.

use anyhow::Result;
use clap::Args;

use crate::exit::{self, Exit};
use crate::output::print;

/// Which code.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// A code such as PAL0101, as diagnostics print it.
    code: String,
}

pub(crate) fn run(options: &Options) -> Result<Exit> {
    let code = options.code.to_ascii_uppercase();
    let Some(explanation) = palisade_policies::explain(&code) else {
        return Err(exit::usage(format!("no diagnostic has the code `{}`; codes look like PAL0101", options.code)));
    };
    let text =
        format!("{}: {}\n\n{}\n\nFix: {}\n", explanation.code, explanation.title, explanation.why, explanation.fix);
    print(&text)?;
    Ok(Exit::Done)
}
