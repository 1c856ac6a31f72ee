//! Every trap that `policy check` knows: found where it is one, with a request that shows it, and silent where it is none.

use palisade_policies::{SourceText, codes};
use palisade_workbench::check::{Finding, check};
use palisade_workbench::eval::eval;

mod cases;

use cases::{CASES, Case};

/// One AuthorizationPolicy in the namespace `a` for the workloads `app: w`.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {spec}\n"
    )
}

fn findings(yaml: &str, mesh: &str) -> Vec<Finding> {
    let mesh = (!mesh.is_empty()).then(|| SourceText::new("mesh.yaml", mesh));
    let report = check(&[SourceText::new("p.yaml", yaml)], mesh.as_ref(), "default");
    let errors: Vec<_> = report.diagnostics.iter().filter(|found| found.diagnostic.is_error()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{yaml}");
    assert_eq!(report.exit_code(), 0, "a trap changes no exit code");
    report.diagnostics
}

fn yaml(case: &Case) -> String {
    if case.yaml.starts_with('{') { policy("p", case.yaml) } else { case.yaml.to_owned() }
}

/// Codes and fields of what has an example, `PAL0701 spec.rules[0]..`.
fn shown(found: &[Finding]) -> Vec<String> {
    let with = found.iter().filter(|found| found.example.is_some());
    with.map(|found| format!("{} {}", found.diagnostic.code, found.diagnostic.field)).collect()
}

#[test]
fn each_trap_is_found_at_its_place() {
    let mut wrong = String::new();
    for case in CASES {
        let found = findings(&yaml(case), case.mesh);
        if shown(&found) != case.found {
            wrong.push_str(&format!("{}: {:#?}\n{}\nnot {:#?}\n", case.name, shown(&found), yaml(case), case.found));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What an example claims is what `policy eval` answers.
#[test]
fn examples_are_what_eval_answers() {
    for case in CASES {
        let mesh = SourceText::new("mesh.yaml", case.mesh);
        let mesh = palisade_policies::MeshConfig::parse(&mesh).0.unwrap();
        let yaml = yaml(case);
        let loaded = palisade_policies::load(&[SourceText::new("p.yaml", yaml.as_str())], "default");
        for found in findings(&yaml, case.mesh) {
            let Some(example) = found.example else { continue };
            let report = eval(&loaded, &mesh, &example.request.to_string(), None);
            let mut decision = example.decision.clone();
            // A trap of PeerAuthentication says the mode of the port, too.
            decision.as_object_mut().unwrap().shift_remove("mtls");
            assert_eq!(report.answers, [decision.to_string()], "{}: {:?}", case.name, report.errors);
            assert_eq!(example.request["id"], example.decision["id"]);
        }
    }
}

#[test]
fn every_trap_of_the_catalogue_has_a_case() {
    let all: Vec<&str> = codes().map(|code| code.code).filter(|code| code.starts_with("PAL07")).collect();
    assert!(!all.is_empty());
    for code in all {
        if code == "PAL0738" {
            continue; // Shown by `many_policies_are_bounded`.
        }
        assert!(CASES.iter().any(|case| case.found.iter().any(|found| found.starts_with(code))), "{code} has no case");
    }
}

/// Well-written policies are left alone.
#[test]
fn a_clean_set_has_no_trap() {
    let clean = include_str!("../../golden/check/clean.yaml");
    let mesh = include_str!("../../golden/check/clean-mesh.yaml");
    let found = findings(clean, mesh);
    assert!(found.is_empty(), "{found:#?}");
}

/// A slip that another policy covers is none.
#[test]
fn what_another_policy_covers_is_no_trap() {
    let slip = policy("p", "{action: DENY, rules: [{to: [{operation: {ports: ['8080'], paths: [/admin]}}]}]}");
    let nothing = policy("q", "{}");
    let alone = findings(&slip, "");
    let field = "spec.rules[0].to[0].operation.paths[0]";
    assert_eq!(shown(&alone), [format!("PAL0701 {field}"), format!("PAL0702 {field}")]);
    let covered = findings(&format!("{slip}---\n{nothing}"), "");
    assert_eq!(shown(&covered), Vec::<String>::new());
}

#[test]
fn traps_stand_where_they_are_written() {
    let text = "# a comment\napiVersion: v1\nkind: List\nitems:\n- apiVersion: security.istio.io/v1\n  kind: AuthorizationPolicy\n  \
                metadata: {name: p, namespace: a}\n  spec:\n    action: DENY\n    rules:\n    - to:\n      - operation:\n          \
                ports: ['8080']\n          paths: [/ok*, /admin]\n";
    let found = findings(text, "pathNormalization: {normalization: MERGE_SLASHES}\n");
    let place = |found: &Finding| (found.diagnostic.line, found.diagnostic.column, found.diagnostic.code);
    assert_eq!(found.iter().map(place).collect::<Vec<_>>(), [(14, 25, "PAL0701")]);
}

#[test]
fn many_policies_are_bounded() {
    let slip = "{action: DENY, rules: [{to: [{operation: {ports: ['8080'], paths: [/admin]}}]}]}";
    let all: Vec<String> =
        (0..1200).map(|index| policy(&format!("p{index}"), slip).replace("/admin", &format!("/{index}"))).collect();
    let found = findings(&all.join("---\n"), "");
    assert_eq!(found.len(), 1001);
    assert_eq!(found[1000].diagnostic.code, "PAL0738");
}

/// A proposal copies every value of its policy: the search is paid for by values, and ends before all are looked at.
#[test]
fn many_values_are_bounded() {
    let paths = |count: usize| (0..count).map(|index| format!("/{index},")).collect::<String>();
    let of = |paths: &str| format!("{{action: DENY, rules: [{{to: [{{operation: {{paths: [{paths}]}}}}]}}]}}");
    for (count, most) in [(500, 1000), (10_000, 200), (90_000, 30)] {
        let found = findings(&policy("p", &of(&paths(count))), "");
        let last = found.iter().filter(|found| found.diagnostic.code == "PAL0738").count();
        let shown = shown(&found).len();
        assert!(last == usize::from(count > 500) && (5..=most).contains(&shown), "{count}: {shown}, {last}");
    }
}

/// What the fix says ends the finding and opens nothing.
#[test]
fn the_fix_of_a_denied_negation_opens_nothing() {
    let fix = palisade_policies::explain("PAL0740").unwrap().fix;
    assert!(
        fix.starts_with("set STRICT for the workload by a PeerAuthentication, or deny `notPrincipals: [\"*\"]` in a")
    );
    let slip = policy("p", "{action: DENY, rules: [{from: [{source: {notPrincipals: ['*/sa/x']}}]}]}");
    assert!(shown(&findings(&slip, "")).iter().any(|found| found.starts_with("PAL0740")));
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: s, namespace: a}\n\
                  spec: {mtls: {mode: STRICT}}\n";
    let own = "[{from: [{source: {notPrincipals: ['*']}}]}, ";
    for mended in [format!("{slip}---\n{strict}"), slip.replacen("rules: [", &format!("rules: {own}"), 1)] {
        assert_eq!(shown(&findings(&mended, "")), Vec::<String>::new(), "{mended}");
    }
}

/// A DENY leaves the same open whatever an ALLOW asks for.
#[test]
fn a_deny_is_seen_beside_every_allow() {
    let deny = |spec: &str| policy("d", &format!("{{action: DENY, rules: [{{to: [{{operation: {spec}}}]}}]}}"));
    for allow in [
        "to: [{operation: {methods: [POST]}}]",
        "to: [{operation: {hosts: [shop.example]}}]",
        "to: [{operation: {paths: ['/admin/*', '/admin*']}}]",
        "from: [{source: {namespaces: [web]}}]",
        "from: [{source: {principals: [cluster.local/ns/a/sa/b]}}]",
        "from: [{source: {requestPrincipals: ['i/*']}}]",
        "from: [{source: {ipBlocks: [192.168.0.0/16]}}]",
        "when: [{key: 'request.headers[k]', values: [v]}]",
        "from: [{source: {namespaces: [never], notNamespaces: ['*']}}, {source: {namespaces: [web]}}]",
    ] {
        let allow = policy("x", &format!("{{rules: [{{{allow}}}]}}"));
        for (spec, code) in [
            ("{ports: ['8080'], paths: ['/admin/{*}']}", "PAL0703"),
            ("{ports: ['8080'], paths: [/admin/a]}", "PAL0701"),
        ] {
            let found = findings(&format!("{allow}---\n{}", deny(spec)), "");
            let field = format!("{code} spec.rules[0].to[0].operation.paths[0]");
            assert!(shown(&found).contains(&field), "{:?}\n{allow}", shown(&found));
        }
    }
    let other = policy("x", "{rules: [{to: [{operation: {ports: ['9080']}}]}]}");
    let found = findings(&format!("{other}---\n{}", deny("{methods: [DELETE]}")), "");
    assert!(shown(&found).contains(&"PAL0225 spec.rules[0]".to_owned()), "{found:#?}");
}

#[test]
fn only_an_allow_of_everything_opens_nothing_when_it_goes() {
    for (rule, last) in [
        ("", false),
        ("to: [{operation: {methods: [GET]}}]", true),
        ("to: [{operation: {ports: ['8080']}}]", true),
        ("to: [{operation: {ports: ['8080'], methods: [GET]}}]", true),
        ("to: [{operation: {paths: ['/*']}}]", true),
        ("to: [{operation: {methods: [GET], notPaths: [/x]}}]", true),
        ("to: [{operation: {hosts: ['app.a:8080']}}]", true),
        ("from: [{source: {principals: ['*']}}]", true),
    ] {
        let found = shown(&findings(&policy("p", &format!("{{rules: [{{{rule}}}]}}")), ""));
        assert_eq!(found.contains(&"PAL0731 metadata.name".to_owned()), last, "{rule}: {found:?}");
    }
}

/// What an address block of headers gets wrong on HTTP does not hide that ambient mode never reads it.
#[test]
fn one_place_may_have_several_traps() {
    let found = findings(&policy("p", "{action: DENY, rules: [{from: [{source: {remoteIpBlocks: [1.2.3.4]}}]}]}"), "");
    let field = "spec.rules[0].from[0].source.remoteIpBlocks";
    assert_eq!(shown(&found), [format!("PAL0727 {field}"), format!("PAL0725 {field}")]);
}
