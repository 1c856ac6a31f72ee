//! Query parameters as a provider changes them, written the way Envoy writes them: once one is set or removed, the
//! whole query is written anew, sorted by name, each with its `=`.

use std::collections::BTreeMap;

use crate::normalize::{split_query, without_query};

use super::field::Malformed;

/// `target` with parameters set, then others removed. Names and values are taken as they are, escaped by whoever sent
/// them; what cannot stand in a target is refused.
pub(super) fn rewritten(target: &str, set: &[(String, String)], remove: &[String]) -> Result<String, Malformed> {
    let query = split_query(target).1;
    let mut rest = query.strip_prefix('?').unwrap_or(query);
    let mut parameters: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    // What stands between two `&` counts even if it is nothing; what follows the last one only if it is something.
    while !rest.is_empty() {
        let (part, after) = rest.split_once('&').unwrap_or((rest, ""));
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        parameters.entry(name).or_default().push(value);
        rest = after;
    }
    for (name, value) in set {
        parameters.insert(name, vec![value]);
    }
    for name in remove {
        parameters.remove(name.as_str());
    }
    let mut rewritten = without_query(target).to_owned();
    let mut delimiter = '?';
    for (name, values) in &parameters {
        for value in values {
            rewritten.push(delimiter);
            rewritten.push_str(name);
            rewritten.push('=');
            rewritten.push_str(value);
            delimiter = '&';
        }
    }
    if is_target(&rewritten) { Ok(rewritten) } else { Err(Malformed) }
}

/// Whether this can be forwarded as a request's target: it begins at the root, and holds visible ASCII alone, no
/// fragment.
pub(super) fn is_target(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Each seen on Envoy 1.40.
    #[test]
    fn the_query_is_written_as_envoy_writes_it() {
        let all = ["a", "b", "c"].map(str::to_owned);
        for (target, to_set, remove, expected) in [
            ("/pA?b=2&a&c=3&b=4", &[("z", "9"), ("b", "7"), ("n", "")][..], &all[2..], "/pA?a=&b=7&n=&z=9"),
            ("/pA?b=2&a&c=3&b=4", &[], &all[..], "/pA"),
            ("/p?b=2&&c=3&b=4&d=e=f", &[("b", "1"), ("b", "2")], &all[1..2], "/p?=&c=3&d=e=f"),
            ("/p", &[("z", "9"), ("b", "7")], &[], "/p?b=7&z=9"),
            ("/p?", &[], &all[..], "/p"),
            ("/p?x&", &[], &all[..], "/p?x="),
        ] {
            assert_eq!(rewritten(target, &set(to_set), remove).as_deref(), Ok(expected), "{target}");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_target_is_refused() {
        for (name, value) in [("x y", "1"), ("x", "1\r\nx: y"), ("x", "é"), ("x", "1#f"), ("x\0", "")] {
            assert_eq!(rewritten("/p", &set(&[(name, value)]), &[]), Err(Malformed), "{name:?} {value:?}");
        }
        assert!(is_target("/") && !is_target("*") && !is_target("") && !is_target("http://a/"));
    }
}
