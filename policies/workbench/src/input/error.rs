//! A line that cannot be read, in the words of whoever wrote it.

use std::fmt;

use palisade_policies::json::Problem;

/// A line that could not be answered. Displays as `3: error http.path: what is wrong; fix: what to write`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InputError {
    /// Line of the input, from 1.
    pub line: u64,
    /// Path of the field, for example `source.ip`; empty for the whole line.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

impl InputError {
    pub(crate) fn at(line: u64, problem: Problem) -> Self {
        Self { line, field: problem.field, message: problem.message, fix: problem.fix }
    }
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: error", self.line)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}; fix: {}", self.message, self.fix)
    }
}
