//! googleurl's path canonicalisation, with Envoy's addition of parameters on dot segments.

use std::borrow::Cow;

use super::PathError;

/// Bytes that leave as they came, whether written plainly or already escaped.
const fn keeps(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&'..=b',' | b'/' | b':' | b';' | b'=' | b'@' | b'[' | b']') || unreserved(byte)
}

/// Bytes whose escapes are decoded.
const fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

pub(super) fn path(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if is_canonical(raw.as_bytes()) {
        return Ok(Cow::Borrowed(raw));
    }
    let stripped = strip_dot_parameters(raw);
    let mut writer =
        Writer { input: stripped.as_bytes(), next: 0, out: Vec::with_capacity(raw.len() + 8), stray_percent: None };
    writer.run()?;
    // Only ASCII is ever written.
    Ok(Cow::Owned(writer.out.into_iter().map(char::from).collect()))
}

/// Nothing to do: the common case, decided without copying.
fn is_canonical(path: &[u8]) -> bool {
    path.first() == Some(&b'/') && path.iter().all(|byte| keeps(*byte)) && !path.windows(2).any(|pair| pair == b"/.")
}

/// `/..;x/` and `/.;x/` are dot segments to Envoy 1.40: the parameters of literal dots go first.
fn strip_dot_parameters(raw: &str) -> Cow<'_, str> {
    if !raw.contains(".;") {
        return Cow::Borrowed(raw);
    }
    let segments = raw.split('/').map(|segment| {
        if segment.starts_with("..;") {
            ".."
        } else if segment.starts_with(".;") {
            "."
        } else {
            segment
        }
    });
    Cow::Owned(segments.collect::<Vec<_>>().join("/"))
}

struct Writer<'a> {
    input: &'a [u8],
    next: usize,
    out: Vec<u8>,
    /// Where `out` holds the last `%` that began no valid escape.
    stray_percent: Option<usize>,
}

impl Writer<'_> {
    fn run(&mut self) -> Result<(), PathError> {
        if !matches!(self.input.first(), Some(b'/' | b'\\')) {
            self.out.push(b'/');
        }
        while let Some(byte) = self.input.get(self.next).copied() {
            if let Some(length) = self.dot(self.next) {
                self.dot_segment(length);
            } else if byte == b'%' {
                self.escape()?;
            } else {
                self.next += 1;
                match byte {
                    b'\\' => self.out.push(b'/'),
                    _ if keeps(byte) => self.out.push(byte),
                    _ => self.push_escaped(byte),
                }
            }
        }
        Ok(())
    }

    /// Length of a dot at `at`, plain or escaped.
    fn dot(&self, at: usize) -> Option<usize> {
        match self.input.get(at..)? {
            [b'.', ..] => Some(1),
            [b'%', b'2', b'e' | b'E', ..] => Some(3),
            _ => None,
        }
    }

    /// Length of the segment end at `at`: a slash, or the end of the path.
    fn segment_end(&self, at: usize) -> Option<usize> {
        match self.input.get(at) {
            None => Some(0),
            Some(b'/' | b'\\') => Some(1),
            Some(_) => None,
        }
    }

    fn dot_segment(&mut self, length: usize) {
        let after = self.next + length;
        if self.out.last() == Some(&b'/') {
            if let Some(end) = self.segment_end(after) {
                self.next = after + end;
                return;
            }
            let second = self.dot(after).map(|second| after + second);
            let end = second.and_then(|at| Some(at + self.segment_end(at)?));
            if let Some(end) = end {
                self.next = end;
                self.drop_segment();
                return;
            }
        }
        self.out.push(b'.');
        self.next = after;
    }

    /// `/a/b/` becomes `/a/`; the first slash always stays.
    fn drop_segment(&mut self) {
        let before = self.out.len().saturating_sub(1);
        let slash = self.out.get(..before).and_then(|head| head.iter().rposition(|byte| *byte == b'/'));
        self.out.truncate(slash.unwrap_or(0) + 1);
    }

    fn escape(&mut self) -> Result<(), PathError> {
        let Some(value) = self.input.get(self.next..).and_then(decode) else {
            self.stray_percent = Some(self.out.len());
            self.out.push(b'%');
            self.next += 1;
            return Ok(());
        };
        if value == 0 {
            return Err(PathError::Nul);
        }
        let end = self.next + 3;
        if unreserved(value) {
            self.out.push(value);
            self.next = end;
            self.guard_nested(value);
        } else {
            // The case of the hex digits is kept: a server may be sensitive to it.
            self.out.extend_from_slice(self.input.get(self.next..end).unwrap_or_default());
            self.next = end;
        }
        Ok(())
    }

    /// `%%300` must not become `%00`: where decoding completed an escape behind a stray `%`, that one is escaped.
    fn guard_nested(&mut self, decoded: u8) {
        let Some(percent) = self.stray_percent else {
            return;
        };
        let following = self.input.get(self.next).copied();
        let tail = self.out.get(percent + 1..).unwrap_or_default();
        let guarded = match (tail, following) {
            ([_], Some(next)) if decode(&[b'%', decoded, next]).is_some() => true,
            ([first, _], _) => decode(&[b'%', *first, decoded]).is_some(),
            _ => false,
        };
        if guarded {
            let at = percent + 1;
            self.out.splice(at..at, *b"25");
        }
    }

    fn push_escaped(&mut self, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        self.out.push(b'%');
        for nibble in [byte >> 4, byte & 15] {
            self.out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
        }
    }
}

fn decode(escape: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = escape else {
        return None;
    };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}
