//! Prefixes and suffixes: all that a value begins, or ends, with, in one walk.

/// A radix trie over texts, read from the front or (`BACKWARD`) from the end.
#[derive(Debug, Default)]
pub(super) struct Trie<const BACKWARD: bool> {
    nodes: Box<[Node]>,
    /// First byte of each node's label; those of siblings lie side by side.
    keys: Box<[u8]>,
    labels: Box<[u8]>,
    ids: Box<[u32]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    label: Span,
    /// Siblings lie side by side.
    children: Span,
    /// Numbers of the texts that end here.
    ids: Span,
}

#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn of<T>(self, items: &[T]) -> &[T] {
        let bounds = (usize::try_from(self.start), usize::try_from(self.length));
        let (Ok(start), Ok(length)) = bounds else { return &[] };
        items.get(start..start.saturating_add(length)).unwrap_or_default()
    }

    fn new(start: usize, end: usize) -> Self {
        let word = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { start: word(start), length: word(end.saturating_sub(start)) }
    }
}

/// The texts that a node stands for, and how many of their bytes stand above it.
struct Work {
    node: usize,
    texts: std::ops::Range<usize>,
    depth: usize,
}

impl<const BACKWARD: bool> Trie<BACKWARD> {
    /// A trie of `(text, number)`; equal texts may stand in it several times.
    pub(super) fn new<'a>(items: impl Iterator<Item = (&'a [u8], u32)>) -> Self {
        let mut sorted: Vec<(Vec<u8>, u32)> = items.map(|(text, id)| (turned::<BACKWARD>(text), id)).collect();
        if sorted.is_empty() {
            return Self::default();
        }
        sorted.sort_unstable();
        let ids: Vec<u32> = sorted.iter().map(|(_, id)| *id).collect();
        let (mut nodes, mut keys, mut labels) = (vec![Node::default()], vec![0], Vec::new());
        let mut work = vec![Work { node: 0, texts: 0..sorted.len(), depth: 0 }];
        while let Some(Work { node, texts, depth }) = work.pop() {
            let group = sorted.get(texts.clone()).unwrap_or_default();
            let end = depth + common(group, depth);
            let (first, label) = (texts.start, labels.len());
            let text = group.first().and_then(|(text, _)| text.get(depth..end)).unwrap_or_default();
            labels.extend(turned::<BACKWARD>(text));
            let here = group.iter().take_while(|(text, _)| text.len() == end).count();
            let children = nodes.len();
            let mut at = here;
            while let Some(key) = group.get(at).and_then(|(text, _)| text.get(end)) {
                let same = |(text, _): &&(Vec<u8>, u32)| text.get(end) == Some(key);
                let count = group.iter().skip(at).take_while(same).count();
                work.push(Work { node: nodes.len(), texts: first + at..first + at + count, depth: end });
                nodes.push(Node::default());
                keys.push(*key);
                at += count;
            }
            let children = Span::new(children, nodes.len());
            if let Some(node) = nodes.get_mut(node) {
                node.label = Span::new(label, labels.len());
                node.ids = Span::new(first, first + here);
                node.children = children;
            }
        }
        Self { nodes: nodes.into(), keys: keys.into(), labels: labels.into(), ids: ids.into() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Calls `found` with the numbers of all texts that `value` begins (or ends) with, the shortest first.
    pub(super) fn find(&self, value: &[u8], found: &mut dyn FnMut(u32)) {
        self.split(value, |id, _| found(id));
    }

    /// The same with what is left of `value` behind (or before) the text.
    pub(super) fn split<'v>(&self, value: &'v [u8], mut found: impl FnMut(u32, &'v [u8])) {
        let mut rest = value;
        let mut at = self.nodes.first();
        while let Some(node) = at {
            let label = node.label.of(&self.labels);
            let after = if BACKWARD { rest.strip_suffix(label) } else { rest.strip_prefix(label) };
            let Some(after) = after else { return };
            node.ids.of(&self.ids).iter().for_each(|id| found(*id, after));
            rest = after;
            let key = if BACKWARD { rest.last() } else { rest.first() };
            at = key.and_then(|key| {
                let place = node.children.of(&self.keys).iter().position(|known| known == key)?;
                node.children.of(&self.nodes).get(place)
            });
        }
    }
}

/// As the trie reads it; turning twice gives the text back.
fn turned<const BACKWARD: bool>(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    if BACKWARD {
        text.reverse();
    }
    text
}

/// How many bytes from `depth` on all texts of a sorted group share.
fn common(group: &[(Vec<u8>, u32)], depth: usize) -> usize {
    let (first, last) = (rest_of(group.first(), depth), rest_of(group.last(), depth));
    first.iter().zip(last).take_while(|(a, b)| a == b).count()
}

fn rest_of(text: Option<&(Vec<u8>, u32)>, depth: usize) -> &[u8] {
    text.and_then(|(text, _)| text.get(depth..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 9] = ["", "/", "/a", "/ab", "/abc/d", "/b", "xyz", "/ab", "z"];

    #[test]
    fn all_prefixes_are_found() {
        let items = TEXTS.iter().zip(0..).map(|(text, id)| (text.as_bytes(), id));
        let trie = Trie::<false>::new(items);
        for value in ["", "/", "/a", "/abc/d/e", "/abc", "/b", "xy", "xyz1", "q", "/ab/abc"] {
            let mut found = Vec::new();
            trie.find(value.as_bytes(), &mut |id| found.push(id));
            found.sort_unstable();
            let starts = |(text, _): &(&&str, u32)| value.starts_with(**text);
            let expected: Vec<u32> = TEXTS.iter().zip(0..).filter(starts).map(|(_, id)| id).collect();
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn all_suffixes_are_found() {
        let texts = [".com", "a.com", "", "com", "b.org", "xa.com"];
        let trie = Trie::<true>::new(texts.iter().zip(0..).map(|(text, id)| (text.as_bytes(), id)));
        for value in ["a.com", "com", "m", "", "xxa.com", "b.org", ".org", "xa.comx"] {
            let mut found = Vec::new();
            trie.find(value.as_bytes(), &mut |id| found.push(id));
            found.sort_unstable();
            let ends = |(text, _): &(&&str, u32)| value.ends_with(**text);
            let expected: Vec<u32> = texts.iter().zip(0..).filter(ends).map(|(_, id)| id).collect();
            assert_eq!(found, expected, "{value}");
        }
        let mut found = Vec::new();
        Trie::<true>::default().find(b"a", &mut |id| found.push(id));
        assert!(found.is_empty());
    }
}
