//! `palisade policy`: what an author asks before anybody is affected.

mod check;
mod eval;
mod input;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::Exit;

/// What to ask.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Every mistake of policies and resources, with file, line, field and fix. Exit code 3 if one is refused.
    Check(check::Options),
    /// What would be decided: one JSON request a line in, one JSON answer a line out.
    ///
    /// Exit code: 3 if a policy was refused, else 65 if a line could not be read, else 4 if an answer is undecided, else 2 if
    /// one is deny, else 0.
    Eval(eval::Options),
}

impl Verb {
    pub(crate) fn run(self) -> Result<Exit> {
        match self {
            Self::Check(options) => check::run(&options),
            Self::Eval(options) => eval::run(&options),
        }
    }
}
