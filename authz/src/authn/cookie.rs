//! Tokens in cookies, cut as Envoy's `forEachCookie` does it.

/// The value of the first cookie called `name` in one `cookie` header; quotes around it are not part of it.
pub(super) fn first<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    header.split(|byte| *byte == b';').find_map(|pair| {
        let pair = pair.get(pair.iter().take_while(|byte| **byte == b' ').count()..)?;
        let (key, value) = split(pair)?;
        (key == name.as_bytes()).then(|| unquoted(value))
    })
}

fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    Some((pair.get(..equals)?, pair.get(equals + 1..)?))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_cut_as_envoy_cuts_them() {
        let cases: [(&str, Option<&str>); 10] = [
            ("a=1; t=x; b=2", Some("x")),
            ("t=x", Some("x")),
            ("t=\"x\"", Some("x")),
            ("t=\"x", Some("\"x")),
            ("t=\"", Some("\"")),
            ("t=x;t=y", Some("x")),
            ("t ; t = x; T=x", None),
            ("t=a=b", Some("a=b")),
            ("t=", Some("")),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(first(header.as_bytes(), "t"), expected.map(str::as_bytes), "{header}");
        }
    }
}
