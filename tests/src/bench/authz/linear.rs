//! The obvious evaluator: every rule in turn, every value in turn. What an engine without an index costs.

use anyhow::Result;
use palisade_policies::{Action, AuthorizationPolicy};

use super::Engine;
use super::scene::{Sample, Scene};

/// All DENY rules, then all ALLOW rules.
pub(crate) struct Linear {
    deny: Vec<Rule>,
    allow: Vec<Rule>,
}

/// Each list is any of; all lists have to match.
struct Rule {
    principals: Vec<Form>,
    methods: Vec<Form>,
    paths: Vec<Form>,
    hosts: Vec<Form>,
    header: Vec<Form>,
}

/// The string forms of a value, and a path template.
enum Form {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Template(Vec<String>),
}

impl Form {
    fn parse(value: &str) -> Self {
        if value.contains("{*}") {
            Self::Template(value.split('/').map(str::to_owned).collect())
        } else if let Some(suffix) = value.strip_prefix('*') {
            Self::Suffix(suffix.to_owned())
        } else if let Some(prefix) = value.strip_suffix('*') {
            Self::Prefix(prefix.to_owned())
        } else {
            Self::Exact(value.to_owned())
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Template(segments) => {
                let mut parts = text.split('/');
                let matched = segments.iter().all(|segment| {
                    parts.next().is_some_and(|part| if segment == "{*}" { !part.is_empty() } else { part == segment })
                });
                matched && parts.next().is_none()
            }
        }
    }
}

impl Rule {
    fn of(policy: &AuthorizationPolicy) -> Vec<Rule> {
        let forms = |values: &[String]| values.iter().map(|value| Form::parse(value)).collect::<Vec<_>>();
        let sources = |rule: &palisade_policies::Rule| {
            rule.from.iter().flat_map(|source| forms(&source.principals)).collect::<Vec<_>>()
        };
        let mut rules = Vec::new();
        for rule in &policy.rules {
            for operation in &rule.to {
                rules.push(Rule {
                    principals: sources(rule),
                    methods: forms(&operation.methods),
                    paths: forms(&operation.paths),
                    hosts: forms(&operation.hosts),
                    header: rule.when.iter().flat_map(|condition| forms(&condition.values)).collect(),
                });
            }
        }
        rules
    }

    fn matches(&self, sample: &Sample) -> bool {
        let any = |forms: &[Form], text: &str| forms.is_empty() || forms.iter().any(|form| form.matches(text));
        any(&self.principals, &sample.principal)
            && any(&self.methods, sample.method)
            && any(&self.paths, &sample.path)
            && any(&self.hosts, &sample.host)
            && any(&self.header, &sample.header)
    }
}

impl Engine for Linear {
    const NAME: &'static str = "linear";
    type Prepared = Sample;

    fn compile(scene: &Scene) -> Result<Self> {
        let of = |action: &Action| {
            let policies = scene.policies.iter().filter(|policy| policy.action == *action);
            policies.flat_map(|policy| Rule::of(policy)).collect()
        };
        Ok(Self { deny: of(&Action::Deny), allow: of(&Action::Allow) })
    }

    fn prepare(&self, sample: &Sample) -> Result<Sample> {
        Ok(sample.clone())
    }

    fn decide(&self, sample: &Sample) -> bool {
        !self.deny.iter().any(|rule| rule.matches(sample)) && self.allow.iter().any(|rule| rule.matches(sample))
    }
}
