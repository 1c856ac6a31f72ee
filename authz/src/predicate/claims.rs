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

    /// The claim itself.
    pub(crate) fn get<'a>(&self, claims: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(claims, |value, key| value.as_object()?.get(&**key))
    }

    /// Calls `each` with every string that a policy sees there.
    pub(crate) fn each(&self, claims: &Value, each: &mut dyn FnMut(&str)) {
        match self.get(claims) {
            // A text without any word stays a text: Envoy writes a list only where it has something to put in.
            Some(Value::String(string)) if self.is_split() && string.bytes().any(|byte| byte != b' ') => {
                string.split(' ').filter(|word| !word.is_empty()).for_each(each);
            }
            Some(Value::String(string)) => each(string),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).for_each(each),
            _ => {}
        }
    }

    pub(crate) fn matches(&self, text: &Text, claims: &Value) -> bool {
        let mut hit = false;
        self.each(claims, &mut |value| hit = hit || text.matches(value.as_bytes()));
        hit
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

    /// The value itself.
    pub(crate) fn get<'a>(&self, metadata: &'a Value) -> Option<&'a Value> {
        metadata.get(&*self.filter)?.get(&*self.key)
    }

    /// Whether an element of a list is asked for.
    pub(crate) const fn is_list(&self) -> bool {
        self.list
    }

    /// The key without regard to how its values are written.
    pub(crate) fn place(&self) -> Self {
        Self { list: false, ..self.clone() }
    }

    pub(crate) fn matches(&self, text: &Text, metadata: &Value) -> bool {
        match self.get(metadata) {
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
    fn a_scope_of_spaces_alone_stays_a_text() {
        let claims = json!({"scope": " ", "permission": "  "});
        assert!(hit("[scope]", "*", &claims) && hit("[scope]", " ", &claims) && hit("[permission]", " *", &claims));
        assert!(!hit("[scope]", "*", &json!({"scope": ""})), "an empty text is not even a presence");
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
