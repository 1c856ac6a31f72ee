//! `request.headers[..]`: pseudo headers, and repeated headers as Envoy's header map holds them.
//!
//! Envoy's codec joins the instances of the headers it has a fixed slot for with a bare comma; all others are
//! matched one by one (runtime guard `rbac_match_headers_individually`). Which are joined was observed on 1.40.

use crate::predicate::Text;
use crate::request::{Attribute, Headers, HttpRequest};

/// Sorted, lower case. Those that Envoy strips from outside requests belong to it too.
const JOINED: &[&str] = &[
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
    "authorization",
    "cache-control",
    "cdn-loop",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "origin",
    "pragma",
    "proxy-connection",
    "proxy-status",
    "referer",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

/// Whether the instances of `name` (lower case) are joined with a comma before a policy sees them.
#[must_use]
pub fn is_joined_header(name: &str) -> bool {
    JOINED.binary_search(&name).is_ok()
}

/// Which header a policy names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum HeaderKey {
    Method,
    /// `:authority` and its alias `host`; case counts here, unlike in `hosts`.
    Authority,
    /// The whole target, query included.
    Target,
    Scheme,
    Joined(Box<str>),
    Single(Box<str>),
}

impl HeaderKey {
    pub(crate) fn new(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            ":method" => Self::Method,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Target,
            ":scheme" => Self::Scheme,
            joined if is_joined_header(joined) => Self::Joined(name.into()),
            _ => Self::Single(name.into()),
        }
    }

    pub(crate) const fn attribute(&self) -> Attribute {
        match self {
            Self::Method => Attribute::Method,
            Self::Authority => Attribute::Host,
            Self::Target => Attribute::Path,
            Self::Scheme => Attribute::Scheme,
            Self::Joined(_) | Self::Single(_) => Attribute::Headers,
        }
    }

    /// The name to ask a request's headers for; `None` for pseudo headers.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Joined(name) | Self::Single(name) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn matches(&self, text: &Text, http: &HttpRequest<'_>) -> bool {
        let pseudo = |value: Option<&str>| value.is_some_and(|value| text.matches(value.as_bytes()));
        match self {
            Self::Method => pseudo(http.method),
            Self::Authority => pseudo(http.host),
            Self::Target => pseudo(http.raw_target),
            Self::Scheme => pseudo(http.scheme),
            Self::Joined(name) => joined(name, text, http.headers),
            Self::Single(name) => {
                let mut hit = false;
                http.headers.for_each(name, &mut |value| hit = hit || text.matches(value));
                hit
            }
        }
    }
}

/// Compares the joined value piece by piece instead of building it. Envoy joins no empty instance.
fn joined(name: &str, text: &Text, headers: &dyn Headers) -> bool {
    let mut present = false;
    let mut length = 0usize;
    headers.for_each(name, &mut |value| {
        present = true;
        if !value.is_empty() {
            length += value.len() + usize::from(length > 0);
        }
    });
    if !present {
        return false;
    }
    let (wanted, skip) = match text {
        Text::Exact(exact) if exact.len() == length => (exact.as_bytes(), 0),
        Text::Prefix(prefix) if prefix.len() <= length => (prefix.as_bytes(), 0),
        Text::Suffix(suffix) if suffix.len() <= length => (suffix.as_bytes(), length - suffix.len()),
        Text::Exact(_) | Text::Prefix(_) | Text::Suffix(_) => return false,
        Text::Present => return true,
        Text::Filled | Text::Line => return length > 0,
    };
    let mut window = Window { wanted, skip };
    let mut equal = true;
    let mut first = true;
    headers.for_each(name, &mut |value| {
        if value.is_empty() {
            return;
        }
        equal = equal && (first || window.accepts(b",")) && window.accepts(value);
        first = false;
    });
    equal
}

/// What of the joined value is still to compare, after `skip` bytes that do not count.
struct Window<'a> {
    wanted: &'a [u8],
    skip: usize,
}

impl Window<'_> {
    fn accepts(&mut self, piece: &[u8]) -> bool {
        let skipped = self.skip.min(piece.len());
        self.skip -= skipped;
        let piece = piece.get(skipped..).unwrap_or_default();
        let length = piece.len().min(self.wanted.len());
        let equal = piece.get(..length) == self.wanted.get(..length);
        self.wanted = self.wanted.get(length..).unwrap_or_default();
        equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(name: &str, value: &str, instances: &[&str]) -> bool {
        let headers: Vec<(&str, &str)> = instances.iter().map(|value| (name, *value)).collect();
        let http = HttpRequest { headers: &headers, ..HttpRequest::default() };
        HeaderKey::new(name).matches(&Text::parse(value, Text::Present), &http)
    }

    #[test]
    fn names_are_sorted_for_the_search() {
        assert!(JOINED.is_sorted());
    }

    #[test]
    fn repeated_headers_follow_envoys_header_map() {
        for (name, value, instances, expected) in [
            ("x-foo", "a", &["a", "b"][..], true),
            ("x-foo", "a,b", &["a", "b"], false),
            ("x-foo", "a,b", &["a,b"], true),
            ("x-foo", "a", &["a,b"], false),
            ("accept", "a,b", &["a", "b"], true),
            ("accept", "a", &["a", "b"], false),
            ("accept", "a*", &["a", "b"], true),
            ("accept", "a,*", &["a", "b"], true),
            ("accept", "*,b", &["a", "b"], true),
            ("accept", "*a,b", &["xa", "b"], true),
            ("accept", "*b", &["a", "b"], true),
            ("accept", "*c", &["a", "b"], false),
            ("accept", "*aaaa", &["a", "b"], false),
            ("accept", "a,b,c", &["a", "b", "c"], true),
            ("cookie", "a", &["a", "b"], true),
            ("x-foo", "*", &[""], true),
            ("x-foo", "a*", &[""], false),
            ("x-foo", "*", &[], false),
            ("accept", "*", &[], false),
            ("accept", "*", &[""], true),
            ("accept", "1*", &["", "12"], true),
            ("accept", ",12", &["", "12"], false),
            ("accept", "1,2", &["1", "", "2"], true),
            ("accept", "1", &["1", ""], true),
        ] {
            assert_eq!(hit(name, value, instances), expected, "{name} {value} {instances:?}");
        }
    }
}
