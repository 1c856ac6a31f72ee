//! AuthorizationPolicy as a checked type. What stands here has passed every rule of the loader; the text of each
//! value is kept as written, because the engine compiles the same text differently for HTTP, TCP and L4.

use crate::{Meta, Origin, Selector};

/// An accepted AuthorizationPolicy (`security.istio.io/v1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Name, namespace, labels, annotations and position.
    pub meta: Meta,
    /// Which workloads it selects; `None` where the document has no selector. An empty one selects all, too, for
    /// a sidecar; ztunnel tells the two apart.
    pub selector: Option<Selector>,
    /// `targetRefs` (or the one `targetRef`): such a policy never applies to a sidecar.
    pub target_refs: Vec<TargetRef>,
    /// What happens when a rule matches.
    pub action: Action,
    /// Whether the `istio.io/dry-run` annotation is true: evaluated and reported, never enforced.
    pub dry_run: bool,
    /// The rules; any one that matches is enough. Empty never matches.
    pub rules: Vec<Rule>,
}

/// What a matching policy does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Let the request pass.
    Allow,
    /// Refuse the request.
    Deny,
    /// Mark the request for the audit log.
    Audit,
    /// Ask an external provider.
    Custom {
        /// The name of the extension provider in the mesh configuration.
        provider: String,
    },
}

impl Action {
    /// The text of the resource: `ALLOW`, `DENY`, `AUDIT` or `CUSTOM`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom { .. } => "CUSTOM",
        }
    }
}

/// A reference to a Gateway API resource that a policy attaches to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetRef {
    /// The API group; `core` is written as the empty text.
    pub group: String,
    /// The kind: `Service`, `ServiceEntry`, `Gateway` or `GatewayClass`.
    pub kind: String,
    /// The name of the resource, in the policy's own namespace.
    pub name: String,
}

/// One rule: it matches if one of `from` (or none is given), one of `to` (or none is given) and all of `when` match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The sources, any of which is enough.
    pub from: Vec<Source>,
    /// The operations, any of which is enough.
    pub to: Vec<Operation>,
    /// The conditions, all of which have to hold.
    pub when: Vec<Condition>,
    /// The line at which the rule begins.
    pub origin: Origin,
}

/// One source: its lists are ANDed, the values of one list ORed. An empty list puts no constraint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// Peer identities without `spiffe://`: exact, `prefix*`, `*suffix` or `*`.
    pub principals: Vec<String>,
    /// The negation of `principals`: true for a peer without identity.
    pub not_principals: Vec<String>,
    /// `issuer/subject` of a verified token.
    pub request_principals: Vec<String>,
    /// The negation of `request_principals`.
    pub not_request_principals: Vec<String>,
    /// Namespaces of the peer, with any number of `*`.
    pub namespaces: Vec<String>,
    /// The negation of `namespaces`.
    pub not_namespaces: Vec<String>,
    /// `account` (in the policy's namespace) or `namespace/account`.
    pub service_accounts: Vec<String>,
    /// The negation of `service_accounts`.
    pub not_service_accounts: Vec<String>,
    /// Trust domains of the peer.
    pub trust_domains: Vec<String>,
    /// The negation of `trust_domains`.
    pub not_trust_domains: Vec<String>,
    /// Addresses or prefixes of the direct TCP peer.
    pub ip_blocks: Vec<String>,
    /// The negation of `ip_blocks`.
    pub not_ip_blocks: Vec<String>,
    /// Addresses or prefixes of the client behind forwarding headers.
    pub remote_ip_blocks: Vec<String>,
    /// The negation of `remote_ip_blocks`.
    pub not_remote_ip_blocks: Vec<String>,
}

/// One operation: its lists are ANDed, the values of one list ORed. An empty list puts no constraint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Operation {
    /// Values of the `Host` header, port included.
    pub hosts: Vec<String>,
    /// The negation of `hosts`.
    pub not_hosts: Vec<String>,
    /// Decimal ports 0 to 65535, leading zeros possible.
    pub ports: Vec<String>,
    /// The negation of `ports`.
    pub not_ports: Vec<String>,
    /// HTTP methods.
    pub methods: Vec<String>,
    /// The negation of `methods`.
    pub not_methods: Vec<String>,
    /// Paths or path templates (`{*}`, `{**}`).
    pub paths: Vec<String>,
    /// The negation of `paths`.
    pub not_paths: Vec<String>,
}

/// One condition: it holds if some of `values` match (or none is given) and none of `not_values` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The attribute, for example `source.ip` or `request.headers[x-token]`.
    pub key: String,
    /// The values, any of which is enough.
    pub values: Vec<String>,
    /// The values, none of which may match.
    pub not_values: Vec<String>,
}
