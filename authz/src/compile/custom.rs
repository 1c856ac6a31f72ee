//! CUSTOM policies: which provider they ask, and when they deny instead.
//!
//! istiod gives a workload one provider. Where policies name several, or one that the mesh configuration does not
//! define, it keeps the rules and lets them deny what they match. (It finds the rules of a provider by a prefix of
//! their ids, so that of several providers `a-n` would be asked for what matched `a`; with one provider at most, that
//! cannot happen.)

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_policies::{Action, AuthorizationPolicy, ExtensionProvider, MeshConfig, ProviderKind};

use crate::compiled::Stage;
use crate::request::Semantics;

/// What becomes of the CUSTOM policies of a workload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Providers {
    /// There are none, or their provider is asked over HTTP and this is no HTTP: they do not exist.
    None,
    /// This one is asked.
    Ask(Arc<str>),
    /// What they match is denied.
    Bad,
}

impl Providers {
    pub(crate) fn of(policies: &[Arc<AuthorizationPolicy>], mesh: &MeshConfig, semantics: Semantics) -> Self {
        let named: BTreeSet<&str> = policies.iter().filter_map(|policy| provider(policy)).collect();
        let mut named = named.into_iter();
        let (Some(name), false) = (named.next(), semantics == Semantics::L4) else {
            return Self::None;
        };
        if named.next().is_some() {
            return Self::Bad;
        }
        let mut kinds = mesh.extension_providers.iter().filter(|one| one.name == name && asks(one));
        match (kinds.next().map(|one| &one.kind), kinds.next()) {
            (Some(ProviderKind::ExtAuthzHttp(_)), None) if semantics == Semantics::Tcp && is_label(name) => Self::None,
            (Some(_), None) if is_label(name) => Self::Ask(name.into()),
            _ => Self::Bad,
        }
    }

    /// Where a CUSTOM policy ends up. A dry-run one is refused by validation; past it, Istio enforces a denial of what
    /// it matches, unless the provider is bad.
    pub(crate) const fn stage(&self, dry_run: bool) -> Option<Stage> {
        match (self, dry_run) {
            (Self::None, _) | (Self::Bad, true) => None,
            (Self::Bad, false) | (Self::Ask(_), true) => Some(Stage::CustomDeny),
            (Self::Ask(_), false) => Some(Stage::CustomAsk),
        }
    }

    /// Envoy's key of a rule.
    pub(crate) fn rule_id(&self, policy: &AuthorizationPolicy, index: u32) -> String {
        let (namespace, name) = (&policy.meta.namespace, &policy.meta.name);
        let id = format!("ns[{namespace}]-policy[{name}]-rule[{index}]");
        let Some(provider) = provider(policy) else {
            return id;
        };
        let gap = if provider.is_empty() { "" } else { "-" };
        let end = if *self == Self::Bad { "-deny-due-to-bad-CUSTOM-action" } else { "" };
        format!("istio-ext-authz-{provider}{gap}{id}{end}")
    }
}

/// The provider that a CUSTOM policy names.
pub(crate) fn provider(policy: &AuthorizationPolicy) -> Option<&str> {
    match &policy.action {
        Action::Custom { provider } => Some(provider),
        _ => None,
    }
}

const fn asks(provider: &ExtensionProvider) -> bool {
    matches!(provider.kind, ProviderKind::ExtAuthzHttp(_) | ProviderKind::ExtAuthzGrpc(_))
}

/// Lower-case letters, digits and inner hyphens, up to 63.
fn is_label(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(fits) && !name.starts_with('-') && !name.ends_with('-')
}
