//! Rules for Envoy's HTTP and network RBAC filters.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use palisade_policies::{Condition, Operation, Rule as PolicyRule, Source};

use super::{Context, Dropped, Interner, Parts};
use crate::compiled::Clause;
use crate::predicate::{ClaimPath, HeaderKey, MetadataKey, PeerTest, Predicate, Template, Text};
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
            Self::Host => Predicate::Host(header()),
            Self::Method => Predicate::Method(header()),
            Self::Path if Template::is_template(value) => Predicate::PathTemplate(Template::parse(value)?),
            Self::Path => Predicate::Path(line()),
        })
    }
}

pub(super) fn rule(rule: &PolicyRule, context: &Context<'_>, interner: &mut Interner) -> Result<Parts, Dropped> {
    let mut when = Vec::new();
    for condition in &rule.when {
        let Condition { key, values, not_values } = condition;
        let key = Key::of_condition(key).ok_or(Dropped)?;
        clauses(key, values, not_values, context, interner, &mut when)?;
    }
    let from = alternatives(&rule.from, |source, out| source_clauses(source, context, interner, out))?;
    let to = alternatives(&rule.to, |operation, out| operation_clauses(operation, context, interner, out))?;
    Ok(Parts { when, from, to })
}

/// One alternative that constrains nothing lets the whole side match anything.
fn alternatives<T>(
    items: &[T],
    mut compile: impl FnMut(&T, &mut Vec<Clause>) -> Result<(), Dropped>,
) -> Result<Vec<Vec<Clause>>, Dropped> {
    let mut compiled = Vec::with_capacity(items.len());
    for item in items {
        let mut out = Vec::new();
        compile(item, &mut out)?;
        compiled.push(out);
    }
    if compiled.iter().any(Vec::is_empty) {
        compiled.clear();
    }
    Ok(compiled)
}

fn source_clauses(
    source: &Source,
    context: &Context<'_>,
    interner: &mut Interner,
    out: &mut Vec<Clause>,
) -> Result<(), Dropped> {
    let s = source;
    for (key, values, not_values) in [
        (Key::Principal, &s.principals, &s.not_principals),
        (Key::RequestPrincipal, &s.request_principals, &s.not_request_principals),
        (Key::ServiceAccount, &s.service_accounts, &s.not_service_accounts),
        (Key::TrustDomain, &s.trust_domains, &s.not_trust_domains),
        (Key::Namespace, &s.namespaces, &s.not_namespaces),
        (Key::RemoteIp, &s.remote_ip_blocks, &s.not_remote_ip_blocks),
        (Key::SourceIp, &s.ip_blocks, &s.not_ip_blocks),
    ] {
        clauses(key, values, not_values, context, interner, out)?;
    }
    Ok(())
}

fn operation_clauses(
    operation: &Operation,
    context: &Context<'_>,
    interner: &mut Interner,
    out: &mut Vec<Clause>,
) -> Result<(), Dropped> {
    let o = operation;
    for (key, values, not_values) in [
        (Key::Host, &o.hosts, &o.not_hosts),
        (Key::Method, &o.methods, &o.not_methods),
        (Key::Path, &o.paths, &o.not_paths),
        (Key::DestinationPort, &o.ports, &o.not_ports),
    ] {
        clauses(key, values, not_values, context, interner, out)?;
    }
    Ok(())
}

fn clauses(
    key: Key<'_>,
    values: &[String],
    not_values: &[String],
    context: &Context<'_>,
    interner: &mut Interner,
    out: &mut Vec<Clause>,
) -> Result<(), Dropped> {
    for (values, negated) in [(values, false), (not_values, true)] {
        let values = match key {
            Key::Principal => context.domains.principals(values),
            Key::TrustDomain => context.domains.trust_domains(values),
            _ => values.to_vec(),
        };
        let mut any = Vec::with_capacity(values.len());
        for value in &values {
            match key.predicate(value, context) {
                Some(predicate) => any.push(interner.intern(predicate)),
                None if context.strict => return Err(Dropped),
                None => {}
            }
        }
        if !any.is_empty() {
            out.push(Clause { negated, any });
        }
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
    if value.contains('/') {
        return IpNet::from_str(value).ok().map(|net| net.trunc());
    }
    let address = value.split_once('%').map_or(value, |(address, _)| address);
    IpAddr::from_str(address).ok().map(IpNet::from)
}

/// Decimal digits only, leading zeros allowed, up to 65535.
pub(super) fn port(value: &str) -> Option<u16> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| value.parse().ok()).flatten()
}
