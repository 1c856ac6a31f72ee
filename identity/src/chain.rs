//! Errors as one line: each error says its own part, and whoever logs or answers walks the causes.

use std::error::Error;

/// The error and its causes, separated by colons. A cause that an error repeats at the end of its own text, as some libraries
/// do, stands once.
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}
