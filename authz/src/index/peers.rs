//! Tests on the caller's identity, found by its segments.
//!
//! Istio's expressions allow more than the plain `td/ns/N/sa/S`, so what is found by segments is only a candidate
//! where the expression has a gap; it is then tested itself.

use crate::index::hash::{Table, hash};
use crate::index::texts::Texts;
use crate::index::trie::Trie;
use crate::predicate::{L4Identity, PeerTest, Text};

/// `namespaces`: literal parts between free gaps, the first behind `/ns/`.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// One whole segment.
    exact: Table,
    /// What begins with a literal.
    prefixes: Trie<false>,
    /// What ends a segment, after a `*`.
    suffixes: Trie<true>,
    /// `*`.
    any: Vec<u32>,
}

/// How a namespace pattern is found. `*a*`, which has no literal at either end, is not.
enum Form<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Suffix(&'a str),
    Any,
}

fn form(test: &PeerTest) -> Option<Form<'_>> {
    let PeerTest::Namespace(parts) = test else { return None };
    let (first, others) = parts.split_first()?;
    let first = first.strip_prefix("/ns/")?;
    match (first, others) {
        ("", [.., last]) => match last.strip_suffix('/')? {
            "" => (others.len() == 1).then_some(Form::Any),
            suffix => Some(Form::Suffix(suffix)),
        },
        ("", []) => None,
        (whole, []) => match whole.strip_suffix('/') {
            Some(segment) if !segment.contains('/') => Some(Form::Exact(segment)),
            _ => Some(Form::Prefix(whole)),
        },
        (prefix, _) => Some(Form::Prefix(prefix)),
    }
}

impl Namespaces {
    pub(super) fn takes(test: &PeerTest) -> bool {
        form(test).is_some()
    }

    pub(super) fn new<'a>(items: impl Iterator<Item = (&'a PeerTest, u32)>) -> Self {
        let (mut exact, mut prefixes, mut suffixes, mut any) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (test, id) in items {
            match form(test) {
                Some(Form::Exact(text)) => exact.push((hash(0, text.as_bytes()), text.as_bytes(), id)),
                Some(Form::Prefix(text)) => prefixes.push((text.as_bytes(), id)),
                Some(Form::Suffix(text)) => suffixes.push((text.as_bytes(), id)),
                Some(Form::Any) => any.push(id),
                None => {}
            }
        }
        Self {
            exact: Table::new(exact.into_iter()),
            prefixes: Trie::new(prefixes.into_iter()),
            suffixes: Trie::new(suffixes.into_iter()),
            any,
        }
    }

    /// Calls `found` with all that may match, each at least once.
    pub(super) fn find(&self, peer: &str, found: &mut dyn FnMut(u32)) {
        self.any.iter().for_each(|id| found(*id));
        for_each_behind(peer, "ns", &mut |rest| {
            if let Some((segment, _)) = rest.split_once('/') {
                self.exact.get(segment.as_bytes(), found);
            }
            self.prefixes.find(rest.as_bytes(), found);
            for (end, _) in rest.match_indices('/') {
                self.suffixes.find(rest.get(..end).unwrap_or_default().as_bytes(), found);
            }
        });
    }
}

/// `serviceAccounts`: by the segment behind `ns` and the one behind `sa`.
#[derive(Debug, Default)]
pub(super) struct Accounts(Table);

fn pair(test: &PeerTest) -> Option<(&str, &str)> {
    match test {
        PeerTest::ServiceAccount { namespace, account } | PeerTest::L4ServiceAccount { namespace, account } => {
            (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
        }
        _ => None,
    }
}

fn place(namespace: &str, account: &str) -> u64 {
    hash(hash(0, namespace.as_bytes()), account.as_bytes())
}

impl Accounts {
    pub(super) fn takes(test: &PeerTest) -> bool {
        pair(test).is_some()
    }

    pub(super) fn new<'a>(items: impl Iterator<Item = (&'a PeerTest, u32)>) -> Self {
        let pairs = items.filter_map(|(test, id)| pair(test).map(|pair| (pair, id)));
        let keyed = |((namespace, account), id): ((&str, &str), u32)| {
            (place(namespace, account), [namespace, "/", account].concat(), id)
        };
        let keys: Vec<(u64, String, u32)> = pairs.map(keyed).collect();
        Self(Table::new(keys.iter().map(|(place, key, id)| (*place, key.as_bytes(), *id))))
    }

    fn get(&self, namespace: &str, account: &str, found: &mut dyn FnMut(u32)) {
        let equal = |key: &[u8]| {
            key.strip_prefix(namespace.as_bytes()).and_then(|rest| rest.strip_prefix(b"/")) == Some(account.as_bytes())
        };
        self.0.find(place(namespace, account), equal, found);
    }

    /// Calls `found` with all that may match.
    pub(super) fn find(&self, peer: &str, found: &mut dyn FnMut(u32)) {
        for_each_behind(peer, "ns", &mut |rest| {
            let Some((namespace, rest)) = rest.split_once('/') else { return };
            for_each_behind(rest, "sa", &mut |rest| {
                self.get(namespace, rest.split('/').next().unwrap_or(rest), found);
            });
        });
    }

    /// As ztunnel looks: all that match.
    pub(super) fn find_exactly(&self, peer: &str, found: &mut dyn FnMut(u32)) {
        if let Some(identity) = L4Identity::parse(peer) {
            self.get(identity.namespace, identity.account, found);
        }
    }
}

/// `trustDomains`: the first segment.
#[derive(Debug, Default)]
pub(super) struct Domains {
    exact: Table,
    /// What begins with a literal; the empty one for `*x`.
    prefixes: Trie<false>,
}

impl Domains {
    pub(super) fn new<'a>(items: impl Iterator<Item = (&'a PeerTest, u32)>) -> Self {
        let (mut exact, mut prefixes) = (Vec::new(), Vec::new());
        for (test, id) in items {
            match test {
                PeerTest::TrustDomain(Some(domain)) if !domain.contains('/') => {
                    exact.push((hash(0, domain.as_bytes()), domain.as_bytes(), id));
                }
                PeerTest::TrustDomain(domain) => prefixes.push((domain.as_deref().unwrap_or("").as_bytes(), id)),
                PeerTest::TrustDomainGlob(before, _) => prefixes.push((before.as_bytes(), id)),
                _ => {}
            }
        }
        Self { exact: Table::new(exact.into_iter()), prefixes: Trie::new(prefixes.into_iter()) }
    }

    /// Calls `found` with all that may match.
    pub(super) fn find(&self, peer: &str, found: &mut dyn FnMut(u32)) {
        if let Some((domain, _)) = peer.split_once('/') {
            self.exact.get(domain.as_bytes(), found);
        }
        self.prefixes.find(peer.as_bytes(), found);
    }
}

/// The texts of `principals` and of ztunnel's tests.
pub(super) fn texts<'a>(items: impl Iterator<Item = (&'a PeerTest, u32)> + Clone) -> Texts {
    fn text(test: &PeerTest) -> Option<&Text> {
        match test {
            PeerTest::Principal(text) | PeerTest::L4Principal(text) | PeerTest::L4Namespace(text) => Some(text),
            _ => None,
        }
    }
    Texts::new(items.filter_map(|(test, id)| Some((text(test)?, id))))
}

/// Calls `each` with what follows each whole segment `name` and its slash.
fn for_each_behind(path: &str, name: &str, each: &mut dyn FnMut(&str)) {
    let mut rest = path;
    loop {
        let behind = rest.strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
        behind.into_iter().for_each(&mut *each);
        match rest.split_once('/') {
            Some((_, after)) => rest = after,
            None => return,
        }
    }
}
