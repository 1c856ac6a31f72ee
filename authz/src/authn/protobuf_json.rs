//! JSON as protobuf prints it: lists and objects in claim headers reach the application in these very bytes.
//! All numbers are doubles there; members of an object come in no particular order, here in the token's.

use std::fmt::Write as _;

use serde_json::Value;

/// Digits that every double keeps, and digits that tell any two doubles apart.
const PRECISIONS: [usize; 2] = [15, 17];

/// Code points that protobuf escapes beside control characters, quotes, backslashes and angle brackets.
const ESCAPED: &[std::ops::RangeInclusive<u32>] = &[
    0x7f..=0x9f,
    0xad..=0xad,
    0x600..=0x603,
    0x6dd..=0x6dd,
    0x70f..=0x70f,
    0x17b4..=0x17b5,
    0x200b..=0x200f,
    0x2028..=0x202e,
    0x2060..=0x2064,
    0x206a..=0x206f,
    0xfeff..=0xfeff,
    0xfff9..=0xfffb,
    0x1d173..=0x1d17a,
    0xe0001..=0xe0001,
    0xe0020..=0xe007f,
];

pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => out.push_str(&number_text(number.as_f64().unwrap_or_default())),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                separate(out, index);
                write(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                separate(out, index);
                write_string(out, name);
                out.push(':');
                write(out, member);
            }
            out.push('}');
        }
    }
}

fn separate(out: &mut String, index: usize) {
    if index > 0 {
        out.push(',');
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if is_escaped(char) => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            _ => out.push(char),
        }
    }
    out.push('"');
}

fn is_escaped(char: char) -> bool {
    char < ' ' || matches!(char, '<' | '>') || ESCAPED.iter().any(|range| range.contains(&u32::from(char)))
}

/// `%.15g`, or `%.17g` where that would be another double.
fn number_text(number: f64) -> String {
    let mut text = String::new();
    for precision in PRECISIONS {
        text = general(number, precision);
        if text.parse() == Ok(number) {
            break;
        }
    }
    text
}

/// C's `%.{precision}g`.
fn general(number: f64, precision: usize) -> String {
    let scientific = format!("{number:.*e}", precision - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let Ok(power) = exponent.parse::<isize>() else { return scientific };
    match usize::try_from(power.max(0)) {
        Ok(whole) if power >= -4 && whole < precision => {
            let decimals = usize::try_from(isize::try_from(precision).unwrap_or(0) - 1 - power).unwrap_or(0);
            without_zeros(&format!("{number:.decimals$}")).to_owned()
        }
        _ => {
            let sign = if power < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", without_zeros(mantissa), power.unsigned_abs())
        }
    }
}

fn without_zeros(decimal: &str) -> &str {
    if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As observed on Envoy 1.40.
    #[test]
    fn numbers_are_printed_as_protobuf_prints_them() {
        let numbers = [
            (1.0, "1"),
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (123_456_789_012_345.0, "123456789012345"),
            (1_234_567_890_123_456.0, "1234567890123456"),
            (12_345_678_901_234_567.0, "12345678901234568"),
            (123_456_789_012_345_680_000.0, "1.2345678901234568e+20"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (std::f64::consts::PI, "3.1415926535897931"),
            (2.0 / 3.0, "0.66666666666666663"),
            (-1e100, "-1e+100"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "4.94065645841247e-324"),
            (123_456.789, "123456.789"),
            (0.300_000_000_000_000_04, "0.30000000000000004"),
        ];
        for (number, expected) in numbers {
            assert_eq!(number_text(number), expected);
        }
    }

    #[test]
    fn strings_are_escaped_as_protobuf_escapes_them() {
        let value = json!({"<k>": ["a\"\\/&'", "\u{0}\u{8}\u{c}\n\r\t\u{1f}\u{7f}\u{9f}é", "\u{2028}\u{feff}\u{e0020}😀", null, true, {}]});
        let expected = r#"{"\u003ck\u003e":["a\"\\/&'","\u0000\b\f\n\r\t\u001f\u007f\u009fé","\u2028\ufeff\udb40\udc20😀",null,true,{}]}"#;
        assert_eq!(text(&value), expected);
        assert_eq!(serde_json::from_str::<Value>(expected).unwrap(), value);
    }
}
