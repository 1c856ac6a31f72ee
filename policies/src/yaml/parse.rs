//! From the parser's events to a tree. No recursion over the input, and every bound is checked before memory is
//! spent.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Chunk, Entry, Kind, MAX_ALIAS_NODES, MAX_DEPTH, MAX_VALUES, Node, Pos, Scalar, Value};
use crate::catalogue::{Explanation, reading};

/// Why a document cannot be read at all.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) what: &'static Explanation,
    pub(crate) pos: Pos,
    pub(crate) message: String,
}

/// A document's tree, whether an alias was used in it, and how many values it has, those that aliases copied included.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: Node,
    pub(crate) aliases: bool,
    pub(crate) values: usize,
}

/// Reads one chunk; `None` if nothing stands in it. `first_line` is the line at which the chunk's source begins.
pub(crate) fn parse(chunk: Chunk<'_>, first_line: u32) -> Result<Option<Tree>, Fault> {
    let base = first_line.saturating_add(chunk.line).saturating_sub(1);
    if let Some(fault) = unreadable(chunk.text, base).or_else(|| too_many(chunk.text, base)) {
        return Err(fault);
    }
    tree(chunk.text, base).map_err(|fault| Fault { pos: within(chunk.text, base, fault.pos), ..fault })
}

fn tree(text: &str, base: u32) -> Result<Option<Tree>, Fault> {
    let mut builder = Builder::new(base, text);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| builder.syntax(&error))?;
        if event == Event::StreamEnd {
            break;
        }
        builder.event(event, span)?;
    }
    let (aliases, values) = (builder.aliases, builder.values + (MAX_ALIAS_NODES - builder.budget));
    Ok(builder.root.map(|root| Tree { root, aliases, values }))
}

/// A place no further than the end of its line: the parser counts some characters of a directive twice.
fn within(text: &str, base: u32, pos: Pos) -> Pos {
    let line = usize::try_from(pos.line.saturating_sub(base)).unwrap_or(usize::MAX);
    let length = text.split('\n').nth(line).map_or(0, |line| count(line.chars().count()));
    Pos { column: pos.column.min(length.saturating_add(1)), ..pos }
}

/// The parser keeps a whole flow collection in its memory before it gives its first value, because the collection
/// could turn out to be a key: what stands in one is counted before the parser sees it.
fn too_many(text: &str, base: u32) -> Option<Fault> {
    let bytes = text.as_bytes();
    let neighbours = bytes.iter().zip(bytes.iter().skip(1).chain(b"\n")).map(|(byte, next)| (*byte, *next));
    let marks = neighbours.filter(|pair| match pair {
        (b',' | b'[' | b'{', _) | (b'"' | b'\'', b':') => true,
        (b':' | b'?', next) => next.is_ascii_whitespace(),
        _ => false,
    });
    (marks.count() > MAX_VALUES).then(|| values_fault(Pos { line: base, column: 1, index: 0 }))
}

fn values_fault(pos: Pos) -> Fault {
    let message = format!("more than {MAX_VALUES} values in one document");
    Fault { what: &reading::TOO_MANY_VALUES, pos, message }
}

/// What the parser would not name. YAML takes a lone CR for a line break and editors do not: line numbers would be wrong
/// from there on. A NUL ends the text for the parser, wherever it stands.
fn unreadable(text: &str, base: u32) -> Option<Fault> {
    let bytes = text.as_bytes();
    let what = |(index, byte): (usize, &u8)| match byte {
        0 => Some((index, "a NUL character, which no YAML may have")),
        b'\r' if bytes.get(index + 1) != Some(&b'\n') => Some((index, "a carriage return without a line feed")),
        _ => None,
    };
    let (index, message) = bytes.iter().enumerate().find_map(what)?;
    let before = text.get(..index)?;
    let line = before.bytes().filter(|byte| *byte == b'\n').count();
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count());
    let pos = Pos { line: base.saturating_add(count(line)), column: count(column).saturating_add(1), index: 0 };
    Some(Fault { what: &reading::SYNTAX, pos, message: message.to_owned() })
}

fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A collection that is not finished.
struct Frame {
    pos: Pos,
    anchor: usize,
    content: Open,
}

enum Open {
    Seq(Vec<Node>),
    Map(Vec<Entry>, Option<(Scalar, Pos)>),
}

struct Builder {
    base: u32,
    /// The last line, and the column behind its end.
    last: (u32, u32),
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Node, usize)>,
    /// Nodes that may still be copied.
    budget: usize,
    /// Nodes read so far.
    values: usize,
    root: Option<Node>,
    aliases: bool,
    documents: u32,
}

impl Builder {
    fn new(base: u32, text: &str) -> Self {
        let last = text.lines().last().map_or(0, |line| line.chars().count());
        Self {
            base,
            last: (count(text.lines().count().max(1)), count(last).saturating_add(1)),
            stack: Vec::new(),
            anchors: HashMap::new(),
            budget: MAX_ALIAS_NODES,
            values: 0,
            root: None,
            aliases: false,
            documents: 0,
        }
    }

    /// The place of a marker; what the parser puts behind the end of the text is put at its end.
    fn pos(&self, marker: &Marker) -> Pos {
        let (line, column) = match (count(marker.line()), self.last) {
            (line, (last, behind)) if line > last => (last, behind),
            (line, _) => (line, count(marker.col()).saturating_add(1)),
        };
        Pos { line: self.base.saturating_add(line).saturating_sub(1), column, index: marker.index() }
    }

    fn syntax(&self, error: &ScanError) -> Fault {
        let pos = self.pos(error.marker());
        // The parser counts the levels of a flow collection before it gives us the first of them.
        if error.info() == "recursion limit exceeded" {
            return too_deep(pos, "");
        }
        Fault { what: &reading::SYNTAX, pos, message: format!("not YAML: {}", error.info()) }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let pos = self.pos(&span.start);
        match event {
            Event::DocumentStart(_) => self.document(pos),
            Event::SequenceStart(anchor, tag) => self.open(pos, anchor, tag.as_deref(), Open::Seq(Vec::new())),
            Event::MappingStart(anchor, tag) => self.open(pos, anchor, tag.as_deref(), Open::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => self.close(span.end.index()),
            Event::Scalar(text, style, anchor, tag) => {
                let kind = kind(&text, style, tag.as_deref()).ok_or_else(|| unknown_tag(pos, tag.as_deref()))?;
                let value = Value::Scalar(Scalar { text: text.into_owned(), kind });
                self.add(Node { pos, end: span.end.index(), value }, anchor)
            }
            Event::Alias(anchor) => self.alias(anchor, pos, span.end.index()),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn document(&mut self, pos: Pos) -> Result<(), Fault> {
        self.documents = self.documents.saturating_add(1);
        if self.documents > 1 {
            let message = "a second document begins here without `---` at the begin of a line".to_owned();
            return Err(Fault { what: &reading::SYNTAX, pos, message });
        }
        Ok(())
    }

    fn open(&mut self, pos: Pos, anchor: usize, tag: Option<&Tag>, content: Open) -> Result<(), Fault> {
        let expected = match content {
            Open::Seq(_) => "seq",
            Open::Map(..) => "map",
        };
        if tag.is_some_and(|tag| !tag.is_yaml_core_schema() || tag.suffix != expected) {
            return Err(unknown_tag(pos, tag));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(pos, ""));
        }
        self.stack.push(Frame { pos, anchor, content });
        Ok(())
    }

    fn close(&mut self, end: usize) -> Result<(), Fault> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let value = match frame.content {
            Open::Seq(items) => Value::Seq(items),
            Open::Map(entries, _) => Value::Map(merge(entries)?),
        };
        self.add(Node { pos: frame.pos, end, value }, frame.anchor)
    }

    /// Puts a finished value into the collection around it.
    fn add(&mut self, mut node: Node, anchor: usize) -> Result<(), Fault> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(values_fault(node.pos));
        }
        if anchor > 0 {
            let size = size(&node);
            self.spend(size, node.pos)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.content {
            Open::Seq(items) => items.push(node),
            Open::Map(entries, waiting) => match waiting.take() {
                None => *waiting = Some(key(node)?),
                Some((key, pos)) => {
                    if node.is_null() && node.end <= node.pos.index {
                        // Nothing is written: the key is the place to look at.
                        node.pos = pos;
                    }
                    entries.push(Entry { key, pos, value: node });
                }
            },
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, pos: Pos, end: usize) -> Result<(), Fault> {
        self.aliases = true;
        let Some((_, size)) = self.anchors.get(&anchor) else {
            let message = "an alias inside the value that it names".to_owned();
            return Err(Fault { what: &reading::ALIASES, pos, message });
        };
        self.spend(*size, pos)?;
        match self.anchors.get(&anchor) {
            Some((node, _)) => {
                let mut node = node.clone();
                node.end = end;
                self.check_depth(&node, pos)?;
                self.add(node, 0)
            }
            None => Ok(()),
        }
    }

    fn spend(&mut self, size: usize, pos: Pos) -> Result<(), Fault> {
        let message = || format!("anchors and aliases expand to more than {MAX_ALIAS_NODES} values");
        self.budget =
            self.budget.checked_sub(size).ok_or_else(|| Fault { what: &reading::ALIASES, pos, message: message() })?;
        Ok(())
    }

    /// An alias puts a whole tree below the place where it stands.
    fn check_depth(&self, node: &Node, pos: Pos) -> Result<(), Fault> {
        if self.stack.len() + depth(node) > MAX_DEPTH {
            return Err(too_deep(pos, " through an alias"));
        }
        Ok(())
    }
}

fn too_deep(pos: Pos, how: &str) -> Fault {
    Fault { what: &reading::TOO_DEEP, pos, message: format!("nested deeper than {MAX_DEPTH} levels{how}") }
}

fn kind(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Option<Kind> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Some(Kind::Text),
        Some(_) => None,
        None if style == ScalarStyle::Plain => Some(Kind::of_plain(text)),
        None => Some(Kind::Text),
    }
}

fn unknown_tag(pos: Pos, tag: Option<&Tag>) -> Fault {
    let name = tag.map_or_else(String::new, |tag| format!("{}{}", tag.handle, tag.suffix));
    Fault { what: &reading::TAG, pos, message: format!("the tag `{name}` is not supported") }
}

fn key(node: Node) -> Result<(Scalar, Pos), Fault> {
    match node.value {
        Value::Scalar(scalar) => Ok((scalar, node.pos)),
        _ => {
            let message = format!("a key is {} instead of text", node.what());
            Err(Fault { what: &reading::KEY, pos: node.pos, message })
        }
    }
}

/// `<<: *defaults` as Kubernetes' reader does it: the merged keys count unless the mapping has them itself.
fn merge(entries: Vec<Entry>) -> Result<Vec<Entry>, Fault> {
    if entries.iter().all(|entry| entry.key.kind != Kind::Merge) {
        return Ok(entries);
    }
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.key.kind == Kind::Merge);
    let mut known: HashSet<String> = own.iter().map(|entry| entry.key.text.clone()).collect();
    for entry in merges {
        let sources = match entry.value.value {
            Value::Seq(items) => items,
            _ => vec![entry.value],
        };
        for source in sources {
            let Value::Map(inherited) = source.value else {
                let message = "`<<` takes a mapping, or a list of mappings".to_owned();
                return Err(Fault { what: &reading::KEY, pos: entry.pos, message });
            };
            own.extend(inherited.into_iter().filter(|entry| known.insert(entry.key.text.clone())));
        }
    }
    Ok(own)
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar(_) => 0,
        Value::Seq(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| 1 + size(&entry.value)).sum(),
    }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(_) => 0,
        Value::Seq(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}
