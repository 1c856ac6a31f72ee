//! All policies of one action as one RBAC filter, and those of each provider as a pair of filters.

use std::collections::BTreeMap;
use std::sync::Arc;

use palisade_policies::{Action, AuthorizationPolicy};
use serde_json::{Map, Value, json};

use super::rule::{self, Setting};
use super::{Chain, Context, provider};

/// Where the RBAC filter that stands in for a provider writes its result.
pub(super) const CUSTOM_PREFIX: &str = "istio_ext_authz_";

const DRY_ALLOW: &str = "istio_dry_run_allow_";
const DRY_DENY: &str = "istio_dry_run_deny_";

pub(super) fn enforce(policies: &[Arc<AuthorizationPolicy>], chain: Chain, context: &Context<'_>) -> Vec<Value> {
    let phases = [("LOG", Action::Audit, ""), ("DENY", Action::Deny, DRY_DENY), ("ALLOW", Action::Allow, DRY_ALLOW)];
    phases
        .into_iter()
        .filter_map(|(envoy, action, prefix)| {
            let of = |dry_run: bool| {
                let chosen: Vec<_> =
                    policies.iter().filter(|policy| policy.action == action && policy.dry_run == dry_run).collect();
                (!chosen.is_empty()).then(|| rules(envoy, entries(&chosen, "", "", chain, context)))
            };
            let (enforced, shadow) = (of(false), of(true));
            // Without shadow rules istiod names the prefix of the default action, which is ALLOW.
            let prefix = if shadow.is_some() { prefix } else { DRY_ALLOW };
            (enforced.is_some() || shadow.is_some()).then(|| filter(chain, enforced, shadow, prefix))
        })
        .collect()
}

pub(super) fn custom(policies: &[Arc<AuthorizationPolicy>], chain: Chain, context: &Context<'_>) -> Vec<Value> {
    let mut providers: BTreeMap<&str, (Vec<_>, Vec<_>)> = BTreeMap::new();
    for policy in policies {
        if let Action::Custom { provider } = &policy.action {
            let (enforced, dry_run) = providers.entry(provider).or_default();
            if policy.dry_run { dry_run.push(policy) } else { enforced.push(policy) }
        }
    }
    let several = providers.len() > 1;
    let mut filters = Vec::new();
    for (name, (enforced, dry_run)) in providers {
        let lead = format!("istio-ext-authz-{name}-");
        let question = if several { None } else { provider::filter(name, chain, context.providers) };
        match question {
            None => {
                let refused = entries(&enforced, &lead, "-deny-due-to-bad-CUSTOM-action", chain, context);
                filters.push(filter(chain, Some(rules("DENY", refused)), None, ""));
            }
            // A provider that speaks HTTP is not asked about connections.
            Some(None) => {}
            Some(Some(question)) => {
                let asked = rules("DENY", entries(&enforced, &lead, "", chain, context));
                let held = (!dry_run.is_empty()).then(|| rules("DENY", entries(&dry_run, &lead, "", chain, context)));
                filters.push(filter(chain, held, Some(asked), CUSTOM_PREFIX));
                filters.push(question);
            }
        }
    }
    filters
}

fn entries(
    policies: &[&Arc<AuthorizationPolicy>],
    lead: &str,
    tail: &str,
    chain: Chain,
    context: &Context<'_>,
) -> Map<String, Value> {
    let mut entries = Map::new();
    for policy in policies {
        let setting = Setting {
            chain,
            identity: context.identity,
            trust_domains: context.trust_domains,
            allow: policy.action == Action::Allow,
            namespace: &policy.meta.namespace,
        };
        let id = |index: usize| {
            format!("{lead}ns[{}]-policy[{}]-rule[{index}]{tail}", policy.meta.namespace, policy.meta.name)
        };
        for (index, rule) in policy.rules.iter().enumerate() {
            if let Some(entry) = rule::policy(rule, &setting) {
                entries.insert(id(index), entry);
            }
        }
        if policy.rules.is_empty() {
            let never = json!({
                "permissions": [{ "notRule": { "any": true } }],
                "principals": [{ "notId": { "any": true } }],
            });
            entries.insert(id(0), never);
        }
    }
    entries
}

fn rules(action: &str, entries: Map<String, Value>) -> Value {
    let mut rules = json!({});
    if action != "ALLOW" {
        rules["action"] = action.into();
    }
    if !entries.is_empty() {
        rules["policies"] = Value::Object(entries);
    }
    rules
}

fn filter(chain: Chain, enforced: Option<Value>, shadow: Option<Value>, prefix: &str) -> Value {
    let kind = match chain {
        Chain::Http => "http",
        Chain::Tcp => "network",
    };
    let mut config = json!({ "@type": format!("type.googleapis.com/envoy.extensions.filters.{kind}.rbac.v3.RBAC") });
    if let Some(rules) = enforced {
        config["rules"] = rules;
    }
    if let Some(rules) = shadow {
        config["shadowRules"] = rules;
    }
    if !prefix.is_empty() {
        config["shadowRulesStatPrefix"] = prefix.into();
    }
    if chain == Chain::Tcp {
        config["statPrefix"] = "tcp.".into();
    }
    json!({ "name": format!("envoy.filters.{kind}.rbac"), "typedConfig": config })
}
