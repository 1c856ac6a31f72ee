//! Policies and requests for tests, written as Istio's JSON. Nothing is validated: what slips past admission
//! is part of what is tested.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use palisade_authz::{
    CompiledSet, Destination, Evaluation, HttpRequest, Known, Outcome, Peer, Phase, Request, Semantics, normalize,
};
use palisade_policies::{
    Action, AuthorizationPolicy, Condition, MeshConfig, Meta, Operation, Origin, Rule, Selector, Source,
};
use serde_json::{Value, json};

/// A policy named `p` in namespace `foo`: `{"action": .., "provider": .., "dryRun": true, "namespace": .., "name": ..,
/// "rules": [..]}`.
pub(crate) fn policy(spec: &Value) -> Arc<AuthorizationPolicy> {
    let text = |key: &str, default: &str| spec[key].as_str().unwrap_or(default).to_owned();
    let origin = Origin { file: "test.yaml".into(), line: 1 };
    Arc::new(AuthorizationPolicy {
        meta: Meta {
            name: text("name", "p"),
            namespace: text("namespace", "foo"),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            created: None,
            origin: origin.clone(),
        },
        selector: spec.get("selector").map(|_| Selector::new(BTreeMap::new())),
        target_refs: Vec::new(),
        action: match text("action", "ALLOW").as_str() {
            "DENY" => Action::Deny,
            "AUDIT" => Action::Audit,
            "CUSTOM" => Action::Custom { provider: text("provider", "ext") },
            _ => Action::Allow,
        },
        dry_run: spec["dryRun"] == true,
        rules: items(&spec["rules"]).map(|rule| rule_of(rule, &origin)).collect(),
    })
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> Vec<String> {
    items(value).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn rule_of(rule: &Value, origin: &Origin) -> Rule {
    Rule {
        from: items(&rule["from"]).map(|from| source(&from["source"])).collect(),
        to: items(&rule["to"]).map(|to| operation(&to["operation"])).collect(),
        when: items(&rule["when"])
            .map(|when| Condition {
                key: when["key"].as_str().unwrap_or_default().to_owned(),
                values: strings(&when["values"]),
                not_values: strings(&when["notValues"]),
            })
            .collect(),
        origin: origin.clone(),
    }
}

fn source(s: &Value) -> Source {
    Source {
        principals: strings(&s["principals"]),
        not_principals: strings(&s["notPrincipals"]),
        request_principals: strings(&s["requestPrincipals"]),
        not_request_principals: strings(&s["notRequestPrincipals"]),
        namespaces: strings(&s["namespaces"]),
        not_namespaces: strings(&s["notNamespaces"]),
        service_accounts: strings(&s["serviceAccounts"]),
        not_service_accounts: strings(&s["notServiceAccounts"]),
        trust_domains: strings(&s["trustDomains"]),
        not_trust_domains: strings(&s["notTrustDomains"]),
        ip_blocks: strings(&s["ipBlocks"]),
        not_ip_blocks: strings(&s["notIpBlocks"]),
        remote_ip_blocks: strings(&s["remoteIpBlocks"]),
        not_remote_ip_blocks: strings(&s["notRemoteIpBlocks"]),
    }
}

fn operation(o: &Value) -> Operation {
    Operation {
        hosts: strings(&o["hosts"]),
        not_hosts: strings(&o["notHosts"]),
        ports: strings(&o["ports"]),
        not_ports: strings(&o["notPorts"]),
        methods: strings(&o["methods"]),
        not_methods: strings(&o["notMethods"]),
        paths: strings(&o["paths"]),
        not_paths: strings(&o["notPaths"]),
    }
}

/// An owned request; `view` lends it to the evaluator.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    pub(crate) principal: Option<String>,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) remote_ip: Option<IpAddr>,
    pub(crate) destination_ip: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) sni: Option<String>,
    pub(crate) tcp: bool,
    pub(crate) method: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) scheme: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) claims: Option<Value>,
    pub(crate) metadata: Option<Value>,
}

impl Ask {
    /// `GET target` on port 80 of `foo.example`, in plaintext.
    pub(crate) fn get(target: &str) -> Self {
        Self {
            ip: "10.0.0.7".parse().ok(),
            remote_ip: "10.0.0.7".parse().ok(),
            destination_ip: "10.0.0.9".parse().ok(),
            port: Some(80),
            method: Some("GET".to_owned()),
            target: Some(target.to_owned()),
            host: Some("foo.example".to_owned()),
            scheme: Some("http".to_owned()),
            ..Self::default()
        }
    }

    pub(crate) fn tcp(port: u16) -> Self {
        Self { tcp: true, port: Some(port), method: None, target: None, host: None, ..Self::get("/") }
    }

    pub(crate) fn by(principal: &str) -> Self {
        Self { principal: Some(principal.to_owned()), ..Self::get("/") }
    }

    pub(crate) fn with(headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self { headers: headers.collect(), ..Self::get("/") }
    }

    pub(crate) fn claiming(claims: Value) -> Self {
        Self { claims: Some(claims), ..Self::get("/") }
    }

    pub(crate) fn view<T>(&self, mesh: &MeshConfig, then: impl FnOnce(&Request<'_>) -> T) -> T {
        let target = self.target.as_deref().map(|raw| normalize::path(raw, mesh.path_normalization).unwrap());
        let http = (!self.tcp).then(|| HttpRequest {
            method: self.method.as_deref(),
            path: target.as_deref().map(normalize::without_query),
            host: self.host.as_deref(),
            scheme: self.scheme.as_deref(),
            headers: &self.headers,
            raw_target: target.as_deref(),
        });
        then(&Request {
            source: Peer { principal: self.principal.as_deref(), ip: self.ip, remote_ip: self.remote_ip },
            destination: Destination { ip: self.destination_ip, port: self.port },
            sni: self.sni.as_deref(),
            http,
            claims: self.claims.as_ref(),
            metadata: self.metadata.as_ref(),
        })
    }
}

/// Evaluates one policy, or an array of them.
pub(crate) fn evaluate(policies: &Value, semantics: Semantics, ask: &Ask) -> Evaluation {
    evaluate_in(&MeshConfig::default(), policies, semantics, ask)
}

pub(crate) fn evaluate_in(mesh: &MeshConfig, policies: &Value, semantics: Semantics, ask: &Ask) -> Evaluation {
    let one = [policies.clone()];
    let list: Vec<_> = policies.as_array().map_or(&one[..], Vec::as_slice).iter().map(policy).collect();
    let set = CompiledSet::compile(&list, mesh, semantics);
    ask.view(mesh, |request| set.evaluate(request, Known::ALL))
}

/// Whether Envoy's HTTP filter lets it pass.
pub(crate) fn http(policies: &Value, ask: &Ask) -> bool {
    evaluate(policies, Semantics::Http, ask).outcome == Outcome::Allow
}

pub(crate) fn tcp(policies: &Value, ask: &Ask) -> bool {
    evaluate(policies, Semantics::Tcp, ask).outcome == Outcome::Allow
}

pub(crate) fn l4(policies: &Value, ask: &Ask) -> bool {
    evaluate(policies, Semantics::L4, ask).outcome == Outcome::Allow
}

/// Outcome, phase and policy id in one value.
pub(crate) fn decided(evaluation: &Evaluation) -> (Outcome, Phase, Option<&str>) {
    (evaluation.outcome, evaluation.phase, evaluation.policy.as_ref().map(palisade_authz::PolicyRef::id))
}

/// One rule with one operation.
pub(crate) fn to(action: &str, operation: Value) -> Value {
    json!({"action": action, "rules": [{"to": [{"operation": operation}]}]})
}

/// One rule with one source.
pub(crate) fn from(action: &str, source: Value) -> Value {
    json!({"action": action, "rules": [{"from": [{"source": source}]}]})
}

/// One rule with one condition.
pub(crate) fn when(action: &str, key: &str, side: &str, values: &[&str]) -> Value {
    json!({"action": action, "rules": [{"when": [{"key": key, side: values}]}]})
}
