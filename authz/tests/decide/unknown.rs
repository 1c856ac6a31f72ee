//! Unknown attributes: undecided exactly where one of them would decide.

use palisade_authz::{Attribute, CompiledSet, Evaluation, Known, Outcome, Phase, Semantics};
use palisade_policies::MeshConfig;
use serde_json::{Value, json};

use crate::ask::{Ask, decided, policy};

pub(crate) const ALL: [Attribute; 13] = [
    Attribute::SourcePrincipal,
    Attribute::SourceIp,
    Attribute::RemoteIp,
    Attribute::DestinationIp,
    Attribute::DestinationPort,
    Attribute::Sni,
    Attribute::Method,
    Attribute::Path,
    Attribute::Host,
    Attribute::Scheme,
    Attribute::Headers,
    Attribute::Claims,
    Attribute::Metadata,
];

fn without_port(policies: &[Value]) -> Evaluation {
    let list: Vec<_> = policies.iter().map(policy).collect();
    let set = CompiledSet::compile(&list, &MeshConfig::default(), Semantics::Http);
    let known = Known::ALL.without(Attribute::DestinationPort);
    Ask::get("/").view(&MeshConfig::default(), |request| set.evaluate(request, known))
}

fn on_port(action: &str, name: &str) -> Value {
    json!({"action": action, "name": name, "rules": [{"to": [{"operation": {"ports": ["80"]}}]}]})
}

#[test]
fn undecided_where_the_attribute_would_decide() {
    let allow = without_port(&[on_port("ALLOW", "a")]);
    assert_eq!(decided(&allow), (Outcome::Undecided, Phase::Allow, None));
    let deny = without_port(&[on_port("DENY", "d")]);
    assert_eq!(decided(&deny), (Outcome::Undecided, Phase::Deny, None));
    let custom = without_port(&[on_port("CUSTOM", "c")]);
    assert_eq!(decided(&custom), (Outcome::Undecided, Phase::Custom, None));
}

#[test]
fn decided_where_another_rule_settles_it() {
    let any = json!({"name": "any", "rules": [{}]});
    let allowed = without_port(&[on_port("ALLOW", "a"), any.clone()]);
    assert_eq!(decided(&allowed), (Outcome::Allow, Phase::Allow, Some("ns[foo]-policy[any]-rule[0]")));
    let nothing = without_port(&[on_port("DENY", "d"), json!({"name": "none"})]);
    assert_eq!(decided(&nothing), (Outcome::Deny, Phase::Default, None), "denied either way");
    let denied = without_port(&[on_port("CUSTOM", "c"), json!({"action": "DENY", "rules": [{}]})]);
    assert_eq!(decided(&denied), (Outcome::Deny, Phase::Default, None), "denied either way");
    let elsewhere = json!({"rules": [{"to": [{"operation": {"ports": ["80"], "methods": ["PUT"]}}]}]});
    assert_eq!(without_port(&[elsewhere]).outcome, Outcome::Deny, "the method alone settles it");
}

#[test]
fn what_leaves_it_open_is_named() {
    let rule =
        |action: &str, operation: Value| json!({"action": action, "rules": [{"to": [{"operation": operation}]}]});
    let by = |name: &str| json!({"rules": [{"from": [{"source": {"namespaces": [name]}}]}]});
    let (port, method, path) = (Attribute::DestinationPort, Attribute::Method, Attribute::Path);
    for (policies, expected) in [
        (vec![rule("DENY", json!({"ports": ["80"], "methods": ["GET"]}))], vec![method, port]),
        (vec![rule("DENY", json!({"ports": ["80"], "hosts": ["other"]}))], vec![]),
        (vec![rule("DENY", json!({"paths": ["/x"]})), by("a")], vec![path]),
        (vec![rule("ALLOW", json!({"ports": ["80"]})), rule("ALLOW", json!({}))], vec![]),
        (
            vec![
                json!({"rules": [{"to": [{"operation": {"ports": ["80"]}}, {"operation": {"methods": ["GET"], "hosts": ["other"]}}]}]}),
            ],
            vec![port],
        ),
    ] {
        let list: Vec<_> = policies.iter().map(policy).collect();
        let set = CompiledSet::compile(&list, &MeshConfig::default(), Semantics::Http);
        let known = Known::ALL.without(port).without(method).without(path);
        let found = Ask::get("/").view(&MeshConfig::default(), |request| set.undecided_by(request, known));
        assert_eq!(found, expected, "{policies:?}");
    }
}

#[test]
fn shadow_results_are_undecided_too() {
    let mut policy = on_port("DENY", "d");
    policy["dryRun"] = json!(true);
    let found = without_port(&[policy]);
    assert_eq!(found.outcome, Outcome::Allow);
    assert_eq!(found.shadow.deny.unwrap().as_str(), "undecided");
}
