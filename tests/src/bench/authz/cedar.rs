//! Cedar's authorizer on the same policies: `permit` for ALLOW and `forbid` for DENY, attributes in the context.
//!
//! A prefix or a template becomes `like`, whose `*` crosses slashes; the requests measured see no difference.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, anyhow};
use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, RestrictedExpression};
use palisade_policies::{Action, AuthorizationPolicy};

use super::Engine;
use super::scene::{Sample, Scene};

/// A parsed policy set and the authorizer.
pub(crate) struct Cedar {
    policies: PolicySet,
    authorizer: Authorizer,
    entities: Entities,
}

impl Engine for Cedar {
    const NAME: &'static str = "cedar";
    type Prepared = Request;

    fn compile(scene: &Scene) -> Result<Self> {
        let mut text = String::new();
        for policy in &scene.policies {
            translate(&mut text, policy);
        }
        let policies = text.parse::<PolicySet>().map_err(|error| anyhow!("Cedar refuses the policies: {error}"))?;
        Ok(Self { policies, authorizer: Authorizer::new(), entities: Entities::empty() })
    }

    fn prepare(&self, sample: &Sample) -> Result<Request> {
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let context = Context::from_pairs([
            ("principal".to_owned(), text(&sample.principal)),
            ("method".to_owned(), text(sample.method)),
            ("path".to_owned(), text(&sample.path)),
            ("host".to_owned(), text(&sample.host)),
            ("tenant".to_owned(), text(&sample.header)),
        ])
        .context("Cedar refuses the context")?;
        let uid = |text: &str| text.parse::<EntityUid>().map_err(|error| anyhow!("Cedar refuses `{text}`: {error}"));
        Request::new(uid(r#"Caller::"c""#)?, uid(r#"Action::"call""#)?, uid(r#"Workload::"w""#)?, context, None)
            .context("Cedar refuses the request")
    }

    fn decide(&self, request: &Request) -> bool {
        self.authorizer.is_authorized(request, &self.policies, &self.entities).decision() == Decision::Allow
    }
}

fn translate(text: &mut String, policy: &AuthorizationPolicy) {
    let effect = if policy.action == Action::Deny { "forbid" } else { "permit" };
    for rule in &policy.rules {
        let sources: Vec<&String> = rule.from.iter().flat_map(|source| &source.principals).collect();
        let tenants: Vec<&String> = rule.when.iter().flat_map(|condition| &condition.values).collect();
        for operation in &rule.to {
            let all = [
                any("principal", sources.iter().copied()),
                any("method", &operation.methods),
                any("path", &operation.paths),
                any("host", &operation.hosts),
                any("tenant", tenants.iter().copied()),
            ];
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{effect}(principal, action, resource) when {{ {} }};", all.join(" && "));
        }
    }
}

fn any<'a>(attribute: &str, values: impl IntoIterator<Item = &'a String>) -> String {
    let tests: Vec<String> = values.into_iter().map(|value| test(attribute, value)).collect();
    format!("({})", tests.join(" || "))
}

/// The values of the scenes hold nothing that Cedar's strings would have to escape.
fn test(attribute: &str, value: &str) -> String {
    if value.contains('*') {
        format!("context.{attribute} like \"{}\"", value.replace("{*}", "*"))
    } else {
        format!("context.{attribute} == \"{value}\"")
    }
}
