//! The rules of Istio's admission, one row each: what has to be refused (and by which code), what only warns, and what
//! has to pass although it looks odd.

use palisade_policies::{SourceText, load};

/// The codes found in one resource, and whether it was accepted.
fn codes(kind: &str, metadata: &str, spec: &str) -> (Vec<&'static str>, bool) {
    let text =
        format!("apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p{metadata}}}\nspec: {{{spec}}}\n");
    let loaded = load(&[SourceText::new("f", text)], "default");
    let accepted = loaded.resources.len() == 1;
    assert_eq!(accepted, !loaded.has_errors(), "{:?}", loaded.diagnostics);
    (loaded.diagnostics.iter().map(|found| found.code).collect(), accepted)
}

/// Rows of a spec and the one code that it gives; the empty code is none.
fn refused(kind: &str, rows: &[(&str, &str)]) {
    for (spec, code) in rows {
        assert_eq!(codes(kind, "", spec), (vec![*code], false), "{spec}");
    }
}

fn warned(kind: &str, rows: &[(&str, &str)]) {
    for (spec, code) in rows {
        assert_eq!(codes(kind, "", spec), (vec![*code], true), "{spec}");
    }
}

fn accepted(kind: &str, rows: &[&str]) {
    for spec in rows {
        assert_eq!(codes(kind, "", spec), (vec![], true), "{spec}");
    }
}

const POLICY: &str = "AuthorizationPolicy";
const TOKENS: &str = "RequestAuthentication";
const PEERS: &str = "PeerAuthentication";

#[test]
fn attachment_is_checked_alike_for_policies_and_tokens() {
    for kind in [POLICY, TOKENS] {
        refused(
            kind,
            &[
                ("selector: {matchLabels: {\"\": v1}}", "PAL0202"),
                ("selector: {matchLabels: {app: \"a*\"}}", "PAL0203"),
                ("selector: {matchLabels: {\"ap*\": a}}", "PAL0203"),
                ("selector: null", "PAL0104"),
            ],
        );
        warned(kind, &[("selector: {}", "PAL0204"), ("selector: {matchLabels: {}}", "PAL0204")]);
        accepted(kind, &["selector: {matchLabels: {app: httpbin, version: \"\"}}", ""]);
    }
}

#[test]
fn target_refs_are_checked_alike_for_policies_and_tokens() {
    // Every policy with a reference is told that it concerns no sidecar.
    let row = |kind: &str, spec: &str, code: &str| {
        let (mut found, accepted) = codes(kind, "", spec);
        found.retain(|code| *code != "PAL0227");
        let wanted: Vec<&str> = Some(code).filter(|code| !code.is_empty()).into_iter().collect();
        assert_eq!((found, accepted), (wanted, code.is_empty()), "{kind} {spec}");
    };
    let gateway = "group: gateway.networking.k8s.io, kind: Gateway";
    for kind in [POLICY, TOKENS] {
        for (spec, code) in [
            (format!("targetRef: {{{gateway}, name: g}}"), ""),
            (format!("targetRefs: [{{{gateway}, name: g}}]"), ""),
            (format!("targetRef: {{{gateway}, name: g}}, targetRefs: []"), ""),
            ("targetRefs: [{kind: Service, name: s}, {group: core, kind: Service, name: s}]".to_owned(), ""),
            ("targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: s}]".to_owned(), ""),
            ("targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: s}]".to_owned(), ""),
            (format!("targetRefs: [{{{gateway}, name: \"\"}}]"), "PAL0117"),
            (format!("targetRefs: [{{{gateway}}}]"), "PAL0105"),
            (format!("targetRefs: [{{{gateway}, name: g, namespace: other}}]"), "PAL0205"),
            (format!("targetRefs: [{{{gateway}, name: g, namespace: \"\"}}]"), ""),
            ("targetRefs: [{group: wrong, kind: Gateway, name: g}]".to_owned(), "PAL0206"),
            ("targetRefs: [{group: gateway.networking.k8s.io, kind: gateway, name: g}]".to_owned(), "PAL0206"),
            ("targetRefs: [{kind: Gateway, name: g}]".to_owned(), "PAL0206"),
            (format!("selector: {{matchLabels: {{a: b}}}}, targetRefs: [{{{gateway}, name: g}}]"), "PAL0201"),
            (format!("selector: {{matchLabels: {{a: b}}}}, targetRef: {{{gateway}, name: g}}"), "PAL0201"),
            (format!("targetRef: {{{gateway}, name: g}}, targetRefs: [{{{gateway}, name: g}}]"), "PAL0201"),
        ] {
            row(kind, &spec, code);
        }
    }
}

#[test]
fn actions_ask_for_what_they_need() {
    refused(
        POLICY,
        &[
            ("action: DENY", "PAL0207"),
            ("action: DENY, rules: []", "PAL0207"),
            ("action: CUSTOM, provider: {name: p}", "PAL0207"),
            ("action: CUSTOM, rules: [{}]", "PAL0209"),
            ("action: CUSTOM, rules: [{}], provider: {}", "PAL0209"),
            ("action: CUSTOM, rules: [{}], provider: {name: \"\"}", "PAL0209"),
            ("provider: {name: p}, rules: [{}]", "PAL0208"),
            ("action: DENY, provider: {name: p}, rules: [{}]", "PAL0208"),
            ("action: AUDIT, provider: {name: p}", "PAL0208"),
            ("action: REJECT", "PAL0106"),
            ("action: allow", "PAL0106"),
        ],
    );
    accepted(
        POLICY,
        &[
            "",
            "action: ALLOW",
            "action: AUDIT",
            "rules: []",
            "action: DENY, rules: [{}]",
            "action: CUSTOM, provider: {name: p}, rules: [{}]",
        ],
    );
}

#[test]
fn rules_are_there_and_say_something() {
    refused(
        POLICY,
        &[
            ("rules: [null]", "PAL0104"),
            ("rules: [{from: []}]", "PAL0211"),
            ("rules: [{to: []}]", "PAL0211"),
            ("rules: [{from: [null]}]", "PAL0104"),
            ("rules: [{to: [null]}]", "PAL0104"),
            ("rules: [{from: [{}]}]", "PAL0212"),
            ("rules: [{to: [{}]}]", "PAL0212"),
            ("rules: [{from: [{source: null}]}]", "PAL0104"),
            ("rules: [{to: [{operation: null}]}]", "PAL0104"),
            ("rules: [{from: [{source: {}}]}]", "PAL0212"),
            ("rules: [{to: [{operation: {}}]}]", "PAL0212"),
            ("rules: [{from: [{source: {user: [a]}}]}]", "PAL0101"),
        ],
    );
    let mixed = |one: &str, other: &str| {
        codes(POLICY, "", &format!("rules: [{{from: [{{source: {{{one}: [a], {other}: [a]}}}}]}}]"))
    };
    for accounts in ["serviceAccounts", "notServiceAccounts"] {
        for other in ["principals", "notPrincipals", "namespaces", "notNamespaces"] {
            assert_eq!(mixed(accounts, other), (vec!["PAL0213"], false), "{accounts} {other}");
        }
        assert_eq!(mixed(accounts, "trustDomains"), (vec![], true));
    }
}

const SOURCE: [&str; 7] =
    ["principals", "requestPrincipals", "namespaces", "serviceAccounts", "trustDomains", "ipBlocks", "remoteIpBlocks"];
const OPERATION: [&str; 4] = ["hosts", "ports", "methods", "paths"];

/// The specs in which every list, and its negation, holds these values.
fn every_list(values: &str) -> Vec<String> {
    let twin = |name: &str| format!("not{}{}", name[..1].to_uppercase(), &name[1..]);
    let source = |name: String| format!("rules: [{{from: [{{source: {{{name}: [{values}]}}}}]}}]");
    let operation = |name: String| format!("rules: [{{to: [{{operation: {{{name}: [{values}]}}}}]}}]");
    let sources = SOURCE.iter().flat_map(|name| [source((*name).to_owned()), source(twin(name))]);
    let operations = OPERATION.iter().flat_map(|name| [operation((*name).to_owned()), operation(twin(name))]);
    sources.chain(operations).collect()
}

#[test]
fn no_list_holds_an_empty_text() {
    let specs = every_list("\"\"");
    assert_eq!(specs.len(), 22);
    for spec in specs {
        assert_eq!(codes(POLICY, "", &spec), (vec!["PAL0117"], false), "{spec}");
    }
}

/// A list's values and the code of the first fault, nothing where they pass.
const VALUES: [(&str, &str, &str); 66] = [
    ("ipBlocks", "10.0.0.7", ""),
    ("ipBlocks", "10.0.0.7/8", ""),
    ("ipBlocks", "::1", ""),
    ("ipBlocks", "2001:db8::/32", ""),
    ("ipBlocks", "fe80::1%eth0", ""),
    ("ipBlocks", "::ffff:10.0.0.1/120", ""),
    ("ipBlocks", "fe80::1%", "PAL0214"),
    ("ipBlocks", "fe80::1%eth0/64", "PAL0214"),
    ("ipBlocks", "10.0.0.7%eth0", "PAL0214"),
    ("ipBlocks", "1.2.3.4:80", "PAL0214"),
    ("ipBlocks", "1.2.3.04", "PAL0214"),
    ("ipBlocks", "1.2.3", "PAL0214"),
    ("ipBlocks", "10.0.0.0/33", "PAL0214"),
    ("ipBlocks", "10.0.0.0/08", "PAL0214"),
    ("ipBlocks", "10.0.0.0/", "PAL0214"),
    ("ipBlocks", "::/129", "PAL0214"),
    ("notIpBlocks", "a.b.c.d", "PAL0214"),
    ("remoteIpBlocks", "10.0.0.0/8/8", "PAL0214"),
    ("notRemoteIpBlocks", " 10.0.0.1", "PAL0214"),
    ("ports", "0", ""),
    ("ports", "65535", ""),
    ("ports", "00080", ""),
    ("ports", "65536", "PAL0215"),
    ("ports", "-1", "PAL0215"),
    ("ports", "+80", "PAL0215"),
    ("ports", "80 ", "PAL0215"),
    ("ports", "http", "PAL0215"),
    ("notPorts", "4294967376", "PAL0215"),
    ("trustDomains", "cluster.local", ""),
    ("trustDomains", "*", ""),
    ("trustDomains", "td*", ""),
    ("trustDomains", "*td", ""),
    ("trustDomains", "**", "PAL0216"),
    ("trustDomains", "*td*", "PAL0216"),
    ("trustDomains", "t*d", "PAL0216"),
    ("trustDomains", "td/ns", "PAL0216"),
    ("notTrustDomains", "spiffe://td", "PAL0216"),
    ("serviceAccounts", "web", ""),
    ("serviceAccounts", "shop/web", ""),
    ("serviceAccounts", "a/b/c", "PAL0217"),
    ("serviceAccounts", "/web", "PAL0217"),
    ("serviceAccounts", "shop/", "PAL0217"),
    ("notServiceAccounts", "w*", "PAL0217"),
    ("requestPrincipals", "a*b", ""),
    ("namespaces", "n*1", ""),
    ("principals", "spiffe://td/ns/a/sa/b", ""),
    ("hosts", "a*b", ""),
    ("methods", "get", ""),
    ("paths", "/a*b", ""),
    ("paths", "no-slash", ""),
    ("paths", "/{*}/foo/", ""),
    ("paths", "/foo/{**}/bar", ""),
    ("paths", "/foo/{**}buzz/bar", "PAL0218"),
    ("paths", "/{*}/foo/{}/bar", "PAL0218"),
    ("paths", "/foo/{*}/bar/*", "PAL0218"),
    ("paths", "/foo/{*}/bar/**/buzz", "PAL0218"),
    ("paths", "/{buzz}", "PAL0218"),
    ("paths", "/{*}/foo/{*}.txt", "PAL0218"),
    ("paths", "/{*}/foo/temp}/bar", "PAL0218"),
    ("paths", "/{**}/foo/{*}/bar", "PAL0218"),
    ("paths", "/{*}/foo/?abc", "PAL0218"),
    ("paths", "/{*}/a b", "PAL0218"),
    ("notPaths", "/plain/{", "PAL0218"),
    ("paths", "//{*}", "PAL0218"),
    ("notPaths", "{*}", "PAL0219"),
    ("paths", "foo/{**}", "PAL0219"),
];

#[test]
fn values_have_the_form_of_their_list() {
    for (list, value, code) in VALUES {
        let plain = list.strip_prefix("not").map_or(list.to_owned(), |rest| rest[..1].to_lowercase() + &rest[1..]);
        let side = if OPERATION.contains(&plain.as_str()) { "to: [{operation:" } else { "from: [{source:" };
        let spec = format!("rules: [{{{side} {{{list}: [\"{value}\"]}}}}]}}]");
        let wanted: Vec<&str> = Some(code).filter(|code| !code.is_empty()).into_iter().collect();
        assert_eq!(codes(POLICY, "", &spec), (wanted, code.is_empty()), "{spec}");
    }
}

/// 256 bytes as Envoy reads it; what is no template may be longer.
#[test]
fn templates_are_no_longer_than_envoy_takes() {
    for (begin, length, code) in [
        ("/{*}/", 253, None),
        ("/{*}/", 254, Some("PAL0228")),
        ("/{**}/", 252, None),
        ("/{**}/", 253, Some("PAL0228")),
        ("/plain/", 1000, None),
    ] {
        let spec = format!("rules: [{{to: [{{operation: {{paths: [\"{begin}{}\"]}}}}]}}]", "a".repeat(length));
        assert_eq!(codes(POLICY, "", &spec), (code.into_iter().collect(), code.is_none()), "{begin} {length}");
    }
}

#[test]
fn service_accounts_are_few_and_short() {
    let accounts = |value: &str, count: usize| {
        let list = format!("{value},").repeat(count);
        codes(POLICY, "", &format!("rules: [{{from: [{{source: {{serviceAccounts: [{list}]}}}}]}}]"))
    };
    assert_eq!((accounts("a", 16), accounts("a", 17)), ((vec![], true), (vec!["PAL0112"], false)));
    let (long, longer) = (format!("ns/{}", "a".repeat(317)), format!("ns/{}", "a".repeat(318)));
    assert_eq!((accounts(&long, 1), accounts(&longer, 1)), ((vec![], true), (vec!["PAL0217"], false)));
    let alternatives = |count: usize| {
        let list = "{source: {principals: [a]}},".repeat(count);
        codes(POLICY, "", &format!("rules: [{{from: [{list}]}}]"))
    };
    assert_eq!((alternatives(512), alternatives(513)), ((vec![], true), (vec!["PAL0112"], false)));
}

/// A condition's key with a value, and the code of the first fault.
const CONDITIONS: [(&str, &str, &str); 26] = [
    ("request.headers[:authority]", "productpage", ""),
    ("request.headers[:authority]", "", "PAL0117"),
    ("request.headers[]", "a", "PAL0222"),
    ("request.headers", "a", "PAL0222"),
    ("request.headersX[a]", "a", "PAL0220"),
    ("source.ip", "5.6.7.0/24", ""),
    ("source.ip", "a.b.c.d", "PAL0214"),
    ("remote.ip", "a.b.c.d", "PAL0214"),
    ("destination.ip", "a.b.c.d", "PAL0214"),
    ("destination.port", "x", "PAL0215"),
    ("source.serviceAccount", "too/many/slashes", "PAL0217"),
    ("source.serviceAccount", "ns/sa", ""),
    ("source.trustDomain", "foo*", ""),
    ("source.trustDomain", "td/ns", ""),
    ("source.trustDomain", "fo*-bar", "PAL0216"),
    ("source.trustDomain", "fo*bar*", "PAL0216"),
    ("request.auth.claims[]", "a", "PAL0222"),
    ("request.auth.claims[a][b]", "a", ""),
    ("experimental.envoy.filters.a.b[c]", "a", ""),
    ("experimental.envoy.filters.a.b.x", "a", "PAL0222"),
    ("source.user", "a", "PAL0220"),
    ("Source.ip", "10.0.0.1", "PAL0220"),
    ("destination.labels[app]", "a", "PAL0220"),
    ("destination.namespace", "a", "PAL0220"),
    ("destination.name", "a", "PAL0220"),
    ("destination.user", "a", "PAL0220"),
];

#[test]
fn conditions_have_a_known_key_and_values_of_its_form() {
    for (key, value, code) in CONDITIONS {
        for list in ["values", "notValues"] {
            let spec = format!("rules: [{{when: [{{key: \"{key}\", {list}: [\"{value}\"]}}]}}]");
            let wanted: Vec<&str> = Some(code).filter(|code| !code.is_empty()).into_iter().collect();
            assert_eq!(codes(POLICY, "", &spec), (wanted, code.is_empty()), "{spec}");
        }
    }
    refused(
        POLICY,
        &[
            ("rules: [{when: [null]}]", "PAL0104"),
            ("rules: [{when: [{values: [a]}]}]", "PAL0105"),
            ("rules: [{when: [{key: \"\", values: [a]}]}]", "PAL0117"),
            ("rules: [{when: [{key: source.principal}]}]", "PAL0221"),
        ],
    );
    accepted(
        POLICY,
        &["rules: [{when: [{key: source.principal, values: [a]}, {key: source.principal, values: [b]}]}]"],
    );
}

#[test]
fn a_dry_run_is_for_policies_that_allow_or_deny() {
    let annotated = |kind: &str, value: &str, spec: &str| {
        codes(kind, &format!(", annotations: {{istio.io/dry-run: \"{value}\"}}"), spec)
    };
    for value in ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"] {
        assert_eq!(annotated(POLICY, value, ""), (vec![], true), "{value}");
        assert_eq!(annotated(POLICY, value, "action: DENY, rules: [{}]"), (vec![], true), "{value}");
    }
    for value in ["yes", "tRUE", "", "2", "on"] {
        assert_eq!(annotated(POLICY, value, ""), (vec!["PAL0223"], false), "{value}");
    }
    let custom = "action: CUSTOM, provider: {name: p}, rules: [{}]";
    assert_eq!(annotated(POLICY, "true", custom), (vec!["PAL0224"], false));
    assert_eq!(annotated(POLICY, "false", "action: AUDIT"), (vec!["PAL0224"], false));
    for kind in [TOKENS, PEERS] {
        assert_eq!(annotated(kind, "true", ""), (vec!["PAL0224"], false), "{kind}");
    }
}

#[test]
fn deny_rules_that_reach_further_than_they_look_are_named() {
    let http = "{source: {requestPrincipals: [a]}}";
    let deny = |rule: &str| codes(POLICY, "", &format!("action: DENY, rules: [{{{rule}}}]"));
    for (rule, warned) in [
        (format!("from: [{http}]"), true),
        (format!("from: [{http}, {{source: {{principals: [a]}}}}]"), false),
        ("from: [{source: {remoteIpBlocks: [10.0.0.1]}}]".to_owned(), false),
        ("to: [{operation: {methods: [GET]}}]".to_owned(), true),
        ("to: [{operation: {ports: [\"1\"]}}, {operation: {methods: [GET]}}]".to_owned(), true),
        (format!("from: [{http}], to: [{{operation: {{methods: [GET], ports: [\"1\"]}}}}]"), false),
        ("from: [{source: {principals: [a]}}], to: [{operation: {methods: [GET]}}]".to_owned(), true),
        ("to: [{operation: {notPorts: [\"1\"]}}]".to_owned(), false),
    ] {
        let wanted = if warned { vec!["PAL0225"] } else { Vec::new() };
        assert_eq!(deny(&rule), (wanted, true), "{rule}");
        assert_eq!(codes(POLICY, "", &format!("rules: [{{{rule}}}]")), (vec![], true), "an ALLOW: {rule}");
    }
}

#[test]
fn port_modes_need_labels_and_ports() {
    let web = "selector: {matchLabels: {app: web}}";
    let strict = "{mode: STRICT}";
    refused(
        PEERS,
        &[
            (&format!("portLevelMtls: {{80: {strict}}}"), "PAL0301"),
            (&format!("{web}, portLevelMtls: {{}}"), "PAL0302"),
            (&format!("{web}, portLevelMtls: {{0: {strict}}}"), "PAL0303"),
            (&format!("{web}, portLevelMtls: {{65536: {strict}}}"), "PAL0303"),
            (&format!("{web}, portLevelMtls: {{http: {strict}}}"), "PAL0303"),
            (&format!("{web}, portLevelMtls: {{\"-1\": {strict}}}"), "PAL0303"),
            (&format!("{web}, portLevelMtls: {{\"+80\": {strict}}}"), "PAL0303"),
            (&format!("{web}, portLevelMtls: {{80: {{mode: ON}}}}"), "PAL0103"),
            ("mtls: {mode: strict}", "PAL0106"),
            ("mtls: {mode: BLAH}", "PAL0106"),
            ("selector: {matchLabels: {\"\": a}}", "PAL0202"),
            ("selector: {matchLabels: {a: \"*\"}}", "PAL0203"),
            ("targetRefs: []", "PAL0603"),
        ],
    );
    assert_eq!(codes(PEERS, "", &format!("selector: {{}}, portLevelMtls: {{80: {strict}}}")).0, ["PAL0204", "PAL0301"]);
    warned(PEERS, &[("selector: {}", "PAL0204")]);
    let all =
        format!("{web}, mtls: {{mode: UNSET}}, portLevelMtls: {{1: {strict}, \"65535\": {{}}, 80: {{mode: UNSET}}}}");
    accepted(PEERS, &["", "mtls: {}", "mtls: {mode: DISABLE}", "mtls: {mode: PERMISSIVE}", &all]);
}
