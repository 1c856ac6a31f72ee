//! Rules for Envoy's HTTP and network RBAC filters.

use std::borrow::Cow;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use palisade_policies::{Condition, Operation, Rule as PolicyRule, Source};

use super::{Context, Dropped, Place, add};
use crate::predicate::{ClaimPath, HeaderKey, Interner, MetadataKey, PeerTest, Predicate, Template, Text};
use crate::program::{Draft, Field, Parts};
use crate::request::Semantics;

/// What a list of values constrains.
#[derive(Clone, Copy)]
enum Key<'a> {
    SourceIp,
    RemoteIp,
    Principal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    RequestPrincipal,
    Audiences,
    Presenter,
    /// The brackets after `request.auth.claims`.
    Claims(&'a str),
    /// The brackets after `request.headers`.
    Header(&'a str),
    DestinationIp,
    DestinationPort,
    Sni,
    /// The whole key.
    Metadata(&'a str),
    Host,
    Path,
    Method,
}

impl<'a> Key<'a> {
    /// `None` for a key that istiod does not know: the rule is skipped, whatever its action.
    fn of_condition(key: &'a str) -> Option<Self> {
        Some(match key {
            "source.ip" => Self::SourceIp,
            "remote.ip" => Self::RemoteIp,
            "source.namespace" => Self::Namespace,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.trustDomain" => Self::TrustDomain,
            "source.principal" => Self::Principal,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Audiences,
            "request.auth.presenter" => Self::Presenter,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "connection.sni" => Self::Sni,
            _ => return Self::of_map(key),
        })
    }

    fn of_map(key: &'a str) -> Option<Self> {
        if key.starts_with("experimental.envoy.filters.") {
            Some(Self::Metadata(key))
        } else if let Some(name) = key.strip_prefix("request.headers") {
            Some(Self::Header(name))
        } else {
            key.strip_prefix("request.auth.claims").map(Self::Claims)
        }
    }

    /// HTTP-only values are errors on a TCP chain. `remote.ip`, SNI and metadata are not among them.
    const fn is_http(self) -> bool {
        matches!(
            self,
            Self::RequestPrincipal
                | Self::Audiences
                | Self::Presenter
                | Self::Claims(_)
                | Self::Header(_)
                | Self::Host
                | Self::Path
                | Self::Method
        )
    }

    /// `None` where istiod's generator fails.
    fn predicate(self, value: &str, context: &Context<'_>) -> Option<Predicate> {
        if self.is_http() && context.semantics == Semantics::Tcp {
            return None;
        }
        let line = || Text::parse(value, Text::Line);
        let header = || Text::parse(value, Text::Present);
        Some(match self {
            Self::SourceIp => Predicate::SourceIp(network(value)?),
            Self::RemoteIp => Predicate::RemoteIp(network(value)?),
            Self::DestinationIp => Predicate::DestinationIp(network(value)?),
            Self::DestinationPort => Predicate::DestinationPort(port(value)?),
            Self::Sni => Predicate::Sni(line()),
            Self::Principal => Predicate::Peer(PeerTest::Principal(line())),
            Self::Namespace => Predicate::Peer(PeerTest::namespace(value)),
            Self::ServiceAccount => Predicate::Peer(PeerTest::service_account(value, context.namespace)),
            Self::TrustDomain => Predicate::Peer(PeerTest::trust_domain(value)),
            Self::RequestPrincipal => request_principal(value),
            Self::Audiences => Predicate::Claim(ClaimPath::top("aud"), line()),
            Self::Presenter => Predicate::Claim(ClaimPath::top("azp"), line()),
            Self::Claims(brackets) => Predicate::Claim(ClaimPath::parse(brackets)?, line()),
            Self::Header(name) => {
                let name = name.strip_prefix('[')?.strip_suffix(']')?;
                Predicate::Header(HeaderKey::new(name), header())
            }
            Self::Metadata(key) => metadata(key, value)?,
            // Hosts compare without regard to case.
            Self::Host => Predicate::Host(Text::parse(&value.to_ascii_lowercase(), Text::Present)),
            Self::Method => Predicate::Method(header()),
            Self::Path if Template::is_template(value) => Predicate::PathTemplate(Template::parse(value)?),
            Self::Path => Predicate::Path(line()),
        })
    }
}

pub(super) fn rule(rule: &PolicyRule, context: &Context<'_>, interner: &mut Interner) -> Result<Parts, Dropped> {
    let mut when = Vec::new();
    for (index, condition) in (0..).zip(&rule.when) {
        let Condition { key, values, not_values } = condition;
        let key = Key::of_condition(key).ok_or(Dropped)?;
        clauses(key, (Field::When, index), [values, not_values], context, interner, &mut when)?;
    }
    let from = alternatives(&rule.from, |index, source, out| source_clauses(index, source, context, interner, out))?;
    let to =
        alternatives(&rule.to, |index, operation, out| operation_clauses(index, operation, context, interner, out))?;
    Ok(Parts { when, from, to })
}

/// One alternative that constrains nothing lets the whole side match anything.
fn alternatives<T>(
    items: &[T],
    mut compile: impl FnMut(u32, &T, &mut Vec<Draft>) -> Result<(), Dropped>,
) -> Result<Vec<Vec<Draft>>, Dropped> {
    let mut compiled = Vec::with_capacity(items.len());
    for (index, item) in (0..).zip(items) {
        let mut out = Vec::new();
        compile(index, item, &mut out)?;
        compiled.push(out);
    }
    if compiled.iter().any(Vec::is_empty) {
        compiled.clear();
    }
    Ok(compiled)
}

fn source_clauses(
    index: u32,
    source: &Source,
    context: &Context<'_>,
    interner: &mut Interner,
    out: &mut Vec<Draft>,
) -> Result<(), Dropped> {
    let s = source;
    for (key, field, values) in [
        (Key::Principal, Field::Principals, [&s.principals, &s.not_principals]),
        (Key::RequestPrincipal, Field::RequestPrincipals, [&s.request_principals, &s.not_request_principals]),
        (Key::ServiceAccount, Field::ServiceAccounts, [&s.service_accounts, &s.not_service_accounts]),
        (Key::TrustDomain, Field::TrustDomains, [&s.trust_domains, &s.not_trust_domains]),
        (Key::Namespace, Field::Namespaces, [&s.namespaces, &s.not_namespaces]),
        (Key::RemoteIp, Field::RemoteIpBlocks, [&s.remote_ip_blocks, &s.not_remote_ip_blocks]),
        (Key::SourceIp, Field::IpBlocks, [&s.ip_blocks, &s.not_ip_blocks]),
    ] {
        clauses(key, (field, index), values, context, interner, out)?;
    }
    Ok(())
}

fn operation_clauses(
    index: u32,
    operation: &Operation,
    context: &Context<'_>,
    interner: &mut Interner,
    out: &mut Vec<Draft>,
) -> Result<(), Dropped> {
    let o = operation;
    for (key, field, values) in [
        (Key::Host, Field::Hosts, [&o.hosts, &o.not_hosts]),
        (Key::Method, Field::Methods, [&o.methods, &o.not_methods]),
        (Key::Path, Field::Paths, [&o.paths, &o.not_paths]),
        (Key::DestinationPort, Field::Ports, [&o.ports, &o.not_ports]),
    ] {
        clauses(key, (field, index), values, context, interner, out)?;
    }
    Ok(())
}

/// The clauses of one list of values and of its negative twin.
fn clauses(
    key: Key<'_>,
    place: Place,
    sides: [&Vec<String>; 2],
    context: &Context<'_>,
    interner: &mut Interner,
    out: &mut Vec<Draft>,
) -> Result<(), Dropped> {
    for (values, negated) in sides.into_iter().zip([false, true]) {
        let values = match key {
            Key::Principal => Cow::Owned(context.domains.principals(values)),
            Key::TrustDomain => Cow::Owned(context.domains.trust_domains(values)),
            _ => Cow::Borrowed(values.as_slice()),
        };
        let mut any = Vec::with_capacity(values.len());
        for value in values.iter() {
            match key.predicate(value, context) {
                Some(predicate) => any.push(interner.intern(predicate)),
                None if context.strict => return Err(Dropped),
                None => {}
            }
        }
        add(any, place, negated, interner, out);
    }
    Ok(())
}

/// Section 4.10: split at the last slash, the leading star looked for before the trailing one.
fn request_principal(value: &str) -> Predicate {
    let exact = |text: &str| Text::Exact(text.into());
    let (issuer, subject) = match value.rsplit_once('/') {
        Some((issuer, subject)) if value.starts_with('*') => (Text::parse(issuer, Text::Line), exact(subject)),
        Some((issuer, subject)) if value.ends_with('*') => {
            let prefix = subject.strip_suffix('*').unwrap_or(subject);
            let subject = if prefix.is_empty() { Text::Line } else { Text::Prefix(prefix.into()) };
            (exact(issuer), subject)
        }
        Some((issuer, subject)) => (exact(issuer), exact(subject)),
        None if value.starts_with('*') => (Text::Line, Text::parse(value, Text::Line)),
        None if value.ends_with('*') => (Text::parse(value, Text::Line), Text::Line),
        None => (exact(value), exact("")),
    };
    Predicate::RequestPrincipal { issuer, subject }
}

/// `[v]` asks for an element of a list, `v` for a string.
fn metadata(key: &str, value: &str) -> Option<Predicate> {
    let list = value.starts_with('[') && value.ends_with(']');
    let text = if list { value.trim_matches(['[', ']']) } else { value };
    Some(Predicate::Metadata(MetadataKey::parse(key, list)?, Text::parse(text, Text::Line)))
}

/// An address or a prefix; host bits are ignored, a zone is dropped from a bare address.
pub(super) fn network(value: &str) -> Option<IpNet> {
    if let Some((_, length)) = value.split_once('/') {
        // Go reads no length with a leading zero.
        let plain = length == "0" || !length.starts_with('0');
        return IpNet::from_str(value).ok().filter(|_| plain).map(|net| net.trunc());
    }
    let address = match value.split_once('%') {
        // Only IPv6 has zones.
        Some((address, zone)) if address.contains(':') && !zone.is_empty() => address,
        _ => value,
    };
    IpAddr::from_str(address).ok().map(IpNet::from)
}

/// Decimal digits only, leading zeros allowed, up to 65535.
pub(super) fn port(value: &str) -> Option<u16> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::network;

    #[test]
    fn addresses_and_prefixes_are_read_as_go_reads_them() {
        for good in ["10.0.0.1", "10.0.0.1/8", "10.0.0.1/0", "::/0", "fe80::1%eth0", "::ffff:10.0.0.1/96"] {
            assert!(network(good).is_some(), "{good}");
        }
        let bad = [
            "10.0.0.1/08",
            "10.0.0.1/00",
            "::/01",
            "10.0.0.1/33",
            "10.0.0.1/+8",
            "10.0.0.1%eth0",
            "fe80::1%",
            "010.0.0.1",
        ];
        for bad in bad {
            assert!(network(bad).is_none(), "{bad}");
        }
    }
}
