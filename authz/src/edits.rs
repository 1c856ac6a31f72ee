//! What an earlier phase changes in a request before the later ones see it and before it is forwarded: a removed
//! token, claims in headers, what a provider adds. Phases hand these edits on instead of a changed request, so that
//! the request itself stays borrowed and the record can still say what came in.

use std::fmt;

use crate::Headers;

/// Changes to the head of a request. Applied in this order: `remove`, then `set`, then `append`.
///
/// Header names are lower case. `Debug` prints names only: values hold claims and credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Headers whose instances are all taken away.
    pub remove: Vec<String>,
    /// Headers that get exactly one instance with this value; a name stands here at most once.
    pub set: Vec<(String, Vec<u8>)>,
    /// Instances that are added behind those that are there.
    pub append: Vec<(String, Vec<u8>)>,
    /// The new path with its query.
    pub target: Option<String>,
    /// The new method.
    pub method: Option<String>,
    /// The new Host or `:authority`.
    pub host: Option<String>,
}

impl Edits {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty()
            && self.set.is_empty()
            && self.append.is_empty()
            && self.target.is_none()
            && self.method.is_none()
            && self.host.is_none()
    }

    /// Adds what a later phase changes: as if `self` had been applied first, then `later`.
    pub fn merge(&mut self, later: Self) {
        for name in later.remove {
            self.remove_header(&name);
        }
        for (name, value) in later.set {
            self.set_header(&name, value);
        }
        self.append.extend(later.append);
        self.target = later.target.or(self.target.take());
        self.method = later.method.or(self.method.take());
        self.host = later.host.or(self.host.take());
    }

    /// The headers of a request as they are after these edits.
    #[must_use]
    pub fn over<'a>(&'a self, headers: &'a dyn Headers) -> EditedHeaders<'a> {
        EditedHeaders { edits: self, headers }
    }

    /// Carries the header edits out on a list; names compare case-insensitively.
    pub fn apply(&self, headers: &mut Vec<(String, Vec<u8>)>) {
        headers.retain(|(name, _)| !self.hides(name));
        headers.extend(self.set.iter().chain(&self.append).cloned());
    }

    /// Takes every instance away, those that earlier edits brought included. `name` is lower case.
    pub(crate) fn remove_header(&mut self, name: &str) {
        self.forget(name);
        if !self.remove.iter().any(|removed| removed == name) {
            self.remove.push(name.to_owned());
        }
    }

    /// Leaves exactly one instance. `name` is lower case.
    pub(crate) fn set_header(&mut self, name: &str, value: Vec<u8>) {
        self.forget(name);
        self.set.push((name.to_owned(), value));
    }

    fn forget(&mut self, name: &str) {
        self.set.retain(|(set, _)| set != name);
        self.append.retain(|(appended, _)| appended != name);
    }

    fn hides(&self, name: &str) -> bool {
        self.remove.iter().chain(self.set.iter().map(|(set, _)| set)).any(|other| other.eq_ignore_ascii_case(name))
    }
}

impl fmt::Debug for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |list: &[(String, Vec<u8>)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        f.debug_struct("Edits")
            .field("remove", &self.remove)
            .field("set", &names(&self.set))
            .field("append", &names(&self.append))
            .field("target", &self.target.is_some())
            .field("method", &self.method)
            .field("host", &self.host)
            .finish()
    }
}

/// Headers with edits laid over them; made by [`Edits::over`].
#[derive(Clone, Copy)]
pub struct EditedHeaders<'a> {
    edits: &'a Edits,
    headers: &'a dyn Headers,
}

impl Headers for EditedHeaders<'_> {
    fn for_each(&self, name: &str, f: &mut dyn FnMut(&[u8])) {
        if !self.edits.hides(name) {
            self.headers.for_each(name, f);
        }
        for (_, value) in self.edits.set.iter().chain(&self.edits.append).filter(|(added, _)| added == name) {
            f(value);
        }
    }

    fn visit(&self, f: &mut dyn FnMut(&str, &[u8])) {
        self.headers.visit(&mut |name, value| {
            if !self.edits.hides(name) {
                f(name, value);
            }
        });
        self.edits.set.iter().chain(&self.edits.append).for_each(|(name, value)| f(name, value));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type List = Vec<(String, Vec<u8>)>;

    fn seen(headers: &dyn Headers, name: &str) -> Vec<Vec<u8>> {
        let mut values = Vec::new();
        headers.for_each(name, &mut |value| values.push(value.to_vec()));
        let mut visited = Vec::new();
        headers.visit(&mut |other, value| {
            if other.eq_ignore_ascii_case(name) {
                visited.push(value.to_vec());
            }
        });
        assert_eq!(visited, values);
        values
    }

    fn edits() -> impl Strategy<Value = Edits> {
        let pair = || ("[abc]", prop::collection::vec(any::<u8>(), 0..2));
        let target = prop::option::of("/[ab]");
        (
            prop::collection::vec("[abc]", 0..3),
            prop::collection::vec(pair(), 0..3),
            prop::collection::vec(pair(), 0..3),
            target,
        )
            .prop_map(|(remove, set, append, target)| {
                let mut edits = Edits { remove, append, target, ..Edits::default() };
                for (name, value) in set {
                    edits.set.retain(|(other, _)| *other != name);
                    edits.set.push((name, value));
                }
                edits
            })
    }

    proptest! {
        #[test]
        fn merged_edits_do_what_one_after_the_other_does(
            headers in prop::collection::vec(("[abcA]", prop::collection::vec(any::<u8>(), 0..2)), 0..5),
            first in edits(),
            second in edits(),
        ) {
            let mut one_by_one: List = headers.clone();
            first.apply(&mut one_by_one);
            second.apply(&mut one_by_one);
            let mut merged = first.clone();
            merged.merge(second.clone());
            for name in ["a", "b", "c"] {
                let expected = seen(&one_by_one, name);
                prop_assert_eq!(seen(&merged.over(&headers), name), expected.clone());
                prop_assert_eq!(seen(&second.over(&first.over(&headers)), name), expected.clone());
                let mut applied = headers.clone();
                merged.apply(&mut applied);
                prop_assert_eq!(seen(&applied, name), expected);
            }
            prop_assert_eq!(merged.target, second.target.or(first.target));
        }
    }

    #[test]
    fn values_are_not_printed() {
        let edits = Edits {
            set: vec![("x-payload".into(), b"secret".to_vec())],
            append: vec![("x-claim".into(), b"secret".to_vec())],
            target: Some("/?access_token=secret".into()),
            ..Edits::default()
        };
        let text = format!("{edits:?}");
        assert!(text.contains("x-payload") && !text.contains("secret") && !text.contains("115"), "{text}");
    }

    #[test]
    fn a_removed_header_loses_what_earlier_edits_brought() {
        let mut edits = Edits::default();
        assert!(edits.is_empty());
        edits.append.push(("x".into(), b"ours".to_vec()));
        let headers: List = vec![("X".into(), b"theirs".to_vec())];
        assert_eq!(seen(&edits.over(&headers), "x"), [b"theirs".to_vec(), b"ours".to_vec()]);
        edits.remove_header("x");
        edits.remove_header("x");
        assert!(seen(&edits.over(&headers), "x").is_empty() && edits.remove == ["x"]);
    }
}
