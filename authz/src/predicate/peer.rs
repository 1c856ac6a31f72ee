//! Tests on the caller's SPIFFE ID, without its scheme.
//!
//! Istio emits regular expressions over the whole URI for most of these. Each is matched by hand here, in
//! linear time and without allocation; `tests/` compares them with the expressions themselves.

use crate::predicate::Text;

/// One test on the peer's identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum PeerTest {
    /// `principals` and `source.principal`.
    Principal(Text),
    /// `namespaces`: the literal parts between the stars of `*/ns/<value>/*`.
    Namespace(Box<[Box<str>]>),
    /// `serviceAccounts`.
    ServiceAccount { namespace: Box<str>, account: Box<str> },
    /// `trustDomains` without a star, or a lone star (`None`).
    TrustDomain(Option<Box<str>>),
    /// `trustDomains` with a star: what stands before and after it.
    TrustDomainGlob(Box<str>, Box<str>),
    /// ztunnel's `principals`.
    L4Principal(Text),
    /// ztunnel's `namespaces`.
    L4Namespace(Text),
    /// ztunnel's `serviceAccounts`.
    L4ServiceAccount { namespace: Box<str>, account: Box<str> },
}

impl PeerTest {
    /// `namespaces`: every star is a wildcard, the rest literal, surrounded by `.*/ns/` and `/.*`.
    pub(crate) fn namespace(value: &str) -> Self {
        let pattern = format!("/ns/{value}/");
        Self::Namespace(pattern.split('*').map(Into::into).collect())
    }

    /// `sa` or `ns/sa`; a bare account belongs to the policy's own namespace.
    pub(crate) fn service_account(value: &str, policy_namespace: &str) -> Self {
        let (namespace, account) = value.split_once('/').unwrap_or((policy_namespace, value));
        Self::ServiceAccount { namespace: namespace.into(), account: account.into() }
    }

    pub(crate) fn trust_domain(value: &str) -> Self {
        match value.split_once('*') {
            _ if value == "*" => Self::TrustDomain(None),
            Some((before, after)) => Self::TrustDomainGlob(before.into(), after.into()),
            None => Self::TrustDomain(Some(value.into())),
        }
    }

    pub(crate) fn matches(&self, peer: &str) -> bool {
        match self {
            Self::Principal(Text::Suffix(suffix)) => {
                peer.strip_suffix(&**suffix).is_some_and(|gap| !gap.contains('\n'))
            }
            Self::Principal(Text::Line) => !peer.contains('\n'),
            Self::Principal(text) => text.matches(peer.as_bytes()),
            Self::Namespace(parts) => glob(peer, parts),
            Self::ServiceAccount { namespace, account } => service_account(peer, namespace, account),
            Self::TrustDomain(None) => true,
            Self::TrustDomain(Some(domain)) => peer.strip_prefix(&**domain).is_some_and(|rest| rest.starts_with('/')),
            Self::TrustDomainGlob(before, after) => trust_domain(peer, before, after),
            Self::L4Principal(text) => L4Identity::parse(peer).is_some() && text.matches(peer.as_bytes()),
            Self::L4Namespace(text) => L4Identity::parse(peer).is_some_and(|id| text.matches(id.namespace.as_bytes())),
            Self::L4ServiceAccount { namespace, account } => {
                L4Identity::parse(peer).is_some_and(|id| id.namespace == &**namespace && id.account == &**account)
            }
        }
    }
}

/// `.*p0.*p1.*..pn.*`: leftmost occurrences in order are enough, since every gap is free.
fn glob(peer: &str, parts: &[Box<str>]) -> bool {
    let mut rest = peer;
    let mut parts = parts.iter();
    // The URI's own `//` may be the slash before `ns`, where the trust domain is called that.
    let at_start = parts.as_slice().first().and_then(|part| peer.strip_prefix(part.get(1..)?));
    if let Some(after) = at_start {
        rest = after;
        parts.next();
    }
    for part in parts {
        match rest.split_once(&**part) {
            Some((gap, after)) if !gap.contains('\n') => rest = after,
            _ => return false,
        }
    }
    !rest.contains('\n')
}

/// `.+/ns/NS/(.+/|)sa/SA(/.+)?` on the ID without its scheme. The leftmost `/ns/NS/` suffices: what follows a
/// later one follows it too.
fn service_account(peer: &str, namespace: &str, account: &str) -> bool {
    if peer.contains('\n') {
        return false;
    }
    let mut from = first_char_len(peer);
    while let Some((at, _)) = peer.get(from..).and_then(|tail| tail.split_once("/ns/")) {
        let start = from + at.len() + "/ns/".len();
        let rest = peer.get(start..).and_then(|tail| tail.strip_prefix(namespace)?.strip_prefix('/'));
        if let Some(rest) = rest {
            return account_follows(rest, account);
        }
        from = start - 1;
    }
    false
}

/// `(.+/|)sa/SA(/.+)?`.
fn account_follows(rest: &str, account: &str) -> bool {
    let ends = |tail: &str| {
        tail.strip_prefix(account).is_some_and(|end| end.is_empty() || (end.len() > 1 && end.starts_with('/')))
    };
    if rest.strip_prefix("sa/").is_some_and(ends) {
        return true;
    }
    let mut tail = rest.get(first_char_len(rest)..).unwrap_or("");
    while let Some((_, after)) = tail.split_once("/sa/") {
        if ends(after) {
            return true;
        }
        // The slash that ends this match may begin the next.
        tail = tail.get(tail.len() - after.len() - 1..).unwrap_or("");
    }
    false
}

fn first_char_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

/// `before[^/]*after/.*`.
fn trust_domain(peer: &str, before: &str, after: &str) -> bool {
    let Some(rest) = peer.strip_prefix(before) else {
        return false;
    };
    let reach = rest.find('/').unwrap_or(rest.len());
    rest.char_indices().map(|(at, _)| at).take_while(|at| *at <= reach).any(|at| {
        rest.get(at..)
            .and_then(|tail| tail.strip_prefix(after)?.strip_prefix('/'))
            .is_some_and(|tail| !tail.contains('\n'))
    })
}

/// What ztunnel calls an identity: exactly `td/ns/N/sa/S`.
pub(crate) struct L4Identity<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) account: &'a str,
}

impl<'a> L4Identity<'a> {
    pub(crate) fn parse(peer: &'a str) -> Option<Self> {
        let mut parts = peer.split('/');
        let (_, ns, namespace, sa, account) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        (ns == "ns" && sa == "sa" && parts.next().is_none()).then_some(Self { namespace, account })
    }
}
