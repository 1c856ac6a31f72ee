//! A request that a rule matches, made from the values that the rule asks for. A trap changes one attribute of it: what
//! is decided otherwise then is decided otherwise because of that attribute.

use std::net::IpAddr;
use std::sync::Arc;

use palisade_authz::Semantics;
use palisade_policies::{Action, AuthorizationPolicy, MeshConfig, Rule, Workload};
use serde_json::Value;

use super::draft::Draft;
use super::slot::{Field, List, Side, Slot, rule_lists};

/// What a request is made for.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) code: &'static str,
    pub(super) policy: &'a AuthorizationPolicy,
    pub(super) workload: &'a Workload,
    pub(super) mesh: &'a MeshConfig,
    /// Made from this first, so that an ALLOW lets the request in.
    pub(super) base: Option<Base<'a>>,
}

/// One alternative of a rule that allows: the rule, and which of its `from` and `to`.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    pub(super) rule: &'a Rule,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl<'a> Base<'a> {
    /// Whether it is for certain ports only.
    pub(super) fn asks_port(&self) -> bool {
        let condition = self.rule.when.iter().any(|condition| condition.key == "destination.port");
        condition || self.rule.to.get(self.to).is_some_and(|operation| !operation.ports.is_empty())
    }

    /// The alternatives of the ALLOW policies in force among these.
    pub(super) fn all(policies: &'a [Arc<AuthorizationPolicy>]) -> impl Iterator<Item = Self> {
        let allows = policies.iter().filter(|policy| policy.action == Action::Allow && !policy.dry_run);
        allows.flat_map(|policy| &policy.rules).flat_map(|rule| {
            let pairs =
                (0..rule.from.len().max(1)).flat_map(|from| (0..rule.to.len().max(1)).map(move |to| (from, to)));
            pairs.map(move |(from, to)| Self { rule, from, to })
        })
    }
}

impl Setting<'_> {
    /// A request that no rule has been asked about.
    pub(super) fn blank(&self, semantics: Semantics) -> Draft {
        Draft::new(self.code, self.workload, self.mesh.trust_domain.as_str(), semantics)
    }

    /// A request that the alternatives of this value's rule match which the value belongs to, as far as one can be made
    /// of the first value of each list.
    pub(super) fn matching(&self, slot: Slot<'_>, semantics: Semantics) -> Draft {
        self.request(slot.list.rule, slot.list.side, Some(slot), semantics)
    }

    /// The same for one side of a rule.
    pub(super) fn matching_side(&self, rule: usize, side: Side, semantics: Semantics) -> Draft {
        self.request(rule, side, None, semantics)
    }

    fn request(&self, rule: usize, side: Side, slot: Option<Slot<'_>>, semantics: Semantics) -> Draft {
        let mut draft = self.blank(semantics);
        let Some(of) = self.policy.rules.get(rule) else { return draft };
        let mut caller = Parts::default();
        self.fill_base(&mut draft, &mut caller);
        let lists = rule_lists(rule, of);
        for list in lists.iter().filter(|list| concerns(list, side)) {
            let own = slot.filter(|slot| slot.list.side == list.side && slot.list.path() == list.path());
            let Some(value) = own.map(|slot| slot.value).or_else(|| list.values.first().map(String::as_str)) else {
                continue;
            };
            if !list.negated {
                self.fill(&mut draft, &mut caller, &list.field, value);
            }
        }
        if let Some(principal) = caller.principal(self.mesh) {
            draft.source.principal = Some(principal);
        }
        draft
    }

    fn fill_base(&self, draft: &mut Draft, caller: &mut Parts) {
        let Some(base) = self.base else { return };
        for list in rule_lists(0, base.rule).iter().filter(|list| !list.negated) {
            let other = match list.side {
                Side::From(index) => index != base.from,
                Side::To(index) => index != base.to,
                Side::When(_) => false,
            };
            if let Some(value) = list.values.first().filter(|_| !other) {
                self.fill(draft, caller, &list.field, value);
            }
        }
    }

    /// Makes one attribute what a value asks for.
    fn fill(&self, draft: &mut Draft, caller: &mut Parts, field: &Field, value: &str) {
        match field {
            Field::Principal => caller.whole = Some(value.to_owned()),
            Field::Namespace => caller.namespace = Some(value.replace('*', "x")),
            Field::ServiceAccount => {
                let (namespace, account) = value.split_once('/').unwrap_or((&self.policy.meta.namespace, value));
                caller.namespace = Some(namespace.to_owned());
                caller.account = Some(account.to_owned());
            }
            Field::TrustDomain => caller.domain = Some(concrete(value, "x")),
            Field::Ip => draft.source.ip = address(value, draft.source.ip),
            Field::RemoteIp => draft.source.remote_ip = Some(address(value, IpAddr::from([203, 0, 113, 9]))),
            Field::DestinationIp => draft.destination.ip = address(value, draft.destination.ip),
            Field::Port => draft.destination.port = value.parse().unwrap_or(draft.destination.port),
            Field::Sni => draft.sni(&concrete(value, "app.example")),
            Field::Metadata(filter, key) => {
                let plain = value.trim_start_matches('[').trim_end_matches(']');
                let text = Value::from(concrete(plain, "x"));
                let list = plain.len() < value.len();
                draft.metadata(filter, key, if list { Value::Array(vec![text]) } else { text });
            }
            Field::Unknown => {}
            http => fill_http(draft, http, value),
        }
    }
}

fn fill_http(draft: &mut Draft, field: &Field, value: &str) {
    match field {
        Field::Host => draft.host(&concrete(value, "a")),
        Field::Method => {
            let method = concrete(value, "GET");
            if method == "CONNECT" { draft.connect() } else { draft.header(":method", &method) }
        }
        Field::Path => draft.path(&path(value)),
        Field::Header(name) => draft.header(name, &concrete(value, "x")),
        Field::Claim(names) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            draft.claim(&names, Value::from(concrete(value, "x")));
        }
        Field::RequestPrincipal => {
            let (issuer, subject) = issuer_and_subject(value);
            draft.claim(&["iss"], Value::from(issuer));
            draft.claim(&["sub"], Value::from(subject));
        }
        _ => {}
    }
}

/// Whether a list has a say beside one side of its rule: other alternatives than the first have not.
fn concerns(list: &List<'_>, side: Side) -> bool {
    match (list.side, side) {
        (Side::From(index), Side::From(wanted)) | (Side::To(index), Side::To(wanted)) => index == wanted,
        (Side::From(index) | Side::To(index), _) => index == 0,
        (Side::When(_), _) => true,
    }
}

/// The parts of an identity as different lists ask for them.
#[derive(Default)]
struct Parts {
    whole: Option<String>,
    domain: Option<String>,
    namespace: Option<String>,
    account: Option<String>,
}

impl Parts {
    fn principal(self, mesh: &MeshConfig) -> Option<String> {
        let own = mesh.trust_domain.as_str();
        if let Some(whole) = &self.whole {
            return Some(principal(whole, own, &mesh.trust_domain_aliases));
        }
        if self.domain.is_none() && self.namespace.is_none() && self.account.is_none() {
            return None;
        }
        let part = |part: Option<String>, or: &str| part.unwrap_or_else(|| or.to_owned());
        let (domain, namespace) = (part(self.domain, own), part(self.namespace, "default"));
        Some(format!("{domain}/ns/{namespace}/sa/{}", part(self.account, "caller")))
    }
}

/// An identity that a value of `principals` stands for, in a mesh of this domain.
fn principal(value: &str, own: &str, aliases: &[String]) -> String {
    if let Some(rest) = value.strip_prefix('*') {
        return match rest {
            "" => format!("{own}/ns/default/sa/caller"),
            rest if rest.starts_with("/ns/") => format!("{own}{rest}"),
            rest if rest.starts_with("/sa/") => format!("{own}/ns/default{rest}"),
            rest => format!("{own}/ns/default/sa/x{rest}"),
        };
    }
    let value = value.strip_suffix('*').map_or_else(|| value.to_owned(), complete);
    match value.split_once('/') {
        Some((domain, rest)) if rest.split('/').count() == 4 => {
            let known = domain == "cluster.local" || aliases.iter().any(|alias| alias == domain);
            if known { format!("{own}/{rest}") } else { value }
        }
        _ => value,
    }
}

/// Completes a prefix to `domain/ns/namespace/sa/account`.
fn complete(prefix: &str) -> String {
    let mut text = format!("{prefix}x");
    for (slashes, part) in [(1, "/ns"), (2, "/x"), (3, "/sa"), (4, "/x")] {
        if text.matches('/').count() < slashes {
            text.push_str(part);
        }
    }
    text
}

/// A text that a value stands for.
pub(super) fn concrete(value: &str, filler: &str) -> String {
    if value == "*" {
        filler.to_owned()
    } else if let Some(suffix) = value.strip_prefix('*') {
        format!("{filler}{suffix}")
    } else if let Some(prefix) = value.strip_suffix('*') {
        format!("{prefix}{filler}")
    } else {
        value.to_owned()
    }
}

/// A path that a value of `paths` stands for.
pub(super) fn path(value: &str) -> String {
    if is_template(value) {
        return value.replace("{**}", "x").replace("{*}", "x");
    }
    concrete(value, if value == "*" || !value.starts_with('/') { "/x" } else { "x" })
}

/// Whether a path is a template, as Istio tells them apart.
pub(super) fn is_template(value: &str) -> bool {
    value.contains("{*}") || value.contains("{**}")
}

/// The two claims that a request principal asks for: it is cut at its last slash, a leading star counts before a
/// trailing one.
pub(super) fn issuer_and_subject(value: &str) -> (String, String) {
    const ISSUER: &str = "https://issuer.example";
    match value.rsplit_once('/') {
        Some((issuer, subject)) if value.starts_with('*') => (concrete(issuer, ISSUER), subject.to_owned()),
        Some((issuer, subject)) if value.ends_with('*') => (issuer.to_owned(), concrete(subject, "alice")),
        Some((issuer, subject)) => (issuer.to_owned(), subject.to_owned()),
        None if value.starts_with('*') => (ISSUER.to_owned(), concrete(value, "alice")),
        None if value.ends_with('*') => (concrete(value, "x"), "alice".to_owned()),
        None => (value.to_owned(), String::new()),
    }
}

/// An address in a block; one of everything is the one that stands already.
fn address(block: &str, or: IpAddr) -> IpAddr {
    let bare = block.split(['/', '%']).next().unwrap_or(block);
    match bare.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() => ip,
        Ok(IpAddr::V6(_)) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]),
        _ => or,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_texts_that_they_match() {
        for (value, text) in [("a", "a"), ("*", "x"), ("a*", "ax"), ("*a", "xa"), ("a*b", "a*b")] {
            assert_eq!(concrete(value, "x"), text);
        }
        for (value, text) in
            [("*", "/x"), ("*.txt", "/x.txt"), ("/a*", "/ax"), ("/a/{*}/b/{**}", "/a/x/b/x"), ("/a", "/a")]
        {
            assert_eq!(path(value), text);
        }
    }

    #[test]
    fn principals_are_completed_and_read_in_the_mesh() {
        for (value, text) in [
            ("*", "td/ns/default/sa/caller"),
            ("*/sa/b", "td/ns/default/sa/b"),
            ("*/ns/a/sa/b", "td/ns/a/sa/b"),
            ("*-b", "td/ns/default/sa/x-b"),
            ("cluster.local/ns/a/sa/b", "td/ns/a/sa/b"),
            ("cluster.local/ns/a/sa/*", "td/ns/a/sa/x"),
            ("other/ns/a/sa/b", "other/ns/a/sa/b"),
            ("old/ns/a/sa/b", "td/ns/a/sa/b"),
        ] {
            assert_eq!(principal(value, "td", &["old".to_owned()]), text, "{value}");
        }
        assert_eq!(complete("cluster.local/ns/a"), "cluster.local/ns/ax/sa/x");
    }

    #[test]
    fn request_principals_are_cut_at_the_last_slash() {
        for (value, issuer, subject) in [
            ("https://a/b", "https://a", "b"),
            ("https://a/*", "https://a", "alice"),
            ("*/b", "https://issuer.example", "b"),
            ("*", "https://issuer.example", "alice"),
            ("a", "a", ""),
            ("a*", "ax", "alice"),
        ] {
            assert_eq!(issuer_and_subject(value), (issuer.to_owned(), subject.to_owned()), "{value}");
        }
    }

    #[test]
    fn addresses_are_taken_from_blocks() {
        let or: IpAddr = "10.0.0.7".parse().unwrap();
        for (block, ip) in [
            ("10.1.0.0/16", "10.1.0.0"),
            ("0.0.0.0/0", "10.0.0.7"),
            ("::/0", "2001:db8::7"),
            ("fe80::1%eth0", "fe80::1"),
        ] {
            assert_eq!(address(block, or), ip.parse::<IpAddr>().unwrap(), "{block}");
        }
    }
}
