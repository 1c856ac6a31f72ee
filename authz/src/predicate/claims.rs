//! Tests on token claims and on Envoy's dynamic metadata: only strings, and strings in lists, ever match.

use serde_json::Value;

use crate::predicate::Text;

/// Claims that Istio always splits at spaces; top level only.
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// The object keys that lead to a claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClaimPath(Box<[Box<str>]>);

impl ClaimPath {
    pub(crate) fn top(claim: &str) -> Self {
        Self(Box::new([claim.into()]))
    }

    /// `[a][b]` walks objects; where the brackets do not nest, the whole is one literal name, as in Istio.
    pub(crate) fn parse(brackets: &str) -> Option<Self> {
        nested(brackets).or_else(|| {
            let name = brackets.strip_prefix('[')?.strip_suffix(']')?;
            Some(Self::top(name))
        })
    }

    pub(crate) fn matches(&self, text: &Text, claims: &Value) -> bool {
        let mut value = claims;
        for key in &self.0 {
            let Some(inner) = value.as_object().and_then(|object| object.get(&**key)) else {
                return false;
            };
            value = inner;
        }
        match value {
            Value::String(string) if self.is_split() => {
                string.split(' ').any(|word| !word.is_empty() && text.matches(word.as_bytes()))
            }
            Value::String(string) => text.matches(string.as_bytes()),
            Value::Array(items) => items.iter().filter_map(Value::as_str).any(|item| text.matches(item.as_bytes())),
            _ => false,
        }
    }

    fn is_split(&self) -> bool {
        matches!(&*self.0, [name] if SPACE_DELIMITED.contains(&&**name))
    }
}

fn nested(brackets: &str) -> Option<ClaimPath> {
    let mut rest = brackets;
    let mut keys = Vec::new();
    while !rest.is_empty() {
        let (name, after) = rest.strip_prefix('[')?.split_once(']')?;
        if name.contains('[') {
            return None;
        }
        keys.push(name.into());
        rest = after;
    }
    Some(ClaimPath(keys.into()))
}

/// `requestPrincipals` is two tests, on `iss` and `sub`; both claims must be strings.
pub(crate) fn principal_matches(issuer: &Text, subject: &Text, claims: &Value) -> bool {
    let is = |claim: &str, text: &Text| {
        claims.get(claim).and_then(Value::as_str).is_some_and(|value| text.matches(value.as_bytes()))
    };
    is("iss", issuer) && is("sub", subject)
}

/// One key of one filter's dynamic metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct MetadataKey {
    filter: Box<str>,
    key: Box<str>,
    /// The value was written `[v]`: an element of a list, else a plain string.
    list: bool,
}

impl MetadataKey {
    /// `experimental.envoy.filters.a.b[c]` is key `c` of filter `envoy.filters.a.b`.
    pub(crate) fn parse(key: &str, list: bool) -> Option<Self> {
        let bare = key.strip_prefix("experimental.").unwrap_or(key);
        let bare = bare.strip_suffix(']').unwrap_or(bare);
        let (filter, key) = bare.split_once('[')?;
        Some(Self { filter: filter.into(), key: key.into(), list })
    }

    pub(crate) fn matches(&self, text: &Text, metadata: &Value) -> bool {
        let value = metadata.get(&*self.filter).and_then(|filter| filter.get(&*self.key));
        match value {
            Some(Value::String(string)) if !self.list => text.matches(string.as_bytes()),
            Some(Value::Array(items)) if self.list => {
                items.iter().filter_map(Value::as_str).any(|item| text.matches(item.as_bytes()))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hit(path: &str, value: &str, claims: &Value) -> bool {
        ClaimPath::parse(path).unwrap().matches(&Text::parse(value, Text::Line), claims)
    }

    #[test]
    fn only_strings_and_strings_in_lists_match() {
        let claims = json!({"s": "a", "l": ["x", 1, ["n"], "a"], "b": true, "n": 1, "o": {"p": "q"}, "e": "",
                            "a.b": "dot", "nl": "a\nb", "z": null});
        for (path, value, expected) in [
            ("[s]", "a", true),
            ("[s]", "*", true),
            ("[l]", "a", true),
            ("[l]", "n", false),
            ("[l]", "1", false),
            ("[b]", "true", false),
            ("[b]", "*", false),
            ("[n]", "*", false),
            ("[z]", "*", false),
            ("[o]", "*", false),
            ("[o][p]", "q", true),
            ("[o.p]", "q", false),
            ("[a.b]", "dot", true),
            ("[l][0]", "x", false),
            ("[e]", "*", false),
            ("[nl]", "*", false),
            ("[gone]", "*", false),
        ] {
            assert_eq!(hit(path, value, &claims), expected, "{path} {value}");
        }
    }

    #[test]
    fn scope_and_permission_are_split_at_the_top_only() {
        let claims = json!({"scope": "read write", "permission": "p  q", "other": "read write",
                            "deep": {"scope": "read write"}, "scopes": ""});
        assert!(hit("[scope]", "read", &claims) && !hit("[scope]", "read write", &claims));
        assert!(hit("[permission]", "q", &claims));
        assert!(!hit("[other]", "read", &claims) && hit("[other]", "read write", &claims));
        assert!(!hit("[deep][scope]", "read", &claims));
        assert!(!hit("[scope]", "*", &json!({"scope": ""})));
    }

    #[test]
    fn brackets_that_do_not_nest_are_one_name() {
        assert_eq!(ClaimPath::parse("[a[b]]"), Some(ClaimPath::top("a[b]")));
        assert_eq!(ClaimPath::parse("[a]b]"), Some(ClaimPath::top("a]b")));
        assert_eq!(ClaimPath::parse("x[a]"), None);
    }

    #[test]
    fn metadata_lists_and_strings_are_distinct() {
        let metadata = json!({"envoy.filters.x": {"k": "v", "l": ["v"]}});
        let key = |name: &str, list| MetadataKey::parse(name, list).unwrap();
        let v = Text::Exact("v".into());
        assert!(key("experimental.envoy.filters.x[k]", false).matches(&v, &metadata));
        assert!(!key("experimental.envoy.filters.x[k]", true).matches(&v, &metadata));
        assert!(key("experimental.envoy.filters.x[l]", true).matches(&v, &metadata));
        assert!(!key("experimental.envoy.filters.x[l]", false).matches(&v, &metadata));
    }
}
