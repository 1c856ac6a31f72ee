//! Finding a field of an accepted document again. The checked types carry the line of a document and of each rule; who
//! speaks about a single value later (an author's tool) asks here for its place, so that YAML is read in one room only.

use crate::{
    SourceText,
    yaml::{self, Node, Value},
};

/// The fields of one document with their places.
#[derive(Debug)]
pub struct Places {
    root: Option<Node>,
    first_line: u32,
}

impl Places {
    /// Reads the places of the first document of a text; one that is not YAML has none but its first line.
    #[must_use]
    pub fn of(text: &SourceText) -> Self {
        let mut roots = yaml::split(&text.text)
            .filter_map(|chunk| yaml::parse(chunk, text.first_line).ok().flatten())
            .map(|tree| tree.root)
            .filter(|root| !root.is_null());
        Self { root: roots.next(), first_line: text.first_line }
    }

    /// Line and column (both from 1) of the value at a path as diagnostics write it, for example
    /// `spec.rules[0].to[0].operation.paths[1]` or `metadata.annotations["istio.io/dry-run"]`; of the innermost
    /// field around it that is written, where it is not.
    #[must_use]
    pub fn place(&self, field: &str) -> (u32, u32) {
        let Some(mut node) = self.root.as_ref() else { return (self.first_line, 1) };
        for step in steps(field) {
            match child(node, &step) {
                Some(next) => node = next,
                None => break,
            }
        }
        (node.pos.line, node.pos.column)
    }
}

/// One step of a path: a key, or an index.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn child<'n>(node: &'n Node, step: &Step<'_>) -> Option<&'n Node> {
    match (&node.value, step) {
        (Value::Map(_), Step::Key(key)) => node.peek(key),
        (Value::Seq(items), Step::Index(index)) => items.get(*index),
        _ => None,
    }
}

/// Splits a path; what is malformed ends it.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let step = if let Some(quoted) = rest.strip_prefix("[\"") {
            quoted.split_once("\"]").map(|(key, rest)| (Step::Key(key), rest))
        } else if let Some(index) = rest.strip_prefix('[') {
            index.split_once(']').and_then(|(index, rest)| Some((Step::Index(index.parse().ok()?), rest)))
        } else {
            let key = rest.strip_prefix('.').unwrap_or(rest);
            key.split_at_checked(key.find(['.', '[']).unwrap_or(key.len())).map(|(key, rest)| (Step::Key(key), rest))
        };
        let Some((step, after)) = step else { break };
        // A lone dot would never end.
        if step == Step::Key("") {
            break;
        }
        steps.push(step);
        rest = after;
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a comment\nkind: AuthorizationPolicy\nmetadata:\n  annotations: {istio.io/dry-run: \"true\"}\n\
                        spec:\n  rules:\n  - to:\n    - operation: {paths: [/a, /b]}\n";

    fn place(field: &str) -> (u32, u32) {
        Places::of(&SourceText { file: "p.yaml".into(), first_line: 10, text: TEXT.into() }).place(field)
    }

    #[test]
    fn a_field_is_found_where_it_stands() {
        assert_eq!(place("kind"), (11, 7));
        assert_eq!(place("spec.rules[0].to[0].operation.paths[1]"), (17, 31));
        assert_eq!(place("metadata.annotations[\"istio.io/dry-run\"]"), (13, 35));
    }

    #[test]
    fn what_is_not_written_is_where_it_would_stand() {
        assert_eq!(place("spec.rules[0].to[0].operation.hosts[0]"), (17, 18));
        assert_eq!(place("spec.rules[7]"), place("spec.rules"));
        assert_eq!(place("status"), (11, 1));
    }

    #[test]
    fn malformed_paths_and_texts_end_early() {
        for path in ["", ".", "[", "[\"", "[x]", "spec..", "spec.[0]", "[99999999999999999999]"] {
            let _ = place(path);
        }
        assert_eq!(Places::of(&SourceText::new("p", "a: [")).place("a"), (1, 1));
        assert_eq!(Places::of(&SourceText::new("p", "")).place("a"), (1, 1));
    }
}
