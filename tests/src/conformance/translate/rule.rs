//! One rule of a policy as permissions and principals. A predicate that cannot be written makes an ALLOW rule vanish;
//! any other rule loses the predicate and matches more.

use palisade_policies::{Operation, Rule, Source};
use serde_json::{Value, json};

use super::matcher::{self, Unfit};
use super::{Chain, Identity, trust};

/// The `envoy.config.rbac.v3.Policy` of a rule; `None` where it has none.
pub(super) fn policy(rule: &Rule, setting: &Setting<'_>) -> Option<Value> {
    let mut permission = Vec::new();
    let mut principal = Vec::new();
    for when in &rule.when {
        let key = Key::of(&when.key)?;
        let mut predicate = Predicate { key, values: when.values.clone(), not_values: when.not_values.clone() };
        // istiod rewrites a condition once for each source that shares it.
        for _ in 0..rule.from.len().max(1) {
            predicate.migrate(setting.trust_domains);
        }
        if predicate.key.is_permission() { permission.push(predicate) } else { principal.push(predicate) }
    }
    let to = rule.to.iter().map(of_operation);
    let from = rule.from.iter().map(|source| of_source(source, setting));
    Some(json!({
        "permissions": side(to, &permission, PERMISSION, setting).ok()?,
        "principals": side(from, &principal, PRINCIPAL, setting).ok()?,
    }))
}

/// What a rule's translation depends on.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) chain: Chain,
    pub(super) identity: Identity,
    pub(super) trust_domains: &'a [String],
    pub(super) allow: bool,
    /// The policy's namespace.
    pub(super) namespace: &'a str,
}

/// The names of Envoy's connectives on one side.
#[derive(Clone, Copy)]
struct Side {
    and: &'static str,
    or: &'static str,
    not: &'static str,
    list: &'static str,
}

const PERMISSION: Side = Side { and: "andRules", or: "orRules", not: "notRule", list: "rules" };
const PRINCIPAL: Side = Side { and: "andIds", or: "orIds", not: "notId", list: "ids" };

impl Side {
    fn of(self, connective: &str, items: Vec<Value>) -> Value {
        json!({ connective: { self.list: items } })
    }
}

fn side(
    alternatives: impl ExactSizeIterator<Item = Vec<Predicate>>,
    shared: &[Predicate],
    side: Side,
    setting: &Setting<'_>,
) -> Result<Vec<Value>, Unfit> {
    let mut all: Vec<Vec<Predicate>> = alternatives.collect();
    if all.is_empty() {
        all.push(Vec::new());
    }
    let mut result = Vec::new();
    for own in &all {
        let mut and = Vec::new();
        for predicate in own.iter().chain(shared) {
            and.extend(predicate.matchers(side, setting)?);
        }
        if and.is_empty() {
            and.push(json!({ "any": true }));
        }
        result.push(side.of(side.and, and));
    }
    Ok(result)
}

/// An attribute.
#[derive(Clone)]
enum Key {
    Host,
    Method,
    Path,
    DestinationIp,
    DestinationPort,
    Sni,
    Filter(String),
    Principal,
    RequestPrincipal,
    ServiceAccount,
    TrustDomain,
    Namespace,
    RemoteIp,
    SourceIp,
    Audience,
    Presenter,
    Header(String),
    Claim(String),
}

impl Key {
    /// The attribute of a condition; `None` for an unknown one.
    fn of(key: &str) -> Option<Self> {
        Some(match key {
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "connection.sni" => Self::Sni,
            "source.ip" => Self::SourceIp,
            "remote.ip" => Self::RemoteIp,
            "source.namespace" => Self::Namespace,
            "source.trustDomain" => Self::TrustDomain,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.principal" => Self::Principal,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Audience,
            "request.auth.presenter" => Self::Presenter,
            _ => {
                if key.starts_with("experimental.envoy.filters.") {
                    Self::Filter(key.to_owned())
                } else if let Some(name) = key.strip_prefix("request.headers") {
                    Self::Header(name.to_owned())
                } else {
                    Self::Claim(key.strip_prefix("request.auth.claims")?.to_owned())
                }
            }
        })
    }

    fn is_permission(&self) -> bool {
        matches!(self, Self::DestinationIp | Self::DestinationPort | Self::Sni | Self::Filter(_))
    }

    fn needs_http(&self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::Method
                | Self::Path
                | Self::RequestPrincipal
                | Self::Audience
                | Self::Presenter
                | Self::Header(_)
                | Self::Claim(_)
        )
    }
}

struct Predicate {
    key: Key,
    values: Vec<String>,
    not_values: Vec<String>,
}

fn of_operation(to: &Operation) -> Vec<Predicate> {
    let lists = [
        (Key::Host, &to.hosts, &to.not_hosts),
        (Key::Method, &to.methods, &to.not_methods),
        (Key::Path, &to.paths, &to.not_paths),
        (Key::DestinationPort, &to.ports, &to.not_ports),
    ];
    lists.into_iter().map(Predicate::new).collect()
}

fn of_source(from: &Source, setting: &Setting<'_>) -> Vec<Predicate> {
    let lists = [
        (Key::Principal, &from.principals, &from.not_principals),
        (Key::RequestPrincipal, &from.request_principals, &from.not_request_principals),
        (Key::ServiceAccount, &from.service_accounts, &from.not_service_accounts),
        (Key::TrustDomain, &from.trust_domains, &from.not_trust_domains),
        (Key::Namespace, &from.namespaces, &from.not_namespaces),
        (Key::RemoteIp, &from.remote_ip_blocks, &from.not_remote_ip_blocks),
        (Key::SourceIp, &from.ip_blocks, &from.not_ip_blocks),
    ];
    let mut predicates: Vec<Predicate> = lists.into_iter().map(Predicate::new).collect();
    for predicate in &mut predicates {
        predicate.migrate(setting.trust_domains);
    }
    predicates
}

impl Predicate {
    fn new((key, values, not_values): (Key, &Vec<String>, &Vec<String>)) -> Self {
        Self { key, values: values.clone(), not_values: not_values.clone() }
    }

    fn migrate(&mut self, trust_domains: &[String]) {
        let rewrite: fn(&[String], &[String]) -> Vec<String> = match self.key {
            Key::Principal => trust::principals,
            Key::TrustDomain => trust::domains,
            _ => return,
        };
        for values in [&mut self.values, &mut self.not_values] {
            *values = rewrite(values, trust_domains);
        }
    }

    fn matchers(&self, side: Side, setting: &Setting<'_>) -> Result<Vec<Value>, Unfit> {
        let mut result = Vec::new();
        for (values, negated) in [(&self.values, false), (&self.not_values, true)] {
            if let Some(any) = self.any(values, side, setting)? {
                result.push(if negated { json!({ side.not: any }) } else { any });
            }
        }
        Ok(result)
    }

    /// One matcher for a whole list; `None` where nothing is left of it.
    fn any(&self, values: &[String], side: Side, setting: &Setting<'_>) -> Result<Option<Value>, Unfit> {
        if values.is_empty() {
            return Ok(None);
        }
        let out_of_place = self.key.needs_http() && setting.chain == Chain::Tcp;
        let whole = if out_of_place { Some(Err(Unfit)) } else { self.whole(values, side) };
        match whole {
            Some(Ok(matcher)) => return Ok(Some(matcher)),
            Some(Err(unfit)) => return if setting.allow { Err(unfit) } else { Ok(None) },
            None => {}
        }
        let mut any = Vec::new();
        for value in values {
            match self.one(value, setting) {
                Ok(matcher) => any.push(matcher),
                Err(unfit) if setting.allow => return Err(unfit),
                Err(_) => {}
            }
        }
        Ok((!any.is_empty()).then(|| side.of(side.or, any)))
    }

    /// Keys whose values make one matcher together.
    fn whole(&self, values: &[String], side: Side) -> Option<Result<Value, Unfit>> {
        Some(match &self.key {
            Key::RequestPrincipal => Ok(request_principals(values, side)),
            Key::Audience => Ok(claim(&["aud"], texts(values))),
            Key::Presenter => Ok(claim(&["azp"], texts(values))),
            Key::Claim(name) => claim_path(name).map(|path| claim(&path, texts(values))),
            Key::Filter(key) => filter_metadata(key, values),
            _ => return None,
        })
    }

    fn one(&self, value: &str, setting: &Setting<'_>) -> Result<Value, Unfit> {
        let range = || matcher::cidr(value).ok_or(Unfit);
        let identity = |matcher: Value| match setting.identity {
            Identity::Certificate => json!({ "authenticated": { "principalName": matcher } }),
            Identity::FilterState => {
                json!({ "filterState": { "key": "io.istio.peer_principal", "stringMatch": matcher } })
            }
        };
        Ok(match &self.key {
            Key::Host => json!({ "header": matcher::header(":authority", value, true) }),
            Key::Method => json!({ "header": matcher::header(":method", value, false) }),
            Key::Path => matcher::path(value),
            Key::DestinationIp => json!({ "destinationIp": range()? }),
            Key::DestinationPort => json!({ "destinationPort": matcher::port(value)? }),
            Key::Sni => json!({ "requestedServerName": matcher::text(value) }),
            Key::Principal => identity(matcher::prefixed(value, "spiffe://")),
            Key::ServiceAccount => identity(matcher::service_account(value, setting.namespace)),
            Key::TrustDomain => identity(matcher::trust_domain(value)),
            Key::Namespace => identity(matcher::namespace(value)),
            Key::RemoteIp => json!({ "remoteIp": range()? }),
            Key::SourceIp => json!({ "directRemoteIp": range()? }),
            Key::Header(name) => json!({ "header": matcher::header(in_brackets(name)?, value, false) }),
            Key::RequestPrincipal | Key::Audience | Key::Presenter | Key::Claim(_) | Key::Filter(_) => {
                return Err(Unfit);
            }
        })
    }
}

fn request_principals(values: &[String], side: Side) -> Value {
    let string = |claim: &str, matcher: Value| metadata(JWT, &["payload", claim], json!({ "stringMatch": matcher }));
    let mut any: Vec<Value> = values
        .iter()
        .map(|value| {
            let (issuer, subject) = matcher::request_principal(value);
            side.of(side.and, vec![string("iss", issuer), string("sub", subject)])
        })
        .collect();
    if any.len() == 1 { any.remove(0) } else { side.of(side.or, any) }
}

const JWT: &str = "envoy.filters.http.jwt_authn";

/// A text, or a list that has such a text.
fn claim(path: &[&str], value: Value) -> Value {
    let path: Vec<&str> = std::iter::once("payload").chain(path.iter().copied()).collect();
    let list = json!({ "listMatch": { "oneOf": value } });
    metadata(JWT, &path, json!({ "orMatch": { "valueMatchers": [list, value] } }))
}

fn texts(values: &[String]) -> Value {
    any_value(values.iter().map(|value| json!({ "stringMatch": matcher::text(value) })).collect())
}

fn any_value(mut matchers: Vec<Value>) -> Value {
    if matchers.len() == 1 { matchers.remove(0) } else { json!({ "orMatch": { "valueMatchers": matchers } }) }
}

fn metadata(filter: &str, path: &[&str], value: Value) -> Value {
    let path: Vec<Value> = path.iter().map(|key| json!({ "key": key })).collect();
    json!({ "metadata": { "filter": filter, "path": path, "value": value } })
}

fn in_brackets(text: &str) -> Result<&str, Unfit> {
    text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).ok_or(Unfit)
}

/// `[a][b]` as `a`, `b`; a text that is no such list is one name.
fn claim_path(text: &str) -> Result<Vec<&str>, Unfit> {
    let mut path = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let name = rest.strip_prefix('[').and_then(|inner| {
            let (name, after) = inner.split_once(']')?;
            (!name.contains('[')).then_some((name, after))
        });
        let Some((name, after)) = name else { return Ok(vec![in_brackets(text)?]) };
        path.push(name);
        rest = after;
    }
    Ok(path)
}

fn filter_metadata(key: &str, values: &[String]) -> Result<Value, Unfit> {
    let key = key.strip_prefix("experimental.").unwrap_or(key);
    let (filter, name) = key.strip_suffix(']').unwrap_or(key).split_once('[').ok_or(Unfit)?;
    let matchers = values.iter().map(|value| {
        if value.starts_with('[') && value.ends_with(']') {
            let inner = matcher::text(value.trim_matches(['[', ']']));
            json!({ "listMatch": { "oneOf": { "stringMatch": inner } } })
        } else {
            json!({ "stringMatch": matcher::text(value) })
        }
    });
    Ok(metadata(filter, &[name], any_value(matchers.collect())))
}
