//! Reading a tree into types: each helper takes a value of one shape, reports anything else with its place and path,
//! and goes on, so that all faults of a document are found at once.

use std::{collections::HashSet, fmt, sync::Arc};

use crate::{
    Diagnostic,
    catalogue::{Explanation, reading, shape},
    suggest::nearest,
    yaml::{Entry, Kind, Node, Pos, Scalar, Value},
};

/// How many findings one load reports.
pub(crate) const MAX_FINDINGS: usize = 1000;

/// The path of a field, built only when something is reported.
#[derive(Clone, Copy)]
pub(crate) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl<'p> Path<'p> {
    pub(crate) fn key(&'p self, key: &'p str) -> Self {
        Self::Key(self, key)
    }

    pub(crate) fn index(&'p self, index: usize) -> Self {
        Self::Index(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(&quote(key)),
            Self::Key(parent, key) => {
                let plain = !key.is_empty()
                    && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
                if plain { write!(f, "{parent}.{key}") } else { write!(f, "{parent}[\"{}\"]", quote(key)) }
            }
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A text as it may stand in a message: one line, bounded.
pub(crate) fn quote(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out.replace("\\\"", "\"").replace("\\'", "'")
}

/// What has been found so far, and in which file the reader is.
pub(crate) struct Cx {
    pub(crate) file: Arc<str>,
    pub(crate) findings: Vec<Diagnostic>,
    /// Errors, the ones beyond the bound included.
    pub(crate) errors: usize,
}

impl Cx {
    pub(crate) fn new(file: Arc<str>) -> Self {
        Self { file, findings: Vec::new(), errors: 0 }
    }

    /// The known word that was probably meant. None is looked for where nobody will see it: a million looks take
    /// their time.
    pub(crate) fn suggest<'k>(&self, word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
        if self.findings.len() > MAX_FINDINGS { None } else { nearest(word, known) }
    }

    pub(crate) fn report(&mut self, what: &'static Explanation, pos: Pos, path: &Path<'_>, message: String) {
        self.report_fix(what, pos, path, message, what.fix.to_owned());
    }

    pub(crate) fn report_fix(
        &mut self,
        what: &'static Explanation,
        pos: Pos,
        path: &Path<'_>,
        message: String,
        fix: String,
    ) {
        self.errors += usize::from(what.severity == crate::Severity::Error);
        let what = match self.findings.len() {
            shown if shown < MAX_FINDINGS => what,
            MAX_FINDINGS => &reading::MORE,
            _ => return,
        };
        let more = std::ptr::eq(what, &raw const reading::MORE);
        self.findings.push(Diagnostic {
            code: what.code,
            severity: what.severity,
            file: Arc::clone(&self.file),
            line: pos.line,
            column: pos.column,
            field: if more { String::new() } else { path.to_string() },
            message: if more { format!("only the first {MAX_FINDINGS} findings are shown") } else { message },
            fix: if more { what.fix.to_owned() } else { fix },
        });
    }

    /// The fields of a mapping, of which `known` are allowed.
    pub(crate) fn object<'n>(&mut self, node: &'n Node, path: &Path<'_>, known: &[&str]) -> Option<Object<'n>> {
        let entries = self.entries(node, path)?;
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.text.as_str())) {
            self.unknown_field(entry, path, known);
        }
        Some(Object { entries, pos: node.pos })
    }

    pub(crate) fn unknown_field(&mut self, entry: &Entry, path: &Path<'_>, known: &[&str]) {
        let message = format!("unknown field `{}`", quote(&entry.key.text));
        let fix = match self.suggest(&entry.key.text, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("remove it; known fields are {}", list(known)),
        };
        self.report_fix(&shape::UNKNOWN_FIELD, entry.pos, &path.key(&entry.key.text), message, fix);
    }

    /// The pairs of a mapping: keys are text and unique.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n [Entry]> {
        let Value::Map(entries) = &node.value else {
            self.wrong_type(node, path, "a mapping");
            return None;
        };
        let mut seen: HashSet<&str> = HashSet::new();
        for entry in entries {
            let key = path.key(&entry.key.text);
            if !key_is_text(&entry.key) {
                let message = format!("the key `{}` is {}, not text", quote(&entry.key.text), entry.key.kind.what());
                self.report_fix(&reading::KEY, entry.pos, &key, message, quotes(&entry.key.text));
            }
            if !seen.insert(&entry.key.text) {
                let message = format!("`{}` is already set in this mapping", quote(&entry.key.text));
                self.report(&reading::DUPLICATE_KEY, entry.pos, &key, message);
            }
        }
        Some(entries)
    }

    /// The items of a list.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, path: &Path<'_>, max: usize) -> Option<&'n [Node]> {
        let Value::Seq(items) = &node.value else {
            self.wrong_type(node, path, "a list");
            return None;
        };
        if items.len() > max {
            let message = format!("{} entries, at most {max} are allowed", items.len());
            self.report(&shape::TOO_MANY_ITEMS, node.pos, path, message);
            return None;
        }
        Some(items)
    }

    /// A text, possibly empty.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n str> {
        let Value::Scalar(scalar) = &node.value else {
            self.wrong_type(node, path, "text");
            return None;
        };
        match scalar.kind {
            Kind::Text | Kind::Merge => Some(&scalar.text),
            Kind::Null => {
                self.wrong_type(node, path, "text");
                None
            }
            Kind::Bool | Kind::Int | Kind::Float => {
                let message = format!("`{}` without quotes is {}, not text", quote(&scalar.text), scalar.kind.what());
                self.report_fix(&shape::NEEDS_QUOTES, node.pos, path, message, quotes(&scalar.text));
                None
            }
        }
    }

    /// A text of at most `max` characters, not empty.
    pub(crate) fn value<'n>(&mut self, node: &'n Node, path: &Path<'_>, max: usize) -> Option<&'n str> {
        let text = self.text(node, path)?;
        if text.is_empty() {
            self.report(&shape::EMPTY_VALUE, node.pos, path, "empty text".to_owned());
            return None;
        }
        if text.chars().count() > max {
            self.report(&shape::TOO_LONG, node.pos, path, format!("longer than {max} characters"));
            return None;
        }
        Some(text)
    }

    /// A whole number within a range.
    pub(crate) fn number(&mut self, node: &Node, path: &Path<'_>, min: u32, max: u32) -> Option<u32> {
        let Value::Scalar(scalar) = &node.value else {
            self.wrong_type(node, path, "a whole number");
            return None;
        };
        if scalar.kind != Kind::Int {
            self.wrong_type(node, path, "a whole number without quotes");
            return None;
        }
        let number = scalar.text.parse().ok().filter(|number| (min..=max).contains(number) && decimal(&scalar.text));
        if number.is_none() {
            let message = format!("`{}` is not a decimal number from {min} to {max}", quote(&scalar.text));
            self.report(&shape::OUT_OF_RANGE, node.pos, path, message);
        }
        number
    }

    /// A boolean, in any of the spellings of YAML 1.1 (which is what Kubernetes reads).
    pub(crate) fn boolean(&mut self, node: &Node, path: &Path<'_>) -> Option<bool> {
        match &node.value {
            Value::Scalar(scalar) if scalar.kind == Kind::Bool => {
                Some(scalar.text.starts_with(['t', 'T', 'y', 'Y']) || scalar.text.eq_ignore_ascii_case("on"))
            }
            _ => {
                self.wrong_type(node, path, "`true` or `false` without quotes");
                None
            }
        }
    }

    /// The texts of a list, none of them empty.
    pub(crate) fn values(&mut self, node: &Node, path: &Path<'_>, max: usize) -> Vec<String> {
        let items = self.list(node, path, max).unwrap_or_default();
        let text = |(index, item)| self.value(item, &path.index(index), usize::MAX).map(str::to_owned);
        items.iter().enumerate().filter_map(text).collect()
    }

    /// One of a few known texts.
    pub(crate) fn choice<T: Copy>(&mut self, node: &Node, path: &Path<'_>, known: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, path)?;
        let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let fix = match self.suggest(text, names.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("use one of {}", list(&names)),
            };
            let message = format!("unknown value `{}`", quote(text));
            self.report_fix(&shape::UNKNOWN_VALUE, node.pos, path, message, fix);
        }
        found
    }

    pub(crate) fn wrong_type(&mut self, node: &Node, path: &Path<'_>, expected: &str) {
        if node.is_null() {
            self.report(&shape::NULL_VALUE, node.pos, path, format!("null, where {expected} is expected"));
            return;
        }
        let message = format!("{} where {expected} is expected", node.what());
        self.report_fix(&shape::WRONG_TYPE, node.pos, path, message, format!("write {expected}"));
    }

    pub(crate) fn missing(&mut self, pos: Pos, path: &Path<'_>, field: &str) {
        let message = format!("`{field}` is required");
        self.report_fix(&shape::MISSING_FIELD, pos, &path.key(field), message, format!("add `{field}`"));
    }
}

/// The fields of a mapping.
#[derive(Clone, Copy)]
pub(crate) struct Object<'n> {
    pub(crate) entries: &'n [Entry],
    pub(crate) pos: Pos,
}

impl<'n> Object<'n> {
    pub(crate) fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key.text == key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }
}

/// A key that means the same text to Kubernetes: text, or a whole number in its usual form.
fn key_is_text(key: &Scalar) -> bool {
    match key.kind {
        Kind::Text => true,
        Kind::Int => decimal(&key.text),
        _ => false,
    }
}

fn decimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

fn quotes(text: &str) -> String {
    format!("put it in quotes: \"{}\"", quote(text))
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}
