//! Values of the string forms: `*`, exact, prefix, suffix; and the value of a request as they see it.

use crate::index::hash::{Table, hash};
use crate::index::trie::Trie;
use crate::predicate::Text;

/// All texts that are asked of one attribute.
#[derive(Debug, Default)]
pub(super) struct Texts {
    present: Vec<u32>,
    filled: Vec<u32>,
    line: Vec<u32>,
    exact: Table,
    prefixes: Trie<false>,
    suffixes: Trie<true>,
}

impl Texts {
    pub(super) fn new<'a>(items: impl Iterator<Item = (&'a Text, u32)> + Clone) -> Self {
        let of = |wanted: Text| items.clone().filter(move |(text, _)| **text == wanted).map(|(_, id)| id).collect();
        let exact = items.clone().filter_map(|(text, id)| match text {
            Text::Exact(text) => Some((hash(0, text.as_bytes()), text.as_bytes(), id)),
            _ => None,
        });
        let prefixes = items.clone().filter_map(|(text, id)| match text {
            Text::Prefix(text) => Some((text.as_bytes(), id)),
            _ => None,
        });
        let suffixes = items.clone().filter_map(|(text, id)| match text {
            Text::Suffix(text) => Some((text.as_bytes(), id)),
            _ => None,
        });
        Self {
            present: of(Text::Present),
            filled: of(Text::Filled),
            line: of(Text::Line),
            exact: Table::new(exact),
            prefixes: Trie::new(prefixes),
            suffixes: Trie::new(suffixes),
        }
    }

    /// Calls `found` with the numbers of all texts that `value` matches.
    pub(super) fn find(&self, value: &[u8], found: &mut dyn FnMut(u32)) {
        self.presence(value, found);
        self.find_in(&Shown { head: value, tail: value, length: value.len() }, found);
    }

    /// Whether all are exact or prefixes: what such a value begins with is all they see.
    pub(super) fn only_begin(&self) -> bool {
        self.line.is_empty() && self.filled.is_empty() && self.suffixes.is_empty()
    }

    /// Those that any value matches which is not empty and has no line feed.
    pub(super) fn lines(&self) -> &[u32] {
        &self.line
    }

    /// Of the forms that ask for presence alone.
    pub(super) fn presence(&self, value: &[u8], found: &mut dyn FnMut(u32)) {
        self.present.iter().for_each(|id| found(*id));
        if !value.is_empty() {
            self.filled.iter().for_each(|id| found(*id));
            if !self.line.is_empty() && !value.contains(&b'\n') {
                self.line.iter().for_each(|id| found(*id));
            }
        }
    }

    /// Of the other forms.
    pub(super) fn find_in(&self, shown: &Shown<'_>, found: &mut dyn FnMut(u32)) {
        if shown.head.len() == shown.length {
            self.exact.get(shown.head, found);
        }
        self.prefixes.find(shown.head, found);
        self.suffixes.find(shown.tail, found);
    }
}

/// How much of a value is copied where its bytes have to be changed or gathered. Longer texts of policies are not
/// indexed where that is so.
pub(super) const ROOM: usize = 256;

/// A value of which the first and the last [`ROOM`] bytes are at hand, or all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) head: &'a [u8],
    pub(super) tail: &'a [u8],
    pub(super) length: usize,
}

/// Whether a text can be looked for in a [`Shown`].
pub(super) fn fits(text: &Text) -> bool {
    match text {
        Text::Present | Text::Filled | Text::Line => true,
        Text::Exact(text) | Text::Prefix(text) | Text::Suffix(text) => text.len() <= ROOM,
    }
}

/// Shows a value in lower case.
pub(super) fn lowered<T>(value: &[u8], then: impl FnOnce(&Shown<'_>) -> T) -> T {
    let mut head = [0; ROOM];
    let length = value.len();
    match length.checked_sub(ROOM) {
        None | Some(0) => {
            let head = lower(value, &mut head);
            then(&Shown { head, tail: head, length })
        }
        Some(skipped) => {
            let mut tail = [0; ROOM];
            let tail = lower(value.get(skipped..).unwrap_or_default(), &mut tail);
            then(&Shown { head: lower(value, &mut head), tail, length })
        }
    }
}

fn lower<'a>(value: &[u8], to: &'a mut [u8; ROOM]) -> &'a [u8] {
    for (to, from) in to.iter_mut().zip(value) {
        *to = from.to_ascii_lowercase();
    }
    to.get(..value.len().min(ROOM)).unwrap_or_default()
}

/// Gathers a stretch of a value that comes in pieces.
pub(super) struct Gather {
    bytes: [u8; ROOM],
    kept: usize,
    /// Bytes still to leave out.
    skip: usize,
    /// Of all pieces together.
    pub(super) length: usize,
}

impl Gather {
    /// Begins behind so many bytes.
    pub(super) const fn behind(skip: usize) -> Self {
        Self { bytes: [0; ROOM], kept: 0, skip, length: 0 }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        self.length += piece.len();
        let skipped = self.skip.min(piece.len());
        self.skip -= skipped;
        let piece = piece.get(skipped..).unwrap_or_default();
        let room = self.bytes.get_mut(self.kept..).unwrap_or_default();
        let count = room.len().min(piece.len());
        if let (Some(room), Some(piece)) = (room.get_mut(..count), piece.get(..count)) {
            room.copy_from_slice(piece);
            self.kept += count;
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.kept).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Vec<Text> {
        let forms = ["*", "a", "a*", "*a", "ab*", "", "*,b", "a,b", "*com", "A", "x*"];
        let mut texts: Vec<Text> = forms.iter().map(|form| Text::parse(form, Text::Line)).collect();
        texts.extend([Text::Present, Text::Filled]);
        texts
    }

    #[test]
    fn all_forms_that_match_are_found() {
        let texts = texts();
        let index = Texts::new(texts.iter().zip(0..));
        for value in ["", "a", "ab", "ba", "a\n", "a,b", "A", "x.com", "b"] {
            let mut found = Vec::new();
            index.find(value.as_bytes(), &mut |id| found.push(id));
            found.sort_unstable();
            let matching = |(text, _): &(&Text, u32)| text.matches(value.as_bytes());
            let expected: Vec<u32> = texts.iter().zip(0..).filter(matching).map(|(_, id)| id).collect();
            assert_eq!(found, expected, "{value:?}");
        }
    }

    #[test]
    fn a_value_in_lower_case_shows_both_ends() {
        for whole in ["", "ab", &"x".repeat(ROOM), &"xy".repeat(300)] {
            lowered(whole.to_uppercase().as_bytes(), |shown| {
                assert!(whole.as_bytes().starts_with(shown.head) && whole.as_bytes().ends_with(shown.tail));
                let kept = whole.len().min(ROOM);
                assert_eq!((shown.head.len(), shown.tail.len(), shown.length), (kept, kept, whole.len()));
            });
        }
    }

    #[test]
    fn pieces_are_gathered_behind_what_is_skipped() {
        let pieces = ["ab", "", ",", "cde"];
        for skip in 0..8 {
            let mut gather = Gather::behind(skip);
            pieces.iter().for_each(|piece| gather.push(piece.as_bytes()));
            assert_eq!(gather.bytes(), "ab,cde".get(skip..).unwrap_or("").as_bytes());
            assert_eq!(gather.length, 6);
        }
        let mut long = Gather::behind(1);
        (0..300).for_each(|_| long.push(b"xy"));
        assert_eq!((long.bytes().len(), long.length), (ROOM, 600));
        assert!(long.bytes().starts_with(b"yx"));
    }
}
