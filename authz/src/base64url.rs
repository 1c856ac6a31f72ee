//! Base64 with the URL alphabet as Envoy reads it (`absl::WebSafeBase64Unescape`): tokens that Envoy accepts are
//! accepted here, odd spelling included. What is signed is the text itself, so leniency changes no content.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Bits behind the last byte are not looked at.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The bytes, or `None` where `text` is no base64. White space does not count; padding is left out or complete.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.iter().any(|byte| is_space(*byte)) {
        let dense: Vec<u8> = text.iter().copied().filter(|byte| !is_space(*byte)).collect();
        decode_dense(&dense)
    } else {
        decode_dense(text)
    }
}

fn decode_dense(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = text.get(..text.len() - padding)?;
    let complete = (4 - digits.len() % 4) % 4;
    if padding == 0 || padding == complete { LENIENT.decode(digits).ok() } else { None }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_is_as_free_as_envoys() {
        let cases: [(&str, Option<&[u8]>); 16] = [
            ("", Some(b"")),
            ("YQ", Some(b"a")),
            ("YQ==", Some(b"a")),
            ("YQ=", None),
            ("YQ===", None),
            ("YR", Some(b"a")),
            ("YWI", Some(b"ab")),
            ("YWI=", Some(b"ab")),
            ("YWI==", None),
            ("YWJj", Some(b"abc")),
            ("YWJj=", None),
            ("Y W\nJ\tj ", Some(b"abc")),
            ("-_-_", Some(&[0xfb, 0xff, 0xbf])),
            ("+/+/", None),
            ("Y", None),
            ("=", None),
        ];
        for (text, expected) in cases {
            assert_eq!(decode(text.as_bytes()).as_deref(), expected, "{text:?}");
        }
    }
}
