//! Path templates: a trie over segments, walked along a literal and an operator at each step.

use std::collections::HashMap;

use crate::index::hash::{Table, hash};
use crate::index::trie::Trie;
use crate::predicate::{Segment, Template, in_class};

/// Segments before `{**}` of a template that is indexed: the walk goes one call deeper with each.
const DEEPEST: usize = 64;

/// All templates of a set.
#[derive(Debug, Default)]
pub(super) struct Templates {
    nodes: Box<[Node]>,
    /// Nodes by the number of the node above and the literal segment.
    literals: Table,
}

#[derive(Debug, Default)]
struct Node {
    /// Behind `{*}`.
    any: Option<u32>,
    /// Templates that end here.
    ids: Vec<u32>,
    /// Templates with `{**}` here, by what follows it.
    open: Option<Trie<true>>,
}

/// While it is built.
struct Draft<'a> {
    nodes: Vec<Node>,
    literals: HashMap<(u32, &'a str), u32>,
    open: HashMap<u32, Vec<(&'a [u8], u32)>>,
}

impl<'a> Draft<'a> {
    fn add(&mut self, template: &'a Template, id: u32) {
        let mut at = 0;
        for segment in template.head() {
            let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
            let to = match (segment, self.node(at)) {
                (Segment::Any, Some(node)) => *node.any.get_or_insert(next),
                (Segment::Any, None) => return,
                (Segment::Literal(text), _) => *self.literals.entry((at, text)).or_insert(next),
            };
            if to == next {
                self.nodes.push(Node::default());
            }
            at = to;
        }
        if let Some(tail) = template.tail() {
            self.open.entry(at).or_default().push((tail.as_bytes(), id));
        } else if let Some(node) = self.node(at) {
            node.ids.push(id);
        }
    }

    fn node(&mut self, at: u32) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(at).ok()?)
    }
}

impl Templates {
    /// Whether the template can be indexed.
    pub(super) const fn takes(template: &Template) -> bool {
        template.head().len() <= DEEPEST
    }

    pub(super) fn new<'a>(items: impl Iterator<Item = (&'a Template, u32)>) -> Self {
        let mut draft = Draft { nodes: vec![Node::default()], literals: HashMap::new(), open: HashMap::new() };
        let mut items = items.peekable();
        if items.peek().is_none() {
            return Self::default();
        }
        items.for_each(|(template, id)| draft.add(template, id));
        for (at, tails) in std::mem::take(&mut draft.open) {
            if let Some(node) = draft.node(at) {
                node.open = Some(Trie::new(tails.into_iter()));
            }
        }
        let keyed = |((above, text), to): (&(u32, &str), &u32)| {
            (place(*above, text), [&above.to_le_bytes(), text.as_bytes()].concat(), *to)
        };
        let keys: Vec<(u64, Vec<u8>, u32)> = draft.literals.iter().map(keyed).collect();
        let literals = Table::new(keys.iter().map(|(place, key, to)| (*place, key.as_slice(), *to)));
        Self { nodes: draft.nodes.into(), literals }
    }

    /// Calls `found` with the numbers of all templates that match `path`.
    pub(super) fn find(&self, path: &str, found: &mut dyn FnMut(u32)) {
        if !self.nodes.is_empty() {
            self.walk(0, path, found);
        }
    }

    fn walk(&self, at: u32, rest: &str, found: &mut dyn FnMut(u32)) {
        let Some(node) = usize::try_from(at).ok().and_then(|at| self.nodes.get(at)) else {
            return;
        };
        if rest.is_empty() {
            node.ids.iter().for_each(|id| found(*id));
        }
        let Some(body) = rest.strip_prefix('/') else {
            return;
        };
        if let Some(tails) = &node.open {
            open(tails, body.as_bytes(), found);
        }
        let end = body.bytes().position(|byte| byte == b'/').unwrap_or(body.len());
        let Some((segment, after)) = body.split_at_checked(end) else {
            return;
        };
        let is_here = |key: &[u8]| {
            key.split_first_chunk::<4>()
                .is_some_and(|(above, text)| *above == at.to_le_bytes() && text == segment.as_bytes())
        };
        self.literals.find(place(at, segment), is_here, &mut |to| self.walk(to, after, found));
        if let Some(to) = node.any
            && !segment.is_empty()
            && segment.bytes().all(in_class)
        {
            self.walk(to, after, found);
        }
    }
}

/// `{**}` stands for what its tail leaves of `body`, as far as the class of bytes allows.
fn open(tails: &Trie<true>, body: &[u8], found: &mut dyn FnMut(u32)) {
    let clean = body.iter().take_while(|byte| in_class(**byte) || **byte == b'/').count();
    tails.split(body, |id, middle| {
        if middle.len() <= clean {
            found(id);
        }
    });
}

fn place(above: u32, text: &str) -> u64 {
    hash(u64::from(above), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATES: &str = "/{**} /{*} /a/{*} /a/{**} /a/{**}/z /a/b /{*}/b /{*}/{*} /a/{*}/c/{**}/ / /b/{*} /{*}/{**} \
                             /a/{**}/y/z /{*}/b/ //{*}";
    const PATHS: &str = "/  /a /a/ /a/b /a/b/ /a/x/y/z /a/z /a//z /a/[/z /b/[x] /b/x //x /a/é /a/x/c/y/ /a/x/c/[/ a/b \
                         /a/b/c/d/e/f/z";

    #[test]
    fn all_that_match_are_found() {
        let templates: Vec<Template> = TEMPLATES.split(' ').map(|text| Template::parse(text).unwrap()).collect();
        let index = Templates::new(templates.iter().zip(0..));
        for path in PATHS.split(' ') {
            let mut found = Vec::new();
            index.find(path, &mut |id| found.push(id));
            found.sort_unstable();
            let matching = templates.iter().zip(0..).filter(|(one, _)| one.matches(path));
            assert_eq!(found, matching.map(|(_, id)| id).collect::<Vec<u32>>(), "{path}");
        }
        Templates::default().find("/", &mut |_| panic!("nothing is in it"));
    }
}
