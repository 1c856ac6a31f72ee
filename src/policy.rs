//! `palisade policy`: what an author asks before anybody is affected.

mod check;
mod decide;
mod eval;
mod explain;
mod input;
mod world;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::Exit;

/// What to ask.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    /// Every mistake and every trap of policies and resources, with file, line, field, fix and a request that shows it.
    ///
    /// Exit code 3 if a resource is refused; warnings and traps change nothing.
    Check(check::Options),
    /// What would be decided: one JSON request a line in, one JSON answer a line out.
    ///
    /// Exit code: 3 if a policy was refused, else 65 if a line could not be read, else 4 if an answer is undecided, else 2 if
    /// one is deny, else 0.
    Eval(eval::Options),
    /// Why one request is decided as it is: every phase, the rule that decided, or what the nearest rules asked for.
    ///
    /// Exit code: 65 if the request cannot be read, else 3 if a policy was refused, else 4 if the answer is undecided, else 2 if
    /// it is deny, else 0.
    Explain(explain::Options),
}

impl Verb {
    pub(crate) fn run(self) -> Result<Exit> {
        match self {
            Self::Check(options) => check::run(&options),
            Self::Eval(options) => eval::run(&options),
            Self::Explain(options) => explain::run(&options),
        }
    }
}
