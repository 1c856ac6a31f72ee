//! Characters that a terminal would act upon.

/// True for controls (C0, DEL, C1) and for characters that are invisible or turn the direction of writing.
fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` with such characters written as `\u{..}`, and `\` doubled so that nobody can write that himself.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            letter if acts(letter) => out.extend(letter.escape_unicode()),
            letter => out.push(letter),
        }
    }
    out
}

/// A JSON document with such characters written as JSON escapes: they can only stand inside strings.
pub(super) fn json(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    let mut units = [0; 2];
    for letter in document.chars() {
        if acts(letter) {
            for unit in letter.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    #[test]
    fn a_terminal_sees_no_sequence() {
        assert_eq!(super::text("a\u{1b}[31m\r\nb\u{9b}\u{202e}\\"), "a\\u{1b}[31m\\u{d}\\u{a}b\\u{9b}\\u{202e}\\\\");
        assert_eq!(super::text("Ünïcode 漢字"), "Ünïcode 漢字");
    }

    proptest! {
        #[test]
        fn json_says_the_same_without_them(text: String) {
            let document = serde_json::Value::String(text).to_string();
            let escaped = super::json(&document);
            prop_assert!(!escaped.chars().any(super::acts));
            let (before, after): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(&document).unwrap(), serde_json::from_str(&escaped).unwrap());
            prop_assert_eq!(before, after);
        }
    }
}
