//! Where a piece of configuration was written. Every diagnostic, every policy id in an audit event and every
//! explanation points back to a file and a line, so the position travels with the value from the first byte read.

use std::{fmt, sync::Arc};

/// A text to load, with the name by which people know it.
///
/// `first_line` is the 1-based line of `text`'s first line inside `file`: a document cut out of a file keeps the
/// line numbers of that file.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SourceText {
    /// The file's path as the user gave it, or `-` for standard input.
    pub file: Arc<str>,
    /// The line of `file` at which `text` begins, counted from 1.
    pub first_line: u32,
    /// The text itself.
    pub text: Arc<str>,
}

/// Without the text: it can hold private keys by mistake, and is long.
impl fmt::Debug for SourceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceText({}:{}, {} bytes)", self.file, self.first_line, self.text.len())
    }
}

impl SourceText {
    /// A whole file.
    pub fn new(file: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        Self { file: file.into(), first_line: 1, text: text.into() }
    }
}

/// A line of a file, counted from 1. Prints as `file:line`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The file, as in [`SourceText::file`].
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}
