//! The traps of Istio's HTTP policies: each is a request that people expect to be decided otherwise.

use crate::ask::{Ask, decided, evaluate, evaluate_in, from, http, to, when};
use palisade_authz::{Outcome, Phase, Semantics};
use palisade_policies::{MeshConfig, PathNormalization};
use serde_json::json;

fn paths(action: &str, values: &[&str], target: &str) -> bool {
    http(&to(action, json!({"paths": values})), &Ask::get(target))
}

fn host(action: &str, value: &str, host: &str) -> bool {
    let ask = Ask { host: Some(host.to_owned()), ..Ask::get("/") };
    http(&to(action, json!({"hosts": [value]})), &ask)
}

#[test]
fn trap_01_an_allow_policy_without_rules_denies_everything() {
    for spec in [json!({}), json!({"rules": []})] {
        assert!(!http(&spec, &Ask::get("/")));
    }
    assert!(http(&json!({"rules": [{}]}), &Ask::get("/")));
    assert!(!http(&json!({"action": "DENY", "rules": [{}]}), &Ask::get("/")));
    assert!(http(&json!({"action": "DENY", "rules": []}), &Ask::get("/")));
}

#[test]
fn trap_02_a_dry_run_allow_denies_nobody() {
    let found = evaluate(&json!({"dryRun": true}), Semantics::Http, &Ask::get("/"));
    assert_eq!(decided(&found), (Outcome::Allow, Phase::Default, None));
    let shadow = found.shadow.allow.unwrap();
    assert!(!shadow.allowed && shadow.policy.is_none() && found.shadow.deny.is_none());
}

#[test]
fn trap_03_a_host_with_port_or_trailing_dot_is_another_host() {
    assert!(!host("DENY", "example.com", "Example.COM"));
    assert!(host("DENY", "example.com", "example.com:80"));
    assert!(host("DENY", "example.com", "example.com."));
}

#[test]
fn trap_04_a_host_prefix_reaches_other_domains() {
    assert!(host("ALLOW", "example.com*", "example.com.evil.org"));
    assert!(!host("ALLOW", "*.example.com", "example.com"));
    assert!(!host("ALLOW", "*.example.com", "a.example.com:80"));
    assert!(host("ALLOW", "*.example.com", ".example.com"));
    assert!(host("ALLOW", "example.com:*", "example.com:80"));
}

#[test]
fn trap_05_spellings_that_slip_past_an_exact_path() {
    for target in ["/admin/", "/ADMIN", "//admin", "/admin;x", "/admin%2f"] {
        assert!(paths("DENY", &["/admin"], target), "{target}");
    }
}

#[test]
fn trap_06_a_double_slash_passes_unless_slashes_are_merged() {
    let policy = to("DENY", json!({"paths": ["/admin*"]}));
    assert!(http(&policy, &Ask::get("//admin")));
    let mesh = MeshConfig { path_normalization: PathNormalization::MergeSlashes, ..MeshConfig::default() };
    let merged = evaluate_in(&mesh, &policy, Semantics::Http, &Ask::get("//admin"));
    assert_eq!(merged.outcome, Outcome::Deny);
}

#[test]
fn trap_07_spellings_that_are_normalised_away() {
    for target in ["/%61dmin", "/x/../admin", "/admin?x"] {
        assert!(!paths("DENY", &["/admin"], target), "{target}");
    }
}

#[test]
fn trap_08_a_template_misses_brackets_and_trailing_slashes() {
    assert!(paths("DENY", &["/admin/{*}"], "/admin/a[b]"));
    assert!(paths("DENY", &["/admin/{*}"], "/admin/x/"));
    assert!(!paths("DENY", &["/admin/{*}"], "/admin/x"));
}

#[test]
fn trap_09_a_template_that_ends_in_a_slash_needs_it() {
    assert!(!paths("ALLOW", &["/foo/{**}/"], "/foo/bar/baz.txt"));
}

#[test]
fn trap_10_the_any_operator_needs_its_slash() {
    assert!(!paths("ALLOW", &["/foo/{**}"], "/foo"));
    assert!(paths("ALLOW", &["/foo/{**}"], "/foo/"));
}

#[test]
fn trap_11_inner_stars_are_literal_except_in_namespaces() {
    assert!(!paths("ALLOW", &["/a*b"], "/axb"));
    assert!(paths("ALLOW", &["/a*b"], "/a*b"));
    assert!(http(&from("ALLOW", json!({"namespaces": ["n*1"]})), &Ask::by("td/ns/nx1/sa/s")));
}

#[test]
fn trap_12_connect_satisfies_not_paths() {
    let connect = Ask { target: None, method: Some("CONNECT".to_owned()), ..Ask::get("/") };
    assert!(http(&to("ALLOW", json!({"notPaths": ["/x"]})), &connect));
    assert!(!http(&to("DENY", json!({"notPaths": ["/x"]})), &connect));
}

#[test]
fn trap_13_presence_of_headers_and_claims_differs() {
    assert!(http(&when("ALLOW", "request.headers[x-foo]", "values", &["*"]), &Ask::with(&[("x-foo", "")])));
    let claim = when("ALLOW", "request.auth.claims[c]", "values", &["*"]);
    assert!(!http(&claim, &Ask::claiming(json!({"c": ""}))));
}

#[test]
fn trap_14_an_absent_header_satisfies_not_values() {
    assert!(http(&when("ALLOW", "request.headers[x-foo]", "notValues", &["b"]), &Ask::get("/")));
    let both = Ask::with(&[("x-foo", "a"), ("x-foo", "b")]);
    assert!(!http(&when("ALLOW", "request.headers[x-foo]", "notValues", &["b"]), &both));
}

#[test]
fn trap_15_repeated_headers_match_singly_unless_inline() {
    let x_foo = Ask::with(&[("x-foo", "a"), ("X-Foo", "b")]);
    assert!(http(&when("ALLOW", "request.headers[x-foo]", "values", &["a"]), &x_foo));
    let accept = Ask::with(&[("accept", "a"), ("accept", "b")]);
    assert!(!http(&when("ALLOW", "request.headers[accept]", "values", &["a"]), &accept));
    assert!(http(&when("ALLOW", "request.headers[accept]", "values", &["a,b"]), &accept));
}

#[test]
fn trap_16_not_principals_is_true_in_plaintext() {
    assert!(!http(&from("DENY", json!({"notPrincipals": ["x"]})), &Ask::get("/")));
}

#[test]
fn trap_17_a_deny_by_identity_misses_plaintext() {
    let policy = from("DENY", json!({"principals": ["td/ns/a/sa/b"]}));
    assert!(http(&policy, &Ask::get("/")));
    assert!(!http(&policy, &Ask::by("td/ns/a/sa/b")));
}

#[test]
fn trap_18_the_scheme_in_a_principal_never_matches() {
    let policy = from("ALLOW", json!({"principals": ["spiffe://td/ns/a/sa/b"]}));
    assert!(!http(&policy, &Ask::by("td/ns/a/sa/b")));
}

fn in_new_td(principal: &str, caller: &str) -> Outcome {
    let mesh =
        MeshConfig { trust_domain: palisade_identity::TrustDomain::parse("new-td").unwrap(), ..MeshConfig::default() };
    let policy = from("ALLOW", json!({"principals": [principal]}));
    evaluate_in(&mesh, &policy, Semantics::Http, &Ask::by(caller)).outcome
}

#[test]
fn trap_19_cluster_local_means_the_own_trust_domain() {
    let written = "cluster.local/ns/d/sa/s";
    assert_eq!(in_new_td(written, "cluster.local/ns/d/sa/s"), Outcome::Deny);
    assert_eq!(in_new_td(written, "new-td/ns/d/sa/s"), Outcome::Allow);
}

#[test]
fn trap_20_four_parts_are_not_rewritten() {
    let written = "cluster.local/ns/d/*";
    assert_eq!(in_new_td(written, "cluster.local/ns/d/sa/s"), Outcome::Allow);
    assert_eq!(in_new_td(written, "new-td/ns/d/sa/s"), Outcome::Deny);
    assert_eq!(in_new_td("cluster.local/ns/d/sa/*", "cluster.local/ns/d/sa/s"), Outcome::Deny);
}

#[test]
fn trap_21_a_bare_service_account_is_of_the_policys_namespace() {
    let policy = from("ALLOW", json!({"serviceAccounts": ["sleep"]}));
    assert!(!http(&policy, &Ask::by("td/ns/default/sa/sleep")));
    assert!(http(&policy, &Ask::by("td/ns/foo/sa/sleep")));
}

fn requester(value: &str, issuer: &str, subject: &str) -> bool {
    let claims = json!({"iss": issuer, "sub": subject});
    http(&from("ALLOW", json!({"requestPrincipals": [value]})), &Ask::claiming(claims))
}

#[test]
fn trap_22_a_prefix_of_an_issuer_url_never_matches() {
    assert!(!requester("https://acc*", "https://acc.example.com", "alice"));
    assert!(requester("https://acc.example.com/*", "https://acc.example.com", "alice"));
}

#[test]
fn trap_23_a_subject_with_a_slash_never_matches_exactly() {
    assert!(!requester("iss/a/b", "iss", "a/b"));
    assert!(requester("iss/*", "iss", "a/b"));
}

#[test]
fn trap_24_a_token_without_subject_is_no_principal() {
    let policy = from("ALLOW", json!({"requestPrincipals": ["*"]}));
    assert!(!http(&policy, &Ask::claiming(json!({"iss": "i"}))));
    assert!(http(&policy, &Ask::claiming(json!({"iss": "i", "sub": "s"}))));
}

fn claim(key: &str, side: &str, value: &str, claims: serde_json::Value) -> bool {
    http(&when("ALLOW", &format!("request.auth.claims{key}"), side, &[value]), &Ask::claiming(claims))
}

#[test]
fn trap_25_claims_that_are_no_strings_never_match() {
    assert!(!claim("[admin]", "values", "true", json!({"admin": true})));
    assert!(!claim("[n]", "values", "*", json!({"n": 1})));
    assert!(claim("[n]", "notValues", "*", json!({"n": 1})));
}

#[test]
fn trap_26_dots_do_not_nest() {
    assert!(!claim("[g.x]", "values", "a", json!({"g": {"x": "a"}})));
    assert!(claim("[g][x]", "values", "a", json!({"g": {"x": "a"}})));
}

#[test]
fn trap_27_scope_is_a_list_of_words() {
    let claims = json!({"scope": "read write"});
    assert!(!claim("[scope]", "values", "read write", claims.clone()));
    assert!(claim("[scope]", "values", "read", claims));
}

#[test]
fn trap_39_the_last_forwarded_entry_is_trusted_from_anyone() {
    let headers = vec![("x-forwarded-for", "1.2.3.4")];
    let ask = Ask { remote_ip: palisade_authz::remote_ip("10.0.0.7".parse().ok(), &headers), ..Ask::get("/") };
    assert!(http(&from("ALLOW", json!({"remoteIpBlocks": ["1.2.3.4"]})), &ask));
    assert!(!http(&from("ALLOW", json!({"ipBlocks": ["1.2.3.4"]})), &ask));
}

#[test]
fn trap_41_address_families_are_not_bridged() {
    assert!(!http(&from("ALLOW", json!({"ipBlocks": ["::/0"]})), &Ask::get("/")));
    assert!(!http(&from("ALLOW", json!({"ipBlocks": ["::ffff:10.0.0.7"]})), &Ask::get("/")));
    assert!(http(&from("ALLOW", json!({"ipBlocks": ["10.9.9.9/8"]})), &Ask::get("/")));
}

#[test]
fn trap_42_an_uppercase_server_name_never_matches() {
    for sni in ["api.example.com", "API.EXAMPLE.com"] {
        let ask = Ask { sni: Some(sni.to_owned()), ..Ask::get("/") };
        assert!(!http(&when("ALLOW", "connection.sni", "values", &["API.example.com"]), &ask));
        assert!(http(&when("ALLOW", "connection.sni", "values", &["api.example.com"]), &ask));
    }
}

#[test]
fn trap_50_the_reported_rule_is_first_in_byte_order() {
    let rules: Vec<_> = (0..11)
        .map(|i| if i == 2 || i == 10 { json!({}) } else { json!({"to": [{"operation": {"ports": ["1"]}}]}) })
        .collect();
    let many = json!({"name": "a", "rules": rules});
    let found = evaluate(&many, Semantics::Http, &Ask::get("/"));
    assert_eq!(decided(&found).2, Some("ns[foo]-policy[a]-rule[10]"));
    let upper = json!([many, {"name": "Z", "rules": [{}]}]);
    let found = evaluate(&upper, Semantics::Http, &Ask::get("/"));
    assert_eq!(decided(&found), (Outcome::Allow, Phase::Allow, Some("ns[foo]-policy[Z]-rule[0]")));
}

#[test]
fn trap_51_any_host_includes_the_empty_one() {
    assert!(host("ALLOW", "*", ""));
}

#[test]
fn trap_52_any_path_excludes_connect() {
    let connect = Ask { target: None, method: Some("CONNECT".to_owned()), ..Ask::get("/") };
    assert!(!http(&to("ALLOW", json!({"paths": ["*"]})), &connect));
}

#[test]
fn trap_53_the_host_header_is_case_sensitive_the_hosts_field_is_not() {
    let ask = Ask { host: Some("Example.com".to_owned()), ..Ask::get("/") };
    assert!(!http(&when("ALLOW", "request.headers[Host]", "values", &["example.com"]), &ask));
    assert!(http(&to("ALLOW", json!({"hosts": ["example.com"]})), &ask));
}
