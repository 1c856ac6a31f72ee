//! The string forms of a policy value: `*`, `*suffix`, `prefix*`, exact. Never more: `a*b` is literal.

/// One string form, compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Text {
    /// Header presence: an empty value matches.
    Present,
    /// ztunnel's presence: any non-empty value.
    Filled,
    /// Envoy's regular expression `.+`: not empty, and `.` matches no line feed.
    Line,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
}

impl Text {
    /// The form of `value`, with `star` for a lone `*`. The leading star is tried first; what remains is literal.
    pub(crate) fn parse(value: &str, star: Self) -> Self {
        if value == "*" {
            star
        } else if let Some(suffix) = value.strip_prefix('*') {
            Self::Suffix(suffix.into())
        } else if let Some(prefix) = value.strip_suffix('*') {
            Self::Prefix(prefix.into())
        } else {
            Self::Exact(value.into())
        }
    }

    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Filled => !value.is_empty(),
            Self::Line => !value.is_empty() && !value.contains(&b'\n'),
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
        }
    }

    /// ASCII case is ignored on both sides (hosts).
    pub(crate) fn matches_ignoring_case(&self, value: &str) -> bool {
        // Policies are lower case once compiled, and most hosts come so.
        self.compare(value, |text, part| text == part || text.eq_ignore_ascii_case(part))
    }

    /// The value counts as lower case, the policy as written (SNI): an upper-case policy never matches.
    pub(crate) fn matches_lowered(&self, value: &str) -> bool {
        self.compare(value, |text, part| text.iter().copied().eq(part.iter().map(u8::to_ascii_lowercase)))
    }

    fn compare(&self, value: &str, equal: impl Fn(&[u8], &[u8]) -> bool) -> bool {
        let value = value.as_bytes();
        match self {
            Self::Present | Self::Filled | Self::Line => self.matches(value),
            Self::Exact(text) => equal(text.as_bytes(), value),
            Self::Prefix(text) => value.get(..text.len()).is_some_and(|head| equal(text.as_bytes(), head)),
            Self::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .and_then(|at| value.get(at..))
                .is_some_and(|tail| equal(text.as_bytes(), tail)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_in_istios_order() {
        let parse = |value| Text::parse(value, Text::Line);
        assert_eq!(parse("*"), Text::Line);
        assert_eq!(parse("**foo"), Text::Suffix("*foo".into()));
        assert_eq!(parse("/foo**"), Text::Prefix("/foo*".into()));
        assert_eq!(parse("*a*"), Text::Suffix("a*".into()));
        assert_eq!(parse("a*b"), Text::Exact("a*b".into()));
        assert_eq!(parse("**"), Text::Suffix("*".into()));
    }

    #[test]
    fn presence_has_three_meanings() {
        assert!(Text::Present.matches(b""));
        assert!(!Text::Line.matches(b"") && !Text::Line.matches(b"a\nb") && Text::Line.matches(b"a"));
        assert!(!Text::Filled.matches(b"") && Text::Filled.matches(b"a\nb"));
    }

    #[test]
    fn case_rules() {
        let upper = Text::parse("API.example.com", Text::Line);
        assert!(!upper.matches_lowered("API.example.com"));
        assert!(upper.matches_ignoring_case("api.EXAMPLE.com"));
        assert!(Text::parse("*.example.com", Text::Line).matches_lowered("A.Example.Com"));
        assert!(Text::parse("api.*", Text::Line).matches_lowered("API.x"));
        assert!(!Text::parse("api.longer*", Text::Line).matches_ignoring_case("api"));
    }
}
