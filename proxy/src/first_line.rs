//! Whether the first line that a client sends is a request line of HTTP, read as the most lenient server would.
//!
//! A port whose protocol is detected carries bytes undecided once it is sure that they are no HTTP. Being sure takes the
//! whole line, and nobody may wait for it: the server may want the first word at once. So the line is read on while it
//! passes, byte by byte and without a buffer, however long it is and however slowly it comes.

const VERSION: &[u8] = b"HTTP/";

/// A first line being read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FirstLine {
    known: Option<bool>,
    /// Words begun.
    words: usize,
    in_word: bool,
    /// The first word has no lower-case letter.
    upper: bool,
    /// The second word is a path.
    path: bool,
    /// How much of `HTTP/` the newest word begins with; none when it begins with something else.
    version: Option<usize>,
}

impl FirstLine {
    /// Reads on. Some when it is known whether this is HTTP.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<bool> {
        for byte in bytes {
            if self.known.is_some() {
                break;
            }
            self.step(*byte);
        }
        self.known
    }

    /// What it is if nothing more comes: some servers take the end of the stream for the end of the line.
    pub(crate) fn end(&self) -> bool {
        let versioned = self.words > 1 && self.version == Some(VERSION.len());
        // HTTP/0.9 has no version: `GET /path`.
        self.known.unwrap_or(versioned || (self.words == 2 && self.upper && self.path))
    }

    fn step(&mut self, byte: u8) {
        match byte {
            // Blank lines and space in front are skipped by some.
            b'\n' if self.words == 0 => {}
            b'\n' => self.known = Some(self.end()),
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => self.in_word = false,
            _ => self.letter(byte),
        }
    }

    fn letter(&mut self, byte: u8) {
        if !self.in_word {
            self.in_word = true;
            self.words = self.words.saturating_add(1);
            self.upper |= self.words == 1;
            self.path |= self.words == 2 && byte == b'/';
            self.version = Some(0);
        }
        if self.words == 1 {
            self.upper &= !byte.is_ascii_lowercase();
            if !is_token(byte) {
                self.known = Some(false);
            }
        }
        self.version = self.version.and_then(|n| match VERSION.get(n) {
            None => Some(n),
            Some(expected) => expected.eq_ignore_ascii_case(&byte).then_some(n + 1),
        });
    }
}

/// What methods and other tokens are made of (RFC 9110, 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines_at_every_split() {
        for (text, http) in [
            (&b"GET / HTTP/1.1\r\n"[..], true),
            (b"\r\n \nget\t/ http/9\n", true),
            (b"F00 * HTTP/1.1 \r\n", true),
            (b"PRI * HTTP/2.0\r\n", true),
            (b"GET /a b HTTP/1.1\n", true),
            (b"GET /\r\n", true),
            (b"HTTP/1.1\r\n", false),
            (b"get /key\r\n", false),
            (b"GET key\r\n", false),
            (b"set /k 0 0 5\r\n", false),
            (b"OPTIONS rtsp://a RTSP/1.0\r\n", false),
            (b"1.2.3.4 - \"GET / HTTP/1.1\" 200\n", false),
            (b"EHLO a\r\n", false),
            (b"\x16\x03\x01\n", false),
        ] {
            for split in 0..text.len() {
                let mut line = FirstLine::default();
                let early = line.read(&text[..split]);
                assert!(early.is_none() || early == Some(http), "{split} bytes of {:?}", String::from_utf8_lossy(text));
                assert_eq!(line.read(&text[split..]), Some(http), "{:?}", String::from_utf8_lossy(text));
                assert_eq!(line.end(), http);
            }
        }
        assert!(!FirstLine::default().end());
    }

    #[test]
    fn bytes_that_are_no_token_are_known_at_once() {
        for text in [&b"{"[..], b"\x00", b"<1", b"a\x80", b"\"", b"@"] {
            assert_eq!(FirstLine::default().read(text), Some(false), "{text:?}");
        }
    }
}
