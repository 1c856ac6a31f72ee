//! `palisade ca`: operating the certificate authority.

mod entry;
mod join_token;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::Exit;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Make a join token: single use, for one SPIFFE ID, printed once.
    JoinToken(join_token::Options),
    /// Registration entries: which workload gets which identity.
    #[command(subcommand)]
    Entry(entry::Verb),
}

impl Verb {
    pub(crate) fn run(self) -> Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self {
                Self::JoinToken(options) => join_token::run(&options).await,
                Self::Entry(verb) => entry::run(verb).await,
            }
        })
    }
}
