//! A disagreement as text: policies to keep, a line for `palisade policy eval`, and both answers.

mod yaml;

use palisade_policies::{AuthorizationPolicy, Condition, JwksSource, JwtRule, MeshConfig, Operation, Source};
use serde_json::{Map, Value, json};

use super::ours;
use super::run::Disagreement;
use super::scene::{Scene, TRUSTED, Tls, input_line};

/// The reproducer of a disagreement, of which the same workload has `more`.
pub(super) fn reproducer(found: &Disagreement, more: usize) -> String {
    let scene = &found.question.scene;
    let mut text = "\ndisagreement\n".to_owned();
    if more > 0 {
        text = format!("\ndisagreement (and {more} more about the same workload)\n");
    }
    for difference in found.envoy.differences(&found.ours) {
        text.push_str(&format!("  {difference}\n"));
    }
    let mut part = |title: &str, body: &str| text.push_str(&format!("# {title}\n{body}\n"));
    let resources: Vec<String> = resources(scene).iter().map(yaml::document).collect();
    part("policies", resources.join("---\n").trim_end());
    if let Some(mesh) = mesh(&scene.mesh) {
        part("mesh", yaml::document(&mesh).trim_end());
    }
    if let Some(door) = door(scene) {
        part("reached through", &door);
    }
    for call in &found.question.calls {
        for ask in &call.asks {
            let headers: Vec<(&str, &[u8])> =
                ask.headers.iter().map(|(name, value)| (name.as_str(), ours::trimmed(value))).collect();
            let remote = ours::remote(scene, call, &headers);
            part("request", &input_line(scene, call, ask, remote).to_string());
        }
    }
    part("Envoy", &found.envoy.line().to_string());
    part("ours", &found.ours.line().to_string());
    text
}

/// What the lines do not say.
fn door(scene: &Scene) -> Option<String> {
    let mut parts = Vec::new();
    match scene.door.tls {
        Tls::Plain => {}
        Tls::Ended => parts.push("TLS that ends here".to_owned()),
        Tls::Passed => parts.push("TLS that is passed on".to_owned()),
    }
    if let Some(hops) = scene.trusted_hops {
        parts.push(format!("a gateway behind {hops} trusted proxies"));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn resources(scene: &Scene) -> Vec<Value> {
    let policies = scene.policies.iter().map(|policy| authorization(policy));
    let tokens = scene.authentications.iter().filter(|policy| policy.meta.name != TRUSTED).map(|policy| {
        let rules: Vec<Value> = policy.rules.iter().map(token_rule).collect();
        resource("RequestAuthentication", &policy.meta.name, &policy.meta.namespace, json!({ "jwtRules": rules }))
    });
    policies.chain(tokens).collect()
}

fn resource(kind: &str, name: &str, namespace: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace },
        "spec": spec,
    })
}

fn authorization(policy: &AuthorizationPolicy) -> Value {
    let mut spec = json!({ "action": policy.action.as_str() });
    if let palisade_policies::Action::Custom { provider } = &policy.action {
        spec["provider"] = json!({ "name": provider });
    }
    let rules = policy.rules.iter().map(|rule| {
        let mut fields = Map::new();
        let mut add = |name: &str, items: Vec<Value>| {
            if !items.is_empty() {
                fields.insert(name.to_owned(), items.into());
            }
        };
        add("from", rule.from.iter().map(|from| json!({ "source": source(from) })).collect());
        add("to", rule.to.iter().map(|to| json!({ "operation": operation(to) })).collect());
        add("when", rule.when.iter().map(condition).collect());
        Value::Object(fields)
    });
    spec["rules"] = rules.collect();
    let mut result = resource("AuthorizationPolicy", &policy.meta.name, &policy.meta.namespace, spec);
    if policy.dry_run {
        result["metadata"]["annotations"] = json!({ "istio.io/dry-run": "true" });
    }
    result
}

fn lists(lists: &[(&str, &Vec<String>)]) -> Value {
    let filled = lists.iter().filter(|(_, values)| !values.is_empty());
    filled.map(|(name, values)| ((*name).to_owned(), json!(values))).collect::<Map<_, _>>().into()
}

fn source(s: &Source) -> Value {
    lists(&[
        ("principals", &s.principals),
        ("notPrincipals", &s.not_principals),
        ("requestPrincipals", &s.request_principals),
        ("notRequestPrincipals", &s.not_request_principals),
        ("namespaces", &s.namespaces),
        ("notNamespaces", &s.not_namespaces),
        ("serviceAccounts", &s.service_accounts),
        ("notServiceAccounts", &s.not_service_accounts),
        ("trustDomains", &s.trust_domains),
        ("notTrustDomains", &s.not_trust_domains),
        ("ipBlocks", &s.ip_blocks),
        ("notIpBlocks", &s.not_ip_blocks),
        ("remoteIpBlocks", &s.remote_ip_blocks),
        ("notRemoteIpBlocks", &s.not_remote_ip_blocks),
    ])
}

fn operation(o: &Operation) -> Value {
    lists(&[
        ("hosts", &o.hosts),
        ("notHosts", &o.not_hosts),
        ("ports", &o.ports),
        ("notPorts", &o.not_ports),
        ("methods", &o.methods),
        ("notMethods", &o.not_methods),
        ("paths", &o.paths),
        ("notPaths", &o.not_paths),
    ])
}

fn condition(when: &Condition) -> Value {
    let mut condition = json!({ "key": when.key });
    for (name, values) in [("values", &when.values), ("notValues", &when.not_values)] {
        if !values.is_empty() {
            condition[name] = json!(values);
        }
    }
    condition
}

fn token_rule(rule: &JwtRule) -> Value {
    let headers: Vec<Value> =
        rule.from_headers.iter().map(|from| json!({ "name": from.name, "prefix": from.prefix })).collect();
    let outputs: Vec<Value> =
        rule.output_claim_to_headers.iter().map(|to| json!({ "header": to.header, "claim": to.claim })).collect();
    let jwks = match &rule.jwks {
        JwksSource::Inline(text) => text.as_str(),
        JwksSource::Uri(uri) => uri.as_str(),
        JwksSource::Discovery => "",
    };
    let mut result = json!({ "issuer": rule.issuer, "jwks": jwks });
    let fields = [
        ("audiences", json!(rule.audiences)),
        ("fromHeaders", json!(headers)),
        ("fromParams", json!(rule.from_params)),
        ("fromCookies", json!(rule.from_cookies)),
        ("outputPayloadToHeader", json!(rule.output_payload_to_header)),
        ("outputClaimToHeaders", json!(outputs)),
        ("forwardOriginalToken", json!(rule.forward_original_token)),
        ("spaceDelimitedClaims", json!(rule.space_delimited_claims)),
    ];
    for (name, value) in fields {
        if value != json!([]) && value != json!(false) && !value.is_null() {
            result[name] = value;
        }
    }
    result
}

fn mesh(mesh: &MeshConfig) -> Option<Value> {
    let usual = MeshConfig::default();
    let mut result = Map::new();
    if mesh.trust_domain != usual.trust_domain {
        result.insert("trustDomain".to_owned(), mesh.trust_domain.to_string().into());
    }
    if !mesh.trust_domain_aliases.is_empty() {
        result.insert("trustDomainAliases".to_owned(), json!(mesh.trust_domain_aliases));
    }
    if mesh.path_normalization != usual.path_normalization {
        let option = json!({ "normalization": mesh.path_normalization.as_str() });
        result.insert("pathNormalization".to_owned(), option);
    }
    (!result.is_empty()).then_some(Value::Object(result))
}
