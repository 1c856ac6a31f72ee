//! YAML with positions. Kubernetes reads YAML 1.1 by the rules of its Go library, and refuses or changes what looks
//! like text but is not (`no`, `8080`, `1.10`); we keep those distinctions, the line and column of every value, and
//! bounds on depth and alias expansion, none of which a serde front end would give.

mod parse;
mod scalar;
mod split;

pub(crate) use parse::parse;
pub(crate) use scalar::Kind;
pub(crate) use split::{Chunk, split};

/// How deeply collections may be nested. The deepest field of the accepted resources stands at nine.
pub(crate) const MAX_DEPTH: usize = 64;

/// How many values one document may have. A few bytes make a value, and a value costs hundreds of them: text that is
/// small enough to be read can still be made of too many.
pub(crate) const MAX_VALUES: usize = 1_000_000;

/// How many nodes anchors and aliases of one document may copy.
pub(crate) const MAX_ALIAS_NODES: usize = 100_000;

/// A place in a file: line and column from 1, and the index in characters from the chunk's begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pos {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) index: usize,
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) pos: Pos,
    /// The index in characters at which the value ends.
    pub(crate) end: usize,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) kind: Kind,
}

/// One pair of a mapping. Keys may repeat: whoever reads the mapping reports that with the path it knows.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Scalar,
    pub(crate) pos: Pos,
    pub(crate) value: Node,
}

impl Node {
    /// What it is, for messages.
    pub(crate) fn what(&self) -> &'static str {
        match &self.value {
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(scalar) => scalar.kind.what(),
        }
    }

    /// The first value under a key, without any check.
    pub(crate) fn peek(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key.text == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) if scalar.kind == Kind::Text => Some(&scalar.text),
            _ => None,
        }
    }

    /// Whether it is null, written or left out.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.kind == Kind::Null)
    }
}
