//! Path templates: `{*}` is one segment, `{**}` any rest, matched in one pass without a regular expression.
//!
//! Envoy compiles a template to a regular expression over a fixed class of bytes. The class is what makes
//! `/admin/{*}` miss `/admin/a[b]`, so it is kept exactly.

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Template {
    /// Segments after the leading slash, up to `{**}` where there is one.
    head: Box<[Segment]>,
    /// Literal text after `{**}` with its leading slash; `None` without `{**}`.
    tail: Option<Box<str>>,
}

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    Literal(Box<str>),
    Any,
}

/// `A-Za-z0-9-._~%!$&'()*+,;:=@`: what Envoy lets an operator match.
pub(crate) const fn in_class(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&'..=b',' | b';' | b':' | b'=' | b'@')
}

impl Template {
    /// Whether `value` is a template at all.
    pub(crate) fn is_template(value: &str) -> bool {
        value.contains("{*}") || value.contains("{**}")
    }

    /// `None` for what validation refuses: no leading slash, braces elsewhere, an operator after `{**}`.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let body = value.strip_prefix('/')?;
        let mut head = Vec::new();
        let mut segments = body.split('/');
        let mut tail = None;
        for segment in segments.by_ref() {
            match segment {
                "{*}" => head.push(Segment::Any),
                "{**}" => {
                    tail = Some(String::new());
                    break;
                }
                literal => head.push(Segment::Literal(checked(literal)?.into())),
            }
        }
        if let Some(tail) = &mut tail {
            for literal in segments {
                tail.push('/');
                tail.push_str(checked(literal)?);
            }
        }
        Some(Self { head: head.into(), tail: tail.map(Into::into) })
    }

    /// The segments before `{**}`, or all of them.
    pub(crate) const fn head(&self) -> &[Segment] {
        &self.head
    }

    /// What follows `{**}`, with its slash.
    pub(crate) fn tail(&self) -> Option<&str> {
        self.tail.as_deref()
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        let mut rest = path;
        for segment in &self.head {
            let Some(body) = rest.strip_prefix('/') else {
                return false;
            };
            let end = body.bytes().position(|byte| byte == b'/').unwrap_or(body.len());
            let Some((part, after)) = body.split_at_checked(end) else {
                return false;
            };
            let fits = match segment {
                Segment::Literal(text) => part == &**text,
                Segment::Any => !part.is_empty() && part.bytes().all(in_class),
            };
            if !fits {
                return false;
            }
            rest = after;
        }
        let Some(tail) = &self.tail else {
            return rest.is_empty();
        };
        rest.strip_prefix('/')
            .and_then(|body| body.strip_suffix(&**tail))
            .is_some_and(|middle| middle.bytes().all(|byte| in_class(byte) || byte == b'/'))
    }
}

fn checked(literal: &str) -> Option<&str> {
    (!literal.contains(['{', '}'])).then_some(literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of section 4.4, every one observed on Envoy 1.40.
    #[test]
    fn templates_match_as_envoy_does() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("/foo/{*}", &["/foo/bar", "/foo/b%22c"], &["/foo/", "/foo", "/foo/bar/", "/foo/bar/baz", "/foo/a[b]"]),
            ("/foo/{**}", &["/foo/", "/foo//", "/foo/a/b/"], &["/foo", "/foo/a]"]),
            ("/{**}", &["/", "/a/b"], &[""]),
            ("/{*}", &["/a"], &["/", "/a/b"]),
            ("/foo/{**}/", &["/foo/bar/", "/foo//"], &["/foo/", "/foo/bar", "/foo/bar/baz.txt"]),
            ("/store/{**}/cart", &["/store//cart", "/store/a/b/cart"], &["/store/cart"]),
            ("/foo/{*}/bar/{**}", &["/foo/x/bar/", "/foo/x/bar/y"], &["/foo//bar/x", "/foo/x/bar"]),
            ("/foo/{*}/bar", &["/foo/a;b=c/bar"], &["/foo/a\"b/bar", "/foo/a/b/bar"]),
        ];
        for (template, hits, misses) in table {
            let compiled = Template::parse(template).unwrap();
            for path in *hits {
                assert!(compiled.matches(path), "{template} must match {path}");
            }
            for path in *misses {
                assert!(!compiled.matches(path), "{template} must miss {path}");
            }
        }
    }

    #[test]
    fn what_envoy_refuses_is_no_template() {
        for bad in ["{*}", "foo/{*}", "/a{*}", "/{**}/{*}", "/{**}/{**}", "/{x}/{*}"] {
            assert_eq!(Template::parse(bad), None, "{bad}");
        }
    }
}
