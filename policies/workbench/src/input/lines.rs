//! Lines of bounded length, whatever the input holds: one that is too long is skipped in pieces, so that a file without
//! line breaks costs no more memory than any other.

use std::io::{self, BufRead};

use super::InputError;

/// The longest line that is read, in bytes. Envoy takes heads of at most 8 MiB, and of 60 KiB as Istio configures it.
pub(crate) const MAX_LINE_BYTES: usize = 4 << 20;

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Its text, without the line break.
    Text(String),
    /// It is no text; the offset of the first byte that is not UTF-8, from 0.
    NotUtf8(usize),
    /// It is longer than is read; nothing of it is kept.
    TooLong,
}

impl Line {
    /// What is wrong with a line that cannot be read as text.
    pub(crate) fn error(&self, line: u64) -> InputError {
        let (message, fix) = match self {
            Self::TooLong => (
                format!("longer than {MAX_LINE_BYTES} bytes"),
                "write one JSON object a line, each with a request that a proxy would take",
            ),
            Self::NotUtf8(offset) => (
                format!("the line is not UTF-8, from its byte {} on", offset + 1),
                "write JSON in UTF-8, one object a line",
            ),
            Self::Text(_) => ("the line cannot be read".to_owned(), "write one JSON object a line"),
        };
        InputError { line, field: String::new(), message, fix: fix.to_owned() }
    }
}

/// Reads lines with their numbers, from 1.
pub(crate) struct Lines<R> {
    input: R,
    number: u64,
    limit: usize,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, number: 0, limit: MAX_LINE_BYTES }
    }

    fn read(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let (mut long, mut any) = (false, false);
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if buffer.is_empty() {
                break;
            }
            any = true;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let (taken, rest) = buffer.split_at(end.unwrap_or(buffer.len()));
            long |= line.len() + taken.len() > self.limit;
            if long {
                line = Vec::new();
            } else {
                line.extend_from_slice(taken);
            }
            let passed = taken.len() + usize::from(!rest.is_empty());
            self.input.consume(passed);
            if end.is_some() {
                break;
            }
        }
        Ok(any.then(|| self.line(line, long)))
    }

    fn line(&self, mut line: Vec<u8>, long: bool) -> Line {
        if long {
            return Line::TooLong;
        }
        // Some editors begin a file with a byte order mark.
        if self.number == 0 && line.starts_with("\u{feff}".as_bytes()) {
            line.drain(..3);
        }
        match String::from_utf8(line) {
            Ok(text) => Line::Text(text),
            Err(error) => Line::NotUtf8(error.utf8_error().valid_up_to()),
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<(u64, Line)>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.read().transpose()?;
        self.number = self.number.saturating_add(1);
        Some(line.map(|line| (self.number, line)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn lines(input: &[u8], limit: usize) -> Vec<(u64, Line)> {
        // A buffer of three bytes: lines come in pieces.
        let reader = BufReader::with_capacity(3, input);
        Lines { limit, ..Lines::new(reader) }.map(Result::unwrap).collect()
    }

    #[test]
    fn lines_are_numbered_and_the_last_needs_no_break() {
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(lines(b"one\n\ntwo", 9), [(1, text("one")), (2, text("")), (3, text("two"))]);
        assert_eq!(lines(b"one\n", 9), [(1, text("one"))]);
        assert_eq!(lines(b"", 9), []);
        assert_eq!(lines("\u{feff}a\n\u{feff}b".as_bytes(), 9), [(1, text("a")), (2, text("\u{feff}b"))]);
    }

    #[test]
    fn a_line_too_long_or_no_text_leaves_the_others() {
        let found = lines(b"123456\n12345\nab\xff\n1", 5);
        assert_eq!(found[0], (1, Line::TooLong));
        assert_eq!(found[1], (2, Line::Text("12345".to_owned())));
        assert_eq!(found[2], (3, Line::NotUtf8(2)));
        assert_eq!(found[3], (4, Line::Text("1".to_owned())));
    }
}
