//! Cutting the items of a List out of its text, so that each can be passed on alone and still be read with the same
//! lines and columns.

use crate::yaml::Node;

/// Cuts nodes in the order in which they stand.
pub(crate) struct Cutter<'a> {
    text: &'a str,
    /// Characters and bytes passed so far: the tree counts characters.
    chars: usize,
    bytes: usize,
}

impl<'a> Cutter<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, chars: 0, bytes: 0 }
    }

    /// The text of a node, its first line filled up with blanks to the column at which it stood: a block mapping
    /// keeps its indentation, and with it stays what it was.
    pub(crate) fn cut(&mut self, node: &Node) -> String {
        let start = self.byte(node.pos.index);
        let end = self.byte(node.end);
        let text = self.text.get(start..end).unwrap_or_default().trim_end();
        let mut out = " ".repeat(usize::try_from(node.pos.column).map_or(0, |column| column.saturating_sub(1)));
        out.push_str(text);
        out.push('\n');
        out
    }

    fn byte(&mut self, index: usize) -> usize {
        let rest = self.text.get(self.bytes..).unwrap_or_default();
        let passed: usize = rest.chars().take(index.saturating_sub(self.chars)).map(char::len_utf8).sum();
        self.chars = self.chars.max(index);
        self.bytes += passed;
        self.bytes
    }
}
