//! What authorization changes of a request on its way: tokens removed, claims and a provider's fields set, another target.
//!
//! Changes come from those who may do much (whoever writes RequestAuthentications, whoever runs a provider). They still may
//! not break the connection to the application or speak for a caller: fields of framing and identity are not theirs.

use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method};
use palisade_authz::{Edits, Headers};

use crate::h1::request::{authority_is_plain, method_is_known};
use crate::headers;

/// Checked changes of one request.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Fields of the request that are not forwarded as they came: removed, or set anew.
    replaced: Vec<HeaderName>,
    /// Fields added in their place or beside them, in order.
    added: Vec<(HeaderName, HeaderValue)>,
    /// Path and query instead of the request's.
    pub(crate) target: Option<PathAndQuery>,
    /// Method instead of the request's.
    pub(crate) method: Option<Method>,
    /// Host instead of the request's.
    pub(crate) host: Option<Authority>,
}

/// A change that cannot be carried out as it was decided on: the request is not forwarded otherwise than decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfit;

impl Changes {
    /// What of `edits` is to be done to a request of that method. Policies `read` these fields: they decided on what the
    /// edits made of them, so a change that is not made there makes the whole unfit.
    pub(crate) fn of(edits: &Edits, method: &str, read: &[String]) -> Result<Changes, Unfit> {
        let mut changes = Changes::default();
        let written = edits.set.iter().chain(&edits.append).map(|(name, _)| name);
        // What nobody may send is not there to be removed.
        let removed = edits.remove.iter().filter(|name| *name == headers::XFCC || !headers::is_identity(name));
        if written.chain(removed).any(|name| read.contains(name) && editable(name).is_none()) {
            return Err(Unfit);
        }
        changes.replaced.extend(edits.remove.iter().filter_map(|name| editable(name)));
        for (name, value) in &edits.set {
            let Some(name) = editable(name) else { continue };
            changes.replaced.push(name.clone());
            changes.added.push((name, HeaderValue::from_bytes(value).map_err(|_| Unfit)?));
        }
        for (name, value) in &edits.append {
            let Some(name) = editable(name) else { continue };
            changes.added.push((name, HeaderValue::from_bytes(value).map_err(|_| Unfit)?));
        }
        changes.target = edits.target.as_deref().map(target).transpose()?;
        changes.host = edits.host.as_deref().map(host).transpose()?;
        changes.method = edits.method.as_deref().map(|changed| self::method(changed, method)).transpose()?;
        Ok(changes)
    }

    /// Also leaves out that field.
    pub(crate) fn remove(&mut self, name: HeaderName) {
        self.replaced.push(name);
    }

    /// Whether a field of that name was removed or set anew.
    pub(crate) fn replaces(&self, name: &[u8]) -> bool {
        self.replaced.iter().any(|one| name.eq_ignore_ascii_case(one.as_str().as_bytes()))
    }

    /// Whether a field of that name is not forwarded as it came: it was replaced, or an application may take it for one
    /// that was.
    pub(crate) fn withholds(&self, name: &[u8]) -> bool {
        self.replaced.iter().any(|one| headers::read_alike(name, one.as_str().as_bytes()))
    }

    /// Whether a field that is withheld under another name than its own is among those that policies `read`: they decided
    /// on it, and the application would not get it.
    pub(crate) fn loses(&self, request: &dyn Headers, read: &[String]) -> bool {
        let unlike = |name: &&String| self.withholds(name.as_bytes()) && !self.replaces(name.as_bytes());
        let came = |name: &String| {
            let mut came = false;
            request.for_each(name, &mut |_| came = true);
            came
        };
        read.iter().filter(unlike).any(came)
    }

    /// The fields added.
    pub(crate) fn fields(&self) -> &[(HeaderName, HeaderValue)] {
        &self.added
    }
}

fn target(target: &str) -> Result<PathAndQuery, Unfit> {
    match PathAndQuery::try_from(target) {
        Ok(parsed) if target.starts_with('/') && parsed.as_str() == target => Ok(parsed),
        _ => Err(Unfit),
    }
}

fn host(host: &str) -> Result<Authority, Unfit> {
    if !authority_is_plain(host.as_bytes()) {
        return Err(Unfit);
    }
    Authority::try_from(host).map_err(|_| Unfit)
}

/// HEAD and CONNECT change what a response is, and stay what they are.
fn method(changed: &str, method: &str) -> Result<Method, Unfit> {
    let shapes_response = |method: &str| matches!(method, "HEAD" | "CONNECT");
    if changed != method && (shapes_response(changed) || shapes_response(method)) || !method_is_known(changed) {
        return Err(Unfit);
    }
    Method::try_from(changed).map_err(|_| Unfit)
}

/// The name, if the field is one that authorization may change.
fn editable(name: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let own = name == http::header::HOST || headers::is_framing(name.as_str()) || headers::is_identity(name.as_str());
    (!own).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn changes_are_those_that_may_be_made() {
        let edits = Edits {
            remove: vec!["authorization".to_owned(), "host".to_owned(), "content-length".to_owned(), "a b".to_owned()],
            set: pairs(&[("x-user", "alice"), ("x-forwarded-client-cert", "URI=forged"), ("te", "gzip")]),
            append: pairs(&[("x-group", "a"), ("x-group", "b"), (":path", "/")]),
            target: Some("/a?b".to_owned()),
            method: Some("PUT".to_owned()),
            host: Some("other:81".to_owned()),
        };
        let changes = Changes::of(&edits, "POST", &["x-user".to_owned()]).unwrap();
        assert!(changes.replaces(b"Authorization") && changes.replaces(b"x-USER"));
        assert!(!changes.replaces(b"host") && !changes.replaces(b"content-length") && !changes.replaces(b"x-group"));
        let added: Vec<_> = changes.fields().iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(added, [("x-user", "alice"), ("x-group", "a"), ("x-group", "b")]);
        assert_eq!(changes.target.as_ref().map(PathAndQuery::as_str), Some("/a?b"));
        assert_eq!(changes.host.as_ref().map(Authority::as_str), Some("other:81"));
        assert_eq!(changes.method, Some(Method::PUT));
    }

    #[test]
    fn what_cannot_be_done_as_decided_is_not_done_otherwise() {
        let unfit = |edits: Edits, method| Changes::of(&edits, method, &[]).unwrap_err();
        for target in ["http://elsewhere/", "/a b", "/a\r\nX: y", "/a#b", ""] {
            assert_eq!(
                unfit(Edits { target: Some(target.to_owned()), ..Edits::default() }, "GET"),
                Unfit,
                "{target:?}"
            );
        }
        for host in ["a/b", "user@h", "a b", ""] {
            assert_eq!(unfit(Edits { host: Some(host.to_owned()), ..Edits::default() }, "GET"), Unfit, "{host:?}");
        }
        for (changed, method) in [("HEAD", "GET"), ("GET", "HEAD"), ("CONNECT", "GET"), ("get", "GET"), ("A B", "GET")]
        {
            assert_eq!(
                unfit(Edits { method: Some(changed.to_owned()), ..Edits::default() }, method),
                Unfit,
                "{changed}"
            );
        }
        let edits = Edits { set: pairs(&[("x-split", "a\r\nb: c")]), ..Edits::default() };
        assert_eq!(unfit(edits, "GET"), Unfit);
        let same = Edits { method: Some("HEAD".to_owned()), ..Edits::default() };
        assert!(Changes::of(&same, "HEAD", &[]).is_ok());
    }

    #[test]
    fn what_policy_read_is_forwarded_or_nothing_is() {
        let read = ["x-envoy-team", "content-length", "x-forwarded-client-cert"].map(str::to_owned);
        let set = |name| Edits { set: pairs(&[(name, "a")]), ..Edits::default() };
        let append = |name| Edits { append: pairs(&[(name, "a")]), ..Edits::default() };
        let remove = |name: &str| Edits { remove: vec![name.to_owned()], ..Edits::default() };
        for (edits, fit) in [
            (set("x-envoy-team"), false),
            (append("x-envoy-team"), false),
            (set("x-envoy-upstream-service-time"), true),
            (remove("content-length"), false),
            (remove("x-forwarded-client-cert"), false),
            (remove("x-envoy-team"), true),
        ] {
            assert_eq!(Changes::of(&edits, "GET", &read).is_ok(), fit, "{edits:?} {:?}", edits.set);
            assert!(Changes::of(&edits, "GET", &[]).is_ok(), "nobody read it: {edits:?}");
        }
    }

    #[test]
    fn other_spellings_of_a_replaced_field_are_withheld() {
        let edits = Edits { remove: vec!["x-sub".to_owned()], ..Edits::default() };
        let changes = Changes::of(&edits, "GET", &[]).unwrap();
        for name in ["x-sub", "X-Sub", "x_sub", "X.SUB"] {
            assert!(changes.withholds(name.as_bytes()), "{name}");
        }
        assert!(!changes.withholds(b"x-subs") && !changes.withholds(b"xsub"));
        assert!(!changes.replaces(b"x_sub"), "policy saw it");
        let (request, read) = (vec![("X_Sub", "root"), ("x-sub", "root")], |name: &str| [name.to_owned()]);
        assert!(changes.loses(&request, &read("x_sub")), "so the application must");
        assert!(!changes.loses(&request, &read("x-sub")) && !changes.loses(&request, &read("x.sub")));
    }
}
