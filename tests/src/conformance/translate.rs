//! What istiod makes of Istio's security resources: the filters of an Envoy.
//!
//! A second, independent reading of the semantics. It shares the checked types of `palisade-policies` with the engine
//! and nothing else, so a real Envoy that is configured by it can judge the engine. It is itself judged by Istio's own
//! golden files. The JSON is that of protobuf: names in camel case, defaults left out.

mod jwt;
mod matcher;
mod provider;
mod rbac;
mod rule;
mod trust;

use palisade_policies::{AuthorizationPolicy, ExtensionProvider};
use serde_json::Value;
use std::sync::Arc;

pub use jwt::authentication;
pub use matcher::cidr;
pub use provider::cluster;

/// Which of Envoy's filter chains a policy is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chain {
    /// HTTP filters, which see requests.
    Http,
    /// Network filters, which see connections.
    Tcp,
}

/// Where Envoy finds the identity of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The certificate of the TLS connection: sidecars and gateways.
    Certificate,
    /// The filter state `io.istio.peer_principal`: waypoints, and sidecars that end HBONE.
    FilterState,
}

/// What of the mesh changes a translation.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The mesh's trust domain and its aliases; empty rewrites nothing.
    pub trust_domains: &'a [String],
    /// The providers of CUSTOM policies.
    pub providers: &'a [ExtensionProvider],
    /// Where identities come from.
    pub identity: Identity,
}

/// The filters of the CUSTOM policies among `policies`: they stand first, before tokens are checked.
#[must_use]
pub fn custom(policies: &[Arc<AuthorizationPolicy>], chain: Chain, context: &Context<'_>) -> Vec<Value> {
    rbac::custom(policies, chain, context)
}

/// The filters of AUDIT, DENY and ALLOW policies, in this order, dry-run policies included.
#[must_use]
pub fn enforce(policies: &[Arc<AuthorizationPolicy>], chain: Chain, context: &Context<'_>) -> Vec<Value> {
    rbac::enforce(policies, chain, context)
}
