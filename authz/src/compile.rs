//! From policies to predicates, exactly as istiod translates them for Envoy, or for ztunnel.
//!
//! Everything that depends on the action or on the kind of filter chain is decided here, never while
//! matching: which ALLOW rules vanish, which DENY rules widen or go silent.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use palisade_policies::{Action, AuthorizationPolicy, MeshConfig, Rule as PolicyRule};

use crate::compiled::{CompiledSet, Engine, PredicateId, Rule};
use crate::evaluation::PolicyRef;
use crate::predicate::Predicate;
use crate::request::Semantics;

mod envoy;
mod l4;
mod trust;

use trust::TrustDomains;

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

#[derive(Default)]
struct Interner {
    ids: HashMap<Predicate, PredicateId>,
    order: Vec<Predicate>,
    headers: BTreeSet<String>,
}

impl Interner {
    fn intern(&mut self, predicate: Predicate) -> PredicateId {
        if let Some(id) = self.ids.get(&predicate) {
            return *id;
        }
        if let Predicate::Header(key, _) = &predicate
            && let Some(name) = key.name()
        {
            self.headers.insert(name.to_owned());
        }
        let id = PredicateId(u32::try_from(self.order.len()).unwrap_or(u32::MAX));
        self.order.push(predicate.clone());
        self.ids.insert(predicate, id);
        id
    }
}

pub(crate) fn compile(policies: &[Arc<AuthorizationPolicy>], mesh: &MeshConfig, semantics: Semantics) -> CompiledSet {
    let domains = TrustDomains::new(mesh);
    let mut interner = Interner::default();
    let mut engines = Engines::default();
    for policy in policies {
        if semantics == Semantics::L4 && !l4::applies(policy) {
            continue;
        }
        let context = Context {
            semantics,
            strict: policy.action == Action::Allow,
            namespace: &policy.meta.namespace,
            domains: &domains,
        };
        let engine = engines.of(policy);
        engine.attached = true;
        for (index, rule) in policy.rules.iter().enumerate() {
            if let Some(rule) = compile_rule(policy, index, rule, &context, &mut interner) {
                engine.rules.push(rule);
            }
        }
    }
    engines.finish(interner)
}

fn compile_rule(
    policy: &AuthorizationPolicy,
    index: usize,
    rule: &PolicyRule,
    context: &Context<'_>,
    interner: &mut Interner,
) -> Option<Rule> {
    let compiled = match context.semantics {
        Semantics::Http | Semantics::Tcp => envoy::rule(rule, context, interner),
        Semantics::L4 => l4::rule(rule, context, interner),
    };
    let parts = compiled.ok()?;
    let (namespace, name) = (policy.meta.namespace.as_str(), policy.meta.name.as_str());
    let mut id = format!("ns[{namespace}]-policy[{name}]-rule[{index}]");
    if let Action::Custom { provider } = &policy.action {
        id = format!("istio-ext-authz-{provider}-{id}-deny-due-to-bad-CUSTOM-action");
    }
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    Some(Rule {
        policy: PolicyRef::new(id, (namespace, name), number, &rule.origin),
        when: parts.when,
        from: parts.from,
        to: parts.to,
    })
}

/// The three conjuncts of a rule.
struct Parts {
    when: Vec<crate::compiled::Clause>,
    from: Vec<Vec<crate::compiled::Clause>>,
    to: Vec<Vec<crate::compiled::Clause>>,
}

#[derive(Default)]
struct Engines {
    custom: Engine,
    audit: Engine,
    deny: Engine,
    allow: Engine,
    shadow_deny: Engine,
    shadow_allow: Engine,
}

impl Engines {
    fn of(&mut self, policy: &AuthorizationPolicy) -> &mut Engine {
        match (&policy.action, policy.dry_run) {
            // Validation refuses a dry-run CUSTOM or AUDIT policy; Istio itself enforces them all the same.
            (Action::Custom { .. }, _) => &mut self.custom,
            (Action::Audit, _) => &mut self.audit,
            (Action::Deny, false) => &mut self.deny,
            (Action::Deny, true) => &mut self.shadow_deny,
            (Action::Allow, false) => &mut self.allow,
            (Action::Allow, true) => &mut self.shadow_allow,
        }
    }

    fn finish(self, interner: Interner) -> CompiledSet {
        let sorted = |mut engine: Engine| {
            engine.rules.sort_by(|a, b| a.policy.id().cmp(b.policy.id()));
            engine
        };
        CompiledSet {
            predicates: interner.order.into(),
            headers: interner.headers.into_iter().collect(),
            custom: sorted(self.custom),
            audit: sorted(self.audit),
            deny: sorted(self.deny),
            allow: sorted(self.allow),
            shadow_deny: sorted(self.shadow_deny),
            shadow_allow: sorted(self.shadow_allow),
        }
    }
}
