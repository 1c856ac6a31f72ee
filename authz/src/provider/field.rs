//! Header fields from outside: which may be taken over, and which patterns of a provider's configuration name them.

/// Name and value of a field that may be forwarded: a lower-case token, a value without control bytes or outer spaces.
pub(super) fn checked(name: &str, value: &[u8]) -> Result<(String, Vec<u8>), Malformed> {
    let name = name.to_ascii_lowercase();
    let value = value.trim_ascii();
    let named = is_name(name.strip_prefix(':').unwrap_or(&name));
    let valued = value.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f));
    if named && valued { Ok((name, value.to_vec())) } else { Err(Malformed) }
}

/// Something that cannot be forwarded as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Whether a field may be called so. Pseudo-headers are no fields.
pub(super) fn is_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

/// Fields that speak of one connection or of a message's framing: nobody's to forward or to set for another hop.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    const NAMES: [&str; 11] = [
        "connection",
        "content-length",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.contains(&name)
}

/// A list of header names as Istio writes them: exact, `prefix*`, `*suffix`; letter case does not count.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Vec<Name>);

#[derive(Debug, Clone)]
enum Name {
    Exact(String),
    Prefix(String),
    Suffix(String),
}

impl Names {
    pub(super) fn new(patterns: &[String]) -> Self {
        // A star in front is looked for first, so that the rest of `*x*` is literal.
        let name = |pattern: &String| {
            let pattern = pattern.to_ascii_lowercase();
            match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
                (Some(suffix), _) => Name::Suffix(suffix.to_owned()),
                (None, Some(prefix)) => Name::Prefix(prefix.to_owned()),
                (None, None) => Name::Exact(pattern),
            }
        };
        Self(patterns.iter().map(name).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `name` is lower case.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Name::Exact(exact) => name == exact,
            Name::Prefix(prefix) => name.starts_with(prefix.as_str()),
            Name::Suffix(suffix) => name.ends_with(suffix.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_prefix_or_suffix_whatever_their_case() {
        let names = Names::new(&["X-Id".into(), "x-pre-*".into(), "*-Suf".into(), "*a*".into()]);
        for (name, has) in [
            ("x-id", true),
            ("x-id2", false),
            ("x-pre-", true),
            ("x-pre-a", true),
            ("ax-pre-", false),
            ("any-suf", true),
            ("any-suf2", false),
            ("xa*", true),
            ("xab", false),
        ] {
            assert_eq!(names.has(name), has, "{name}");
        }
        assert!(Names::new(&[]).is_empty() && !Names::new(&[]).has(""));
    }

    #[test]
    fn fields_that_cannot_be_forwarded_are_refused() {
        assert_eq!(checked("X-A", b" a b\t"), Ok(("x-a".into(), b"a b".to_vec())));
        assert_eq!(checked(":Path", b"/"), Ok((":path".into(), b"/".to_vec())));
        assert_eq!(checked("x", b"\xff"), Ok(("x".into(), b"\xff".to_vec())));
        for (name, value) in [
            ("", &b"a"[..]),
            (":", b"a"),
            ("a b", b"a"),
            ("a:", b"a"),
            ("é", b"a"),
            ("x", b"a\r\nb: c"),
            ("x", b"a\nb"),
            ("x", b"a\0"),
            ("x", b"\x7f"),
        ] {
            assert_eq!(checked(name, value), Err(Malformed), "{name:?} {value:?}");
        }
    }
}
