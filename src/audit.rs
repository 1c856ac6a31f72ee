//! `palisade audit`: who called what, what was decided, by which rule.

mod filter;
mod follow;
mod query;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::Exit;

/// What to ask.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Rows that match, oldest first.
    Query(query::Options),
    /// Matching rows as they are stored, until Ctrl-C.
    Follow(follow::Options),
}

impl Verb {
    pub(crate) fn run(self) -> Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match self {
                Self::Query(options) => query::run(&options).await,
                Self::Follow(options) => follow::run(&options).await,
            }
        })
    }
}
