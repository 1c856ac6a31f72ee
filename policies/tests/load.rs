//! What loading accepts, and what it keeps: every field, positions, Lists, documents that can be loaded again.

#![expect(clippy::indexing_slicing, clippy::type_complexity, reason = "helpers of tests")]

use std::sync::Arc;

use palisade_policies::{
    Action, AuthorizationPolicy, Loaded, MAX_DOCUMENTS, MAX_TEXT_BYTES, Operation, Resources, Source, SourceText, load,
};

fn one(text: &str) -> Loaded {
    load(&[SourceText::new("policies.yaml", text)], "default")
}

fn accepted(text: &str) -> Resources {
    let loaded = one(text);
    assert_eq!(loaded.diagnostics, [], "{text}");
    loaded.resources
}

fn codes(text: &str) -> Vec<&'static str> {
    one(text).diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

fn policy(spec: &str) -> String {
    format!("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec: {spec}\n")
}

fn first(resources: &Resources) -> &AuthorizationPolicy {
    &resources.authorization_policies[0]
}

const SOURCE_FIELDS: [(&str, &str, fn(&Source) -> &Vec<String>); 14] = [
    ("principals", "td/ns/*", |s| &s.principals),
    ("notPrincipals", "*", |s| &s.not_principals),
    ("requestPrincipals", "iss/sub", |s| &s.request_principals),
    ("notRequestPrincipals", "a*b", |s| &s.not_request_principals),
    ("namespaces", "n*1", |s| &s.namespaces),
    ("notNamespaces", "x", |s| &s.not_namespaces),
    ("serviceAccounts", "shop/web", |s| &s.service_accounts),
    ("notServiceAccounts", "web", |s| &s.not_service_accounts),
    ("trustDomains", "*td", |s| &s.trust_domains),
    ("notTrustDomains", "td", |s| &s.not_trust_domains),
    ("ipBlocks", "10.0.0.7/8", |s| &s.ip_blocks),
    ("notIpBlocks", "fe80::1%eth0", |s| &s.not_ip_blocks),
    ("remoteIpBlocks", "::ffff:10.0.0.1", |s| &s.remote_ip_blocks),
    ("notRemoteIpBlocks", "2001:db8::/32", |s| &s.not_remote_ip_blocks),
];

const OPERATION_FIELDS: [(&str, &str, fn(&Operation) -> &Vec<String>); 8] = [
    ("hosts", "example.com:*", |o| &o.hosts),
    ("notHosts", "*.x", |o| &o.not_hosts),
    ("ports", "0080", |o| &o.ports),
    ("notPorts", "0", |o| &o.not_ports),
    ("methods", "GET", |o| &o.methods),
    ("notMethods", "P*", |o| &o.not_methods),
    ("paths", "/store/{**}/cart", |o| &o.paths),
    ("notPaths", "/{*}/", |o| &o.not_paths),
];

#[test]
fn every_list_of_a_source_lands_in_its_own_field() {
    for (field, value, read) in SOURCE_FIELDS {
        let text = policy(&format!("{{rules: [{{from: [{{source: {{{field}: [\"{value}\"]}}}}]}}]}}"));
        let source = first(&accepted(&text)).rules[0].from[0].clone();
        assert_eq!(read(&source), &[value], "{field}");
        let filled = SOURCE_FIELDS.iter().filter(|(_, _, read)| !read(&source).is_empty()).count();
        assert_eq!(filled, 1, "{field}");
    }
}

#[test]
fn every_list_of_an_operation_lands_in_its_own_field() {
    for (field, value, read) in OPERATION_FIELDS {
        let text = policy(&format!("{{rules: [{{to: [{{operation: {{{field}: [\"{value}\"]}}}}]}}]}}"));
        let operation = first(&accepted(&text)).rules[0].to[0].clone();
        assert_eq!(read(&operation), &[value], "{field}");
        let filled = OPERATION_FIELDS.iter().filter(|(_, _, read)| !read(&operation).is_empty()).count();
        assert_eq!(filled, 1, "{field}");
    }
}

#[test]
fn every_condition_key_is_accepted() {
    for (key, value) in [
        ("source.ip", "10.0.0.1"),
        ("remote.ip", "::/0"),
        ("source.namespace", "a*b"),
        ("source.principal", "x"),
        ("source.serviceAccount", "a/b"),
        ("source.trustDomain", "a/b"),
        ("destination.ip", "10.0.0.0/8"),
        ("destination.port", "80"),
        ("connection.sni", "*.x"),
        ("request.headers[X-Token]", "a"),
        ("request.headers[:path]", "a"),
        ("request.auth.principal", "*"),
        ("request.auth.audiences", "a"),
        ("request.auth.presenter", "a"),
        ("request.auth.claims[a.b][c]", "true"),
        ("experimental.envoy.filters.network.x[k]", "[v]"),
    ] {
        let text = policy(&format!("{{rules: [{{when: [{{key: \"{key}\", notValues: [\"{value}\"]}}]}}]}}"));
        let condition = first(&accepted(&text)).rules[0].when[0].clone();
        assert_eq!((condition.key.as_str(), condition.not_values), (key, vec![value.to_owned()]));
        assert!(condition.values.is_empty());
    }
}

#[test]
fn the_empty_forms_are_what_istio_takes_them_for() {
    for (spec, action, rules) in [
        ("{}", Action::Allow, 0),
        ("{rules: []}", Action::Allow, 0),
        ("{rules: [{}]}", Action::Allow, 1),
        ("{action: DENY, rules: [{}]}", Action::Deny, 1),
        ("{action: AUDIT}", Action::Audit, 0),
    ] {
        let resources = accepted(&policy(spec));
        assert_eq!((&first(&resources).action, first(&resources).rules.len()), (&action, rules), "{spec}");
    }
    let nothing = "apiVersion: security.istio.io/v1beta1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n";
    assert!(first(&accepted(nothing)).rules.is_empty(), "no spec at all");
    assert_eq!(first(&accepted(nothing)).meta.namespace, "default");
}

#[test]
fn dry_run_takes_gos_booleans() {
    for (value, expected) in [("1", true), ("t", true), ("True", true), ("0", false), ("F", false), ("false", false)] {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: p\n  annotations: \
             {{istio.io/dry-run: \"{value}\"}}\nspec: {{}}\n"
        );
        assert_eq!(first(&accepted(&text)).dry_run, expected, "{value}");
    }
}

#[test]
fn rules_and_policies_know_their_lines() {
    let text = "# licence\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: a\nspec:\n  \
                rules:\n  - from:\n    - source: {namespaces: [x]}\n  -\n    to:\n    - operation: {methods: [GET]}\n---\n\
                apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: b}\n";
    let resources = accepted(text);
    let policy = first(&resources);
    assert_eq!(policy.meta.origin.to_string(), "policies.yaml:3");
    assert_eq!(policy.rules.iter().map(|rule| rule.origin.line).collect::<Vec<_>>(), [9, 12]);
    assert_eq!(resources.authorization_policies[1].meta.origin.line, 15);
}

#[test]
fn a_fault_in_one_document_leaves_the_others() {
    let text = format!("{}---\n[broken\n---\n{}", policy("{}"), policy("{}").replace("name: p", "name: q"));
    let loaded = one(&text);
    assert_eq!((loaded.resources.len(), loaded.refused, loaded.diagnostics.len()), (2, 1, 1));
    assert!(loaded.has_errors());
}

const LIST: &str = "apiVersion: v1\nkind: List\nmetadata: {}\nitems:\n- apiVersion: security.istio.io/v1\n  kind: \
    AuthorizationPolicy\n  metadata:\n    name: a # ä\n  spec:\n    rules:\n    - {}\n# between\n-\n  kind: \
    PeerAuthentication\n  apiVersion: security.istio.io/v1\n  metadata: {name: b}\n- {apiVersion: apps/v1, kind: \
    Deployment}\n- {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy,\n  metadata: {name: c}}\n";

#[test]
fn items_of_a_list_are_documents() {
    let loaded = one(LIST);
    assert_eq!(loaded.diagnostics, []);
    assert_eq!((loaded.resources.len(), loaded.skipped, loaded.refused), (3, 1, 0));
    let typed =
        LIST.replace("apiVersion: v1\nkind: List", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList");
    assert_eq!(one(&typed).resources, loaded.resources);
    assert_eq!(codes("apiVersion: v1\nkind: List\nitems: []\n"), [""; 0]);
}

#[test]
fn each_document_loads_again_alone_with_the_same_origins() {
    let shop = include_str!("../samples/shop.yaml");
    let dry = include_str!("../samples/dry-run.yaml").replace('\n', "\r\n");
    let texts = [SourceText::new("list", LIST), SourceText::new("shop", shop), SourceText::new("dry", dry)];
    let loaded = load(&texts, "shop");
    assert_eq!(loaded.diagnostics, []);
    assert!(loaded.documents.len() >= 9, "{}", loaded.documents.len());
    let mut again = Resources::default();
    for document in &loaded.documents {
        let alone = load(std::slice::from_ref(&document.text), "shop");
        assert_eq!((alone.diagnostics.len(), alone.resources.len()), (0, 1), "{document:?}");
        let mut resources = alone.resources;
        assert_eq!(alone.documents[0].name, document.name);
        again.authorization_policies.append(&mut resources.authorization_policies);
        again.peer_authentications.append(&mut resources.peer_authentications);
        again.workload_entries.append(&mut resources.workload_entries);
        again.service_entries.append(&mut resources.service_entries);
    }
    assert_eq!(again, loaded.resources);
}

#[test]
fn a_document_reports_at_the_lines_of_its_file() {
    let text = SourceText { first_line: 41, ..SourceText::new("f", policy("{acton: DENY}")) };
    let loaded = load(&[text], "default");
    assert_eq!(loaded.diagnostics[0].to_string().split(": ").next(), Some("f:44:8"));
}

#[test]
fn merge_keys_and_aliases_mean_what_kubernetes_reads() {
    let text = policy(
        "\n  rules:\n  - from: &from\n    - source: &s {namespaces: [a], principals: [p]}\n  - from: *from\n  - from:\n    - \
         source: {<<: *s, principals: [q]}",
    );
    let resources = accepted(&text);
    let rules = &first(&resources).rules;
    assert_eq!(rules[0].from, rules[1].from);
    assert_eq!((&rules[2].from[0].namespaces[0][..], &rules[2].from[0].principals[0][..]), ("a", "q"));
}

#[test]
fn resources_of_both_kinds_of_workload_are_read() {
    let resources = accepted(include_str!("../samples/shop.yaml"));
    let [payments, legacy] = &resources.workload_entries[..] else { panic!("{resources:?}") };
    assert!(payments.mtls() && !legacy.mtls());
    assert_eq!((payments.service_account.as_str(), legacy.service_account.as_str()), ("payments", "default"));
    let service = &resources.service_entries[0];
    assert_eq!((service.ports[0].number, service.ports[0].target_port), (80, Some(8080)));
}

#[test]
fn reading_is_bounded() {
    let nested = |open: &str, close: &str| policy(&format!("{}{}", open.repeat(100_000), close.repeat(100_000)));
    assert_eq!(codes(&nested("[", "]")).len(), 1);
    assert_eq!(codes(&nested("{a: ", "}")).len(), 1);
    let blocks: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(codes(&blocks), ["PAL0003"]);
    assert_eq!(codes(&"- ".repeat(100_000)), ["PAL0003"]);
    let bomb: String = (1..40).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1)).collect();
    assert_eq!(codes(&format!("a0: &a0 [x, x, x]\n{bomb}")), ["PAL0004"]);
    let deep: String = (1..70).map(|n| format!("a{n}: &a{n} [*a{0}]\n", n - 1)).collect();
    assert_eq!(codes(&format!("a0: &a0 [x]\n{deep}")), ["PAL0003"]);
    assert_eq!(codes(&"#".repeat(MAX_TEXT_BYTES + 1)), ["PAL0002"]);
    assert_eq!(codes(&"---\n".repeat(MAX_DOCUMENTS + 5)), ["PAL0005"]);
    let rules = "{},".repeat(513);
    assert_eq!(codes(&policy(&format!("{{rules: [{rules}]}}"))), ["PAL0112"]);
    let wrong = "{unknown: x},".repeat(500);
    let many: String = (0..5).map(|_| policy(&format!("{{rules: [{wrong}]}}")) + "---\n").collect();
    let loaded = one(&many);
    assert_eq!((loaded.diagnostics.len(), loaded.refused), (1001, 5));
    assert_eq!(loaded.diagnostics.iter().filter(|found| found.code == "PAL0010").count(), 1);
}

#[test]
fn line_ends_and_marks_do_not_move_lines() {
    let good = policy("{}");
    assert_eq!(codes(&good.replace('\n', "\r\n")), [""; 0]);
    assert_eq!(codes(&format!("\u{feff}{good}")), [""; 0]);
    let loaded = one(&good.replace('\n', "\r"));
    assert_eq!((loaded.diagnostics[0].code, loaded.diagnostics[0].line), ("PAL0001", 1));
    assert_eq!(codes(""), [""; 0]);
    assert_eq!(codes("---\n---\n...\n# x\n"), [""; 0]);
}

#[test]
fn the_same_resource_in_two_files_is_an_error_in_the_second() {
    let texts = [SourceText::new("a", policy("{}")), SourceText::new("b", policy("{}"))];
    let loaded = load(&texts, "default");
    let [found] = &loaded.diagnostics[..] else { panic!("{:?}", loaded.diagnostics) };
    assert_eq!((found.code, &*found.file, loaded.resources.len()), ("PAL0111", "b", 1));
    assert!(found.message.ends_with("defined at a:1"), "{found}");
    assert_eq!(Arc::strong_count(&loaded.resources.authorization_policies[0]), 1);
}
