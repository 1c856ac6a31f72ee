//! From policies to rules, exactly as istiod translates them for Envoy, or for ztunnel.
//!
//! Everything that depends on the action or on the kind of filter chain is decided here, never while
//! matching: which ALLOW rules vanish, which DENY rules widen or go silent.

use std::sync::Arc;

use palisade_policies::{Action, AuthorizationPolicy, MeshConfig, Rule as PolicyRule};

use crate::compiled::Stage;
use crate::evaluation::PolicyRef;
use crate::index;
use crate::predicate::Interner;
use crate::program::{Draft, Field, Parts, PredicateId};
use crate::request::Semantics;

mod custom;
mod envoy;
mod l4;
mod trust;

pub(crate) use custom::{Providers, provider};
pub(crate) use trust::TrustDomains;

/// What policies are compiled against.
#[derive(PartialEq)]
pub(crate) struct Setting {
    semantics: Semantics,
    domains: TrustDomains,
    pub(crate) providers: Providers,
}

impl Setting {
    pub(crate) fn new(policies: &[Arc<AuthorizationPolicy>], mesh: &MeshConfig, semantics: Semantics) -> Self {
        let providers = Providers::of(policies, mesh, semantics);
        Self { semantics, domains: TrustDomains::new(mesh), providers }
    }
}

/// What a rule is compiled against.
struct Context<'a> {
    semantics: Semantics,
    /// ALLOW drops a rule for one bad value, every other action drops the value.
    strict: bool,
    namespace: &'a str,
    domains: &'a TrustDomains,
}

/// The rule cannot match anything and is left out.
struct Dropped;

/// Where in its rule a clause stands: the field, and the alternative or condition.
type Place = (Field, u32);

/// One policy, compiled; shared by all sets that hold it.
pub(crate) struct Unit {
    pub(crate) stage: Stage,
    pub(crate) rules: Vec<Compiled>,
}

/// One rule, compiled.
pub(crate) struct Compiled {
    pub(crate) policy: PolicyRef,
    pub(crate) words: Box<[u32]>,
}

/// Compiles one policy; `None` for one that does not exist in these semantics.
pub(crate) fn unit(policy: &Arc<AuthorizationPolicy>, setting: &Setting, interner: &mut Interner) -> Option<Unit> {
    let semantics = setting.semantics;
    if semantics == Semantics::L4 && !l4::applies(policy) {
        return None;
    }
    let stage = stage(policy, &setting.providers)?;
    let context = Context {
        semantics,
        strict: policy.action == Action::Allow,
        namespace: &policy.meta.namespace,
        domains: &setting.domains,
    };
    let mut rules = Vec::with_capacity(policy.rules.len());
    for (index, rule) in (0..).zip(&policy.rules) {
        if let Ok(parts) = compile_rule(rule, &context, interner) {
            let id = setting.providers.rule_id(policy, index);
            rules.push(Compiled { policy: PolicyRef::new(id, policy, index), words: parts.encode() });
        }
    }
    Some(Unit { stage, rules })
}

fn compile_rule(rule: &PolicyRule, context: &Context<'_>, interner: &mut Interner) -> Result<Parts, Dropped> {
    match context.semantics {
        Semantics::Http | Semantics::Tcp => envoy::rule(rule, context, interner),
        Semantics::L4 => l4::rule(rule, context, interner),
    }
}

fn stage(policy: &AuthorizationPolicy, providers: &Providers) -> Option<Stage> {
    Some(match (&policy.action, policy.dry_run) {
        (Action::Custom { .. }, dry_run) => return providers.stage(dry_run),
        // Validation refuses a dry-run AUDIT policy; Istio itself enforces it all the same.
        (Action::Audit, _) => Stage::Audit,
        (Action::Deny, false) => Stage::Deny,
        (Action::Deny, true) => Stage::ShadowDeny,
        (Action::Allow, false) => Stage::Allow,
        (Action::Allow, true) => Stage::ShadowAllow,
    })
}

/// Adds a clause, if there is anything in it.
fn add(any: Vec<PredicateId>, place: Place, negated: bool, interner: &Interner, out: &mut Vec<Draft>) {
    if let Some(first) = any.first() {
        let (field, index) = place;
        let found = any.iter().all(|id| interner.get(id.0).is_some_and(index::takes));
        out.push(Draft { field, index, negated, slot: interner.slot_of(*first), found, any });
    }
}
