//! Events for eyes and for programs.
//!
//! Callers choose hosts, paths and header values, so text on a terminal is never theirs unescaped: control characters, escape
//! sequences and characters that turn the direction of writing are shown, not obeyed, in both forms.

use palisade_wire::audit::{Kind, Verdict};

mod escape;
mod json;
mod table;

pub use json::json;
pub use table::{follow_header, follow_row, table};

/// `allow`, `deny`; `gap` where nothing was decided.
fn verdict(kind: i32, verdict: i32) -> &'static str {
    if kind == i32::from(Kind::Gap) {
        return "gap";
    }
    match Verdict::try_from(verdict) {
        Ok(Verdict::Allow) => "allow",
        Ok(Verdict::Deny) => "deny",
        _ => "unknown",
    }
}

/// `file:line`, empty where neither is known.
fn place(file: &str, line: u32) -> String {
    match (file, line) {
        ("", _) => String::new(),
        (file, 0) => file.to_owned(),
        (file, line) => format!("{file}:{line}"),
    }
}
