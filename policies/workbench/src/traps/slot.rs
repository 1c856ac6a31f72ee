//! Every single value of a policy with its place: what a trap is found at, and what is exchanged to see whether the
//! decision would be another one.

use palisade_policies::{AuthorizationPolicy, Operation, Rule, Source};

/// What a list of values is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Principal,
    RequestPrincipal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    Ip,
    RemoteIp,
    Host,
    Port,
    Method,
    Path,
    DestinationIp,
    Sni,
    /// Lower case.
    Header(String),
    /// The names in the brackets.
    Claim(Vec<String>),
    Metadata(String, String),
    Unknown,
}

impl Field {
    /// Whether it is read from HTTP.
    pub(super) const fn is_http(&self) -> bool {
        matches!(
            self,
            Self::RequestPrincipal | Self::Host | Self::Method | Self::Path | Self::Header(_) | Self::Claim(_)
        )
    }

    /// Whether it is about who calls.
    pub(super) const fn is_identity(&self) -> bool {
        matches!(self, Self::Principal | Self::Namespace | Self::ServiceAccount | Self::TrustDomain)
    }

    /// Of a condition's key.
    fn of_key(key: &str) -> Self {
        match key {
            "source.ip" => Self::Ip,
            "remote.ip" => Self::RemoteIp,
            "source.namespace" => Self::Namespace,
            "source.principal" => Self::Principal,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.trustDomain" => Self::TrustDomain,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::Port,
            "connection.sni" => Self::Sni,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Claim(vec!["aud".to_owned()]),
            "request.auth.presenter" => Self::Claim(vec!["azp".to_owned()]),
            _ => Self::bracketed(key).unwrap_or(Self::Unknown),
        }
    }

    fn bracketed(key: &str) -> Option<Self> {
        let (name, rest) = key.split_at_checked(key.find('[')?)?;
        let inner = rest.strip_prefix('[')?.strip_suffix(']')?;
        match name {
            "request.headers" => Some(Self::Header(inner.to_ascii_lowercase())),
            "request.auth.claims" => Some(Self::Claim(inner.split("][").map(str::to_owned).collect())),
            _ => Some(Self::Metadata(name.strip_prefix("experimental.")?.to_owned(), inner.to_owned())),
        }
    }
}

/// Where in a rule a list stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    From(usize),
    To(usize),
    When(usize),
}

/// One list of values.
#[derive(Debug, Clone)]
pub(super) struct List<'a> {
    pub(super) rule: usize,
    pub(super) side: Side,
    pub(super) field: Field,
    pub(super) negated: bool,
    pub(super) values: &'a [String],
    name: &'static str,
}

impl List<'_> {
    /// The path of the list, as diagnostics write it.
    pub(super) fn path(&self) -> String {
        let (rule, name) = (self.rule, self.name);
        match self.side {
            Side::From(index) => format!("spec.rules[{rule}].from[{index}].source.{name}"),
            Side::To(index) => format!("spec.rules[{rule}].to[{index}].operation.{name}"),
            Side::When(index) => format!("spec.rules[{rule}].when[{index}].{name}"),
        }
    }

    /// The same list in a copy of the policy.
    pub(super) fn of<'p>(&self, policy: &'p mut AuthorizationPolicy) -> Option<&'p mut Vec<String>> {
        let rule = policy.rules.get_mut(self.rule)?;
        match self.side {
            Side::From(index) => {
                let source = rule.from.get_mut(index)?;
                SOURCE.iter().find(|entry| entry.name == self.name).map(|entry| (entry.edit)(source))
            }
            Side::To(index) => {
                let operation = rule.to.get_mut(index)?;
                OPERATION.iter().find(|entry| entry.name == self.name).map(|entry| (entry.edit)(operation))
            }
            Side::When(index) => {
                let condition = rule.when.get_mut(index)?;
                Some(if self.negated { &mut condition.not_values } else { &mut condition.values })
            }
        }
    }
}

/// One value of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<'a> {
    pub(super) list: &'a List<'a>,
    pub(super) index: usize,
    pub(super) value: &'a str,
}

impl Slot<'_> {
    pub(super) fn path(&self) -> String {
        format!("{}[{}]", self.list.path(), self.index)
    }

    /// A copy of the policy with other values in this one's stead.
    pub(super) fn instead(&self, policy: &AuthorizationPolicy, values: &[&str]) -> Option<AuthorizationPolicy> {
        let mut changed = policy.clone();
        let list = self.list.of(&mut changed)?;
        if self.index >= list.len() {
            return None;
        }
        list.splice(self.index..=self.index, values.iter().map(|value| (*value).to_owned()));
        Some(changed)
    }
}

struct Entry<T> {
    name: &'static str,
    field: Field,
    negated: bool,
    read: fn(&T) -> &Vec<String>,
    edit: fn(&mut T) -> &mut Vec<String>,
}

macro_rules! entries {
    ($($field:ident: $name:literal $list:ident, $not:literal $not_list:ident;)*) => {
        &[$(
            Entry { name: $name, field: Field::$field, negated: false, read: |of| &of.$list, edit: |of| &mut of.$list },
            Entry { name: $not, field: Field::$field, negated: true, read: |of| &of.$not_list, edit: |of| &mut of.$not_list },
        )*]
    };
}

const SOURCE: &[Entry<Source>] = entries! {
    Principal: "principals" principals, "notPrincipals" not_principals;
    RequestPrincipal: "requestPrincipals" request_principals, "notRequestPrincipals" not_request_principals;
    Namespace: "namespaces" namespaces, "notNamespaces" not_namespaces;
    ServiceAccount: "serviceAccounts" service_accounts, "notServiceAccounts" not_service_accounts;
    TrustDomain: "trustDomains" trust_domains, "notTrustDomains" not_trust_domains;
    Ip: "ipBlocks" ip_blocks, "notIpBlocks" not_ip_blocks;
    RemoteIp: "remoteIpBlocks" remote_ip_blocks, "notRemoteIpBlocks" not_remote_ip_blocks;
};

const OPERATION: &[Entry<Operation>] = entries! {
    Host: "hosts" hosts, "notHosts" not_hosts;
    Port: "ports" ports, "notPorts" not_ports;
    Method: "methods" methods, "notMethods" not_methods;
    Path: "paths" paths, "notPaths" not_paths;
};

/// So many values are copied and compiled in the time in which one policy is asked.
const VALUES: usize = 2;

/// What it costs to copy a policy or to compile it, in policies asked about a request.
pub(super) fn weight(policy: &AuthorizationPolicy) -> usize {
    let values: usize = lists(policy).iter().map(|list| list.values.len()).sum();
    policy.rules.len() + values / VALUES
}

/// All lists of a policy that are written, rule by rule in the order of the resource.
pub(super) fn lists(policy: &AuthorizationPolicy) -> Vec<List<'_>> {
    policy.rules.iter().enumerate().flat_map(|(index, rule)| rule_lists(index, rule)).collect()
}

/// The lists of one rule.
pub(super) fn rule_lists(index: usize, rule: &Rule) -> Vec<List<'_>> {
    let mut lists = Vec::new();
    for (at, source) in rule.from.iter().enumerate() {
        read(&mut lists, (index, Side::From(at)), SOURCE, source);
    }
    for (at, operation) in rule.to.iter().enumerate() {
        read(&mut lists, (index, Side::To(at)), OPERATION, operation);
    }
    for (at, condition) in rule.when.iter().enumerate() {
        let field = Field::of_key(&condition.key);
        for (name, negated, values) in
            [("values", false, &condition.values), ("notValues", true, &condition.not_values)]
        {
            if !values.is_empty() {
                lists.push(List { rule: index, side: Side::When(at), field: field.clone(), negated, values, name });
            }
        }
    }
    lists
}

fn read<'a, T>(out: &mut Vec<List<'a>>, at: (usize, Side), entries: &[Entry<T>], of: &'a T) {
    for entry in entries {
        let values = (entry.read)(of);
        if !values.is_empty() {
            let (rule, side) = at;
            out.push(List { rule, side, field: entry.field.clone(), negated: entry.negated, values, name: entry.name });
        }
    }
}

/// The values of a list.
pub(super) fn slots<'a>(list: &'a List<'a>) -> impl Iterator<Item = Slot<'a>> {
    list.values.iter().enumerate().map(move |(index, value)| Slot { list, index, value })
}
