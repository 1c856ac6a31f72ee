//! Exit codes: the same for every verb and every output format, so that scripts can rely on them.

use std::io::Write as _;
use std::process::ExitCode;

pub(crate) use palisade_identity::error_chain as chain;

/// What a process ends with. The numbers are part of the command line's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, allowed, no difference.
    Done = 0,
    /// The operation failed.
    Failure = 1,
    /// The decision is deny.
    Denied = 2,
    /// A resource was refused.
    Invalid = 3,
    /// A missing attribute left a decision open.
    Undecided = 4,
    /// Something stands in the way that may pass, such as an acknowledgement that is awaited.
    Blocked = 5,
    /// Wrong flags or configuration.
    Usage = 64,
    /// The input data cannot be read.
    BadInput = 65,
    /// A task of a long-running process died.
    TaskDied = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that ends the process with a code of its own; anything else ends with [`Exit::Failure`].
#[derive(Debug)]
pub(crate) struct Coded {
    exit: Exit,
    message: String,
}

impl std::fmt::Display for Coded {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Coded {}

/// Wrong flags or configuration: exit code 64.
pub(crate) fn usage(message: impl std::fmt::Display) -> anyhow::Error {
    Coded { exit: Exit::Usage, message: message.to_string() }.into()
}

/// Input that cannot be read: exit code 65.
pub(crate) fn bad_input(message: impl std::fmt::Display) -> anyhow::Error {
    Coded { exit: Exit::BadInput, message: message.to_string() }.into()
}

/// A task of the process died: exit code 70.
pub(crate) fn task_died(message: impl std::fmt::Display) -> anyhow::Error {
    Coded { exit: Exit::TaskDied, message: message.to_string() }.into()
}

/// Prints the error with its causes on stderr and says which code ends the process.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    // Where nobody listens any more there is still the code.
    let _ = writeln!(std::io::stderr(), "palisade: {error:#}");
    error.chain().find_map(|cause| cause.downcast_ref::<Coded>()).map_or(Exit::Failure, |coded| coded.exit)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::{Exit, bad_input, report, usage};

    #[test]
    fn the_code_survives_added_context() {
        let error = Err::<(), _>(usage("no such flag")).context("reading flags").unwrap_err();
        assert_eq!(report(&error), Exit::Usage);
        assert_eq!(report(&bad_input("line 3")), Exit::BadInput);
        assert_eq!(report(&anyhow::anyhow!("other")), Exit::Failure);
    }
}
