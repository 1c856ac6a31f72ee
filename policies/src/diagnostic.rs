//! What is wrong with a text, where, and what to write instead. One shape for every reader of configuration, so
//! that a terminal, an editor and a CI annotation can show it alike.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// How bad it is: an error refuses the resource, a warning changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The resource is refused.
    Error,
    /// The resource is accepted; its author probably wants to know this.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One finding. Prints as one line: `file:line:column: error[PAL0101] field: message; fix: what to do`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The stable code, which [`explain`](crate::explain) knows.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// The file, as in [`SourceText::file`](crate::SourceText::file).
    #[serde(serialize_with = "text")]
    pub file: Arc<str>,
    /// The line of the offending value, counted from 1.
    pub line: u32,
    /// Its column in characters, counted from 1.
    pub column: u32,
    /// The path of the field, for example `spec.rules[0].to[0].operation.paths[1]`; empty for a whole document.
    pub field: String,
    /// What is wrong, with the offending text in backticks.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

fn text<S: Serializer>(value: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value)
}

impl Diagnostic {
    /// Whether this finding refuses the resource.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}[{}] ", self.file, self.line, self.column, self.severity, self.code)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; fix: {}", self.message, self.fix)
    }
}
