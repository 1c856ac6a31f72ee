//! CUSTOM policies: whom they ask, and what they deny where nobody can be asked.

use std::time::Duration;

use palisade_authz::{CompiledSet, Custom, Known, Outcome, Phase, Semantics};
use palisade_policies::{ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, MeshConfig, ProviderKind};
use serde_json::{Value, json};

use crate::ask::{Ask, decided};
use crate::large::compile;

const SECOND: Duration = Duration::from_secs(1);

fn grpc() -> ProviderKind {
    ProviderKind::ExtAuthzGrpc(ExtAuthzGrpc {
        service: "ext.foo".to_owned(),
        port: 9000,
        timeout: SECOND,
        fail_open: false,
        status_on_error: None,
        body: None,
        clear_route_cache: false,
    })
}

fn http() -> ProviderKind {
    ProviderKind::ExtAuthzHttp(ExtAuthzHttp {
        service: "ext.foo".to_owned(),
        port: 8000,
        timeout: SECOND,
        fail_open: false,
        status_on_error: None,
        body: None,
        clear_route_cache: false,
        path_prefix: String::new(),
        include_headers: Vec::new(),
        include_additional: std::collections::BTreeMap::new(),
        headers_to_upstream_on_allow: Vec::new(),
        headers_to_downstream_on_allow: Vec::new(),
        headers_to_downstream_on_deny: Vec::new(),
    })
}

fn mesh(providers: Vec<(&str, ProviderKind)>) -> MeshConfig {
    let named = |(name, kind): (&str, _)| ExtensionProvider { name: name.to_owned(), kind };
    MeshConfig { extension_providers: providers.into_iter().map(named).collect(), ..MeshConfig::default() }
}

pub(crate) fn mesh_with_grpc(name: &str) -> MeshConfig {
    mesh(vec![(name, grpc())])
}

/// A CUSTOM policy for one path.
fn custom(provider: &str, name: &str, path: &str) -> Value {
    json!({"action": "CUSTOM", "provider": provider, "name": name, "rules": [{"to": [{"operation": {"paths": [path]}}]}]})
}

/// What CUSTOM policies say, and outcome, phase and policy of an evaluation without approval.
fn found(set: &CompiledSet, ask: &Ask) -> (String, (Outcome, Phase, Option<String>)) {
    ask.view(&MeshConfig::default(), |request| {
        let says = match set.custom(request, Known::ALL) {
            Custom::Pass => "pass".to_owned(),
            Custom::Ask { provider, policy } => format!("ask {provider} for {}", policy.id()),
            Custom::Deny(policy) => format!("deny by {}", policy.id()),
            Custom::Undecided => "undecided".to_owned(),
        };
        let evaluation = set.evaluate(request, Known::ALL);
        let (outcome, phase, policy) = decided(&evaluation);
        if phase == Phase::Custom {
            assert_eq!(evaluation.reason(), "no-provider");
        }
        (says, (outcome, phase, policy.map(str::to_owned)))
    })
}

#[test]
fn a_match_asks_the_provider_and_denies_without_its_approval() {
    let rules = [custom("ext", "b", "/x"), custom("ext", "a", "/x"), json!({"name": "any", "rules": [{}]})];
    let set = compile(&rules, &mesh_with_grpc("ext"), Semantics::Http);
    let id = "istio-ext-authz-ext-ns[foo]-policy[a]-rule[0]";
    let (says, outcome) = found(&set, &Ask::get("/x"));
    assert_eq!(says, format!("ask ext for {id}"), "the first in byte order");
    assert_eq!(outcome, (Outcome::Deny, Phase::Custom, Some(id.to_owned())));
    let (says, (outcome, ..)) = found(&set, &Ask::get("/y"));
    assert_eq!((says.as_str(), outcome), ("pass", Outcome::Allow), "what does not match passes the provider by");
    assert!(set.has_custom() && !set.is_empty());
    assert!(!compile(&rules[2..], &MeshConfig::default(), Semantics::Http).has_custom());
}

/// Section 3.5: the names of Istio's builder, as its golden files have them.
#[test]
fn trap_45_several_providers_deny_what_either_matches() {
    let rules = [custom("default", "httpbin-1", "/httpbin1"), custom("another", "httpbin-2", "/httpbin2")];
    let both = mesh(vec![("default", grpc()), ("another", grpc())]);
    for semantics in [Semantics::Http, Semantics::Tcp] {
        let set = compile(&rules, &both, semantics);
        let (says, outcome) = found(&set, &Ask::get("/httpbin1"));
        let first = "istio-ext-authz-default-ns[foo]-policy[httpbin-1]-rule[0]-deny-due-to-bad-CUSTOM-action";
        let widened = "istio-ext-authz-another-ns[foo]-policy[httpbin-2]-rule[0]-deny-due-to-bad-CUSTOM-action";
        let id = if semantics == Semantics::Http { first } else { widened };
        assert_eq!(says, format!("deny by {id}"), "{semantics:?}");
        assert_eq!(outcome, (Outcome::Deny, Phase::Custom, Some(id.to_owned())));
    }
    let set = compile(&rules, &both, Semantics::Http);
    assert_eq!(found(&set, &Ask::get("/other")), ("pass".to_owned(), (Outcome::Allow, Phase::Default, None)));
}

/// The filters stand in the order of the providers' names, which is not that of the ids.
#[test]
fn of_several_providers_the_first_by_name_denies() {
    let rules = [custom("a-n", "x", "/x"), custom("a", "x", "/x")];
    let set = compile(&rules, &mesh(vec![("a", grpc()), ("a-n", grpc())]), Semantics::Http);
    let (says, _) = found(&set, &Ask::get("/x"));
    assert_eq!(says, "deny by istio-ext-authz-a-ns[foo]-policy[x]-rule[0]-deny-due-to-bad-CUSTOM-action");
}

#[test]
fn a_provider_that_cannot_authorize_denies_what_matches() {
    let long = "a".repeat(64);
    let cases = [
        ("ext", mesh(vec![])),
        ("ext", mesh_with_grpc("other")),
        ("ext", mesh(vec![("ext", ProviderKind::Other("zipkin".to_owned()))])),
        ("ext", mesh(vec![("ext", grpc()), ("ext", http())])),
        ("Ext", mesh_with_grpc("Ext")),
        ("-ext", mesh_with_grpc("-ext")),
        (&*long, mesh_with_grpc(&long)),
    ];
    for (name, mesh) in cases {
        let set = compile(&[custom(name, "p", "/x")], &mesh, Semantics::Http);
        let id = format!("istio-ext-authz-{name}-ns[foo]-policy[p]-rule[0]-deny-due-to-bad-CUSTOM-action");
        assert_eq!(found(&set, &Ask::get("/x")).0, format!("deny by {id}"), "{name}");
        assert_eq!(found(&set, &Ask::get("/y")).0, "pass");
    }
    let set = compile(&[custom("", "p", "/x")], &MeshConfig::default(), Semantics::Http);
    let id = "istio-ext-authz-ns[foo]-policy[p]-rule[0]-deny-due-to-bad-CUSTOM-action";
    assert_eq!(found(&set, &Ask::get("/x")).0, format!("deny by {id}"));
}

#[test]
fn row_3_5_an_http_provider_is_ignored_on_tcp_and_a_grpc_one_widens() {
    let rules = [custom("ext", "p", "/x")];
    let set = compile(&rules, &mesh(vec![("ext", http())]), Semantics::Tcp);
    assert_eq!(found(&set, &Ask::tcp(1)), ("pass".to_owned(), (Outcome::Allow, Phase::Default, None)));
    assert!(!set.has_custom() && set.is_empty());
    let set = compile(&rules, &mesh_with_grpc("ext"), Semantics::Tcp);
    let asks = "ask ext for istio-ext-authz-ext-ns[foo]-policy[p]-rule[0]";
    assert_eq!(found(&set, &Ask::tcp(1)).0, asks, "the path is left out, so every connection matches");
    let set = compile(&rules, &mesh(vec![("ext", http())]), Semantics::Http);
    assert_eq!(found(&set, &Ask::get("/x")).0, asks);
    assert!(compile(&rules, &mesh_with_grpc("ext"), Semantics::L4).is_empty());
}

/// Validation refuses it; past validation it is enforced as a denial.
#[test]
fn row_3_3_a_dry_run_custom_policy_denies_and_asks_nobody() {
    let mut dry = custom("ext", "dry", "/x");
    dry["dryRun"] = json!(true);
    let set = compile(&[dry.clone(), custom("ext", "p", "/x")], &mesh_with_grpc("ext"), Semantics::Http);
    assert_eq!(found(&set, &Ask::get("/x")).0, "deny by istio-ext-authz-ext-ns[foo]-policy[dry]-rule[0]");
    let set = compile(&[dry], &MeshConfig::default(), Semantics::Http);
    assert_eq!(found(&set, &Ask::get("/x")).0, "pass", "a bad provider has no dry-run");
}

#[test]
fn row_3_5_a_custom_match_hides_later_phases_and_a_provider_does_not_bypass_them() {
    let audit = json!({"action": "AUDIT", "name": "u", "rules": [{}]});
    let shadow = json!({"action": "DENY", "name": "s", "dryRun": true, "rules": [{}]});
    let deny = json!({"action": "DENY", "name": "d", "rules": [{}]});
    let set = compile(&[custom("ext", "p", "/x"), audit, shadow, deny], &mesh_with_grpc("ext"), Semantics::Http);
    Ask::get("/x").view(&MeshConfig::default(), |request| {
        let found = set.evaluate(request, Known::ALL);
        assert!(!found.audited && found.shadow.deny.is_none(), "those phases are not reached");
    });
    Ask::get("/y").view(&MeshConfig::default(), |request| {
        let found = set.evaluate(request, Known::ALL);
        assert!(found.audited && found.shadow.deny.is_some());
        assert_eq!(found.phase, Phase::Deny);
    });
}

/// Envoy asks providers before it reads tokens. Admission refuses such a policy; one that gets past it finds no claims.
#[test]
fn a_custom_rule_never_sees_claims() {
    let rule = |values: &str| json!({"when": [{"key": "request.auth.claims[o[p]]", values: ["x"]}]});
    let custom = |values: &str| json!({"action": "CUSTOM", "provider": "ext", "name": values, "rules": [rule(values)]});
    let allow = json!({"name": "allow", "rules": [rule("values")]});
    let ask = Ask::claiming(json!({"o[p]": "x"}));
    for mesh in [mesh_with_grpc("ext"), MeshConfig::default()] {
        let set = compile(&[custom("values"), allow.clone()], &mesh, Semantics::Http);
        let (says, (outcome, phase, _)) = found(&set, &ask);
        assert_eq!(
            (says.as_str(), outcome, phase),
            ("pass", Outcome::Allow, Phase::Allow),
            "only CUSTOM is before tokens"
        );
        let explanation = ask.view(&mesh, |request| set.explain(request, Known::ALL));
        assert!(explanation.phases[0].matched.is_empty());
        let set = compile(&[custom("notValues"), allow.clone()], &mesh, Semantics::Http);
        assert_eq!(found(&set, &ask).1.1, Phase::Custom, "a negation holds without claims");
    }
}

#[test]
fn what_is_not_known_leaves_the_question_open() {
    let ports = json!({"action": "CUSTOM", "name": "p", "rules": [{"to": [{"operation": {"ports": ["80"]}}]}]});
    for (mesh, other) in
        [(mesh_with_grpc("ext"), custom("ext", "q", "/x")), (MeshConfig::default(), custom("ext", "q", "/y"))]
    {
        let set = compile(&[ports.clone(), other], &mesh, Semantics::Http);
        Ask::get("/").view(&MeshConfig::default(), |request| {
            let known = Known::ALL.without(palisade_authz::Attribute::DestinationPort);
            assert_eq!(set.custom(request, known), Custom::Undecided);
            assert_eq!(set.evaluate(request, known).reason(), "undecided");
        });
    }
}
