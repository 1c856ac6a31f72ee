//! Cutting a file into its documents before anything is parsed, so that a fault in one document does not hide the
//! faults of the next, and each document's text can be passed on alone.

/// One document's text, markers and comments included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    /// The line of its first line, counted from 1 in the text that was split.
    pub(crate) line: u32,
    pub(crate) text: &'a str,
}

impl Chunk<'_> {
    /// Whether something stands in it beside markers, comments and directives.
    pub(crate) fn has_content(&self) -> bool {
        let nothing = |line: &str| prologue(line) || matches!(line.trim_ascii(), "---" | "...");
        !self.text.lines().all(nothing)
    }
}

/// Cuts at lines that begin with `---` or follow `...`. A YAML document can hold neither at the begin of a line, in
/// no kind of scalar. Comments and directives before a document's `---` belong to that document.
pub(crate) fn split(text: &str) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1u32;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (length, lines) = measure(rest);
        let (head, tail) = rest.split_at_checked(length)?;
        let chunk = Chunk { line, text: head };
        rest = tail;
        line = line.saturating_add(lines);
        Some(chunk)
    })
}

/// Bytes and lines of the first document.
fn measure(text: &str) -> (usize, u32) {
    let (mut length, mut lines, mut begun) = (0usize, 0u32, false);
    for line in text.split_inclusive('\n') {
        if marker(line, "---") {
            if begun {
                break;
            }
            begun = true;
        } else if !begun {
            begun = !prologue(line);
        }
        length += line.len();
        lines = lines.saturating_add(1);
        if marker(line, "...") {
            break;
        }
    }
    (length, lines)
}

fn marker(line: &str, marker: &str) -> bool {
    let after = |rest: &str| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']);
    line.strip_prefix(marker).is_some_and(after)
}

fn prologue(line: &str) -> bool {
    let line = line.trim_ascii();
    line.is_empty() || line.starts_with(['#', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &str) -> Vec<(u32, &str)> {
        split(text).map(|chunk| (chunk.line, chunk.text)).collect()
    }

    #[test]
    fn markers_at_the_begin_of_a_line_cut() {
        assert_eq!(chunks("a: 1\n---\nb: 2\n"), [(1, "a: 1\n"), (2, "---\nb: 2\n")]);
        assert_eq!(chunks("--- {a: 1}\r\n---\r\n"), [(1, "--- {a: 1}\r\n"), (2, "---\r\n")]);
        assert_eq!(chunks("a: 1\n...\nb: 2"), [(1, "a: 1\n...\n"), (3, "b: 2")]);
    }

    #[test]
    fn a_prologue_belongs_to_the_document_after_it() {
        assert_eq!(chunks("# licence\n%YAML 1.2\n---\na: 1\n"), [(1, "# licence\n%YAML 1.2\n---\na: 1\n")]);
    }

    #[test]
    fn dashes_within_text_do_not_cut() {
        assert_eq!(chunks("a: |\n  ---\nb: ---x\n").len(), 1);
        assert_eq!(chunks("---a: 1\n").len(), 1);
        assert_eq!(chunks(""), []);
    }

    #[test]
    fn a_byte_order_mark_is_dropped() {
        assert_eq!(chunks("\u{feff}a: 1"), [(1, "a: 1")]);
    }
}
