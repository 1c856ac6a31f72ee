//! The traps of non-HTTP traffic, and the tables of sections 5.1 (Envoy's TCP filter) and 5.2 (ztunnel).

use crate::ask::{Ask, evaluate, from, http, l4, tcp, to, when};
use palisade_authz::Semantics;
use serde_json::{Value, json};

#[test]
fn trap_33_one_http_alternative_drops_the_whole_allow_rule_on_tcp() {
    let policy = json!({"rules": [{"to": [{"operation": {"ports": ["80"]}}, {"operation": {"methods": ["GET"]}}]}]});
    assert!(!tcp(&policy, &Ask::tcp(80)));
    assert!(http(&policy, &Ask::get("/")));
}

#[test]
fn trap_34_an_http_deny_denies_every_tcp_port() {
    assert!(!tcp(&to("DENY", json!({"methods": ["GET"]})), &Ask::tcp(9000)));
}

#[test]
fn trap_35_an_http_alternative_widens_a_deny_to_any_port() {
    let policy = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["1"]}}, {"operation": {"methods": ["GET"]}}]}]});
    assert!(!tcp(&policy, &Ask::tcp(9000)));
    assert!(tcp(&to("DENY", json!({"ports": ["1"]})), &Ask::tcp(9000)));
}

#[test]
fn trap_36_remote_ip_blocks_count_on_tcp_and_silence_ztunnel() {
    let policy = from("DENY", json!({"remoteIpBlocks": ["10.0.0.0/8"]}));
    assert!(!tcp(&policy, &Ask::tcp(9000)));
    assert!(l4(&policy, &Ask::tcp(9000)));
}

#[test]
fn trap_37_an_http_deny_does_nothing_in_ztunnel() {
    assert!(l4(&to("DENY", json!({"methods": ["GET"]})), &Ask::get("/")));
}

#[test]
fn trap_38_trust_domains_beside_principals_are_ignored_in_ztunnel() {
    let policy = from("ALLOW", json!({"principals": ["*"], "trustDomains": ["td2"]}));
    assert!(l4(&policy, &Ask { principal: Some("td1/ns/a/sa/b".into()), ..Ask::tcp(1) }));
    assert!(!tcp(&policy, &Ask { principal: Some("td1/ns/a/sa/b".into()), ..Ask::tcp(1) }));
    let alone = from("ALLOW", json!({"trustDomains": ["td1"]}));
    assert!(!l4(&alone, &Ask { principal: Some("td1/ns/a/sa/b".into()), ..Ask::tcp(1) }));
    assert!(l4(&from("DENY", json!({"trustDomains": ["td1"]})), &Ask::by("td1/ns/a/sa/b")));
}

#[test]
fn trap_54_an_empty_selector_applies_to_nothing_in_ztunnel() {
    let policy = json!({"action": "DENY", "selector": {}, "rules": [{}]});
    assert!(!tcp(&policy, &Ask::tcp(1)));
    assert!(l4(&policy, &Ask::tcp(1)));
}

/// Section 5.1. The TCP connection is to port 80 from namespace `a`.
#[test]
fn table_5_1_envoy_tcp() {
    let l4_only = json!({"to": [{"operation": {"ports": ["80"]}}]});
    let http_only = json!({"to": [{"operation": {"methods": ["GET"]}}]});
    let mixed_hit = json!({"to": [{"operation": {"ports": ["80"], "methods": ["GET"]}}]});
    let mixed_miss = json!({"to": [{"operation": {"ports": ["81"], "methods": ["GET"]}}]});
    let sides = json!({"from": [{"source": {"namespaces": ["other"]}}, {"source": {"requestPrincipals": ["*"]}}]});
    let not_http = json!({"to": [{"operation": {"notPaths": ["/x"]}}]});
    let when_http = json!({"when": [{"key": "request.headers[x]", "notValues": ["a"]}]});
    let sni = json!({"when": [{"key": "connection.sni", "values": ["*"]}]});
    let metadata = json!({"when": [{"key": "experimental.envoy.filters.x[k]", "values": ["v"]}]});
    let unknown = json!({"when": [{"key": "no.such.key", "values": ["v"]}]});
    // (rule, an ALLOW of it passes, a DENY of it passes)
    let rows: &[(&Value, bool, bool)] = &[
        (&l4_only, true, false),
        (&http_only, false, false),
        (&mixed_hit, false, false),
        (&mixed_miss, false, true),
        (&sides, false, false),
        (&not_http, false, false),
        (&when_http, false, false),
        (&sni, true, false),
        (&metadata, true, false),
        (&json!({}), true, false),
        (&unknown, false, true),
    ];
    let ask = Ask {
        principal: Some("td/ns/a/sa/b".into()),
        sni: Some("x".into()),
        metadata: Some(json!({"envoy.filters.x": {"k": "v"}})),
        ..Ask::tcp(80)
    };
    for (rule, allow, deny) in rows {
        assert_eq!(tcp(&json!({"rules": [rule]}), &ask), *allow, "ALLOW {rule}");
        assert_eq!(tcp(&json!({"action": "DENY", "rules": [rule]}), &ask), *deny, "DENY {rule}");
    }
}

#[test]
fn unrelated_allow_rules_of_the_same_policy_survive_on_tcp() {
    let policy =
        json!({"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}, {"to": [{"operation": {"ports": ["80"]}}]}]});
    assert!(tcp(&policy, &Ask::tcp(80)) && l4(&policy, &Ask::tcp(80)));
    assert!(!tcp(&policy, &Ask::tcp(81)) && !l4(&policy, &Ask::tcp(81)));
}

/// Section 5.2. The connection is to port 80 from `td/ns/a/sa/b`.
#[test]
fn table_5_2_ztunnel() {
    let with_http = json!({"from": [{"source": {"namespaces": ["a"]}}], "to": [{"operation": {"methods": ["GET"]}}]});
    let remainder = json!({
        "from": [{"source": {"principals": ["td/ns/a/sa/b"], "requestPrincipals": ["*"]}}],
        "to": [{"operation": {"ports": ["80"], "methods": ["POST"]}}]});
    let one_empty = json!({"to": [{"operation": {"methods": ["GET"]}}, {"operation": {"ports": ["80"]}}]});
    let when_l7 = json!({"when": [{"key": "source.serviceAccount", "values": ["a/b"]}]});
    let when_sni = json!({"when": [{"key": "connection.sni", "notValues": ["x"]}]});
    let port = json!({"when": [{"key": "destination.port", "values": ["80"]}]});
    let rows: &[(&Value, bool, bool)] = &[
        (&json!({}), true, false),
        (&with_http, false, true),
        (&remainder, false, false),
        (&one_empty, false, false),
        (&when_l7, false, true),
        (&when_sni, false, true),
        (&port, true, false),
    ];
    let ask = Ask { principal: Some("td/ns/a/sa/b".into()), ..Ask::tcp(80) };
    for (rule, allow, deny) in rows {
        assert_eq!(l4(&json!({"rules": [rule]}), &ask), *allow, "ALLOW {rule}");
        assert_eq!(l4(&json!({"action": "DENY", "rules": [rule]}), &ask), *deny, "DENY {rule}");
    }
    assert!(!l4(&json!({}), &ask) && l4(&json!({"action": "DENY"}), &ask));
}

/// Section 5.3.
#[test]
fn ztunnel_matchers() {
    let five = "td/ns/a/sa/b";
    let extended = "td/ns/a/sa/b/extra";
    let allowed = |source: Value, who: Option<&str>| {
        let ask = Ask { principal: who.map(str::to_owned), ..Ask::tcp(80) };
        l4(&from("ALLOW", source), &ask)
    };
    for source in [
        json!({"principals": ["*"]}),
        json!({"principals": [five]}),
        json!({"principals": ["td/*"]}),
        json!({"principals": ["*/sa/b"]}),
        json!({"namespaces": ["a"]}),
        json!({"serviceAccounts": ["a/b"]}),
        json!({"notNamespaces": ["b"]}),
    ] {
        assert!(allowed(source.clone(), Some(five)), "{source}");
    }
    assert!(!allowed(json!({"principals": ["*"]}), Some(extended)), "not five parts: no identity");
    assert!(!allowed(json!({"namespaces": ["*"]}), None));
    assert!(allowed(json!({"notPrincipals": ["*"]}), None));
    assert!(!allowed(json!({"namespaces": ["x*y"]}), Some("td/ns/xzy/sa/b")), "a middle star is literal");
    assert!(!allowed(json!({"serviceAccounts": ["b"]}), Some(five)), "bare accounts are of the policy's namespace");
    assert!(allowed(json!({"serviceAccounts": ["b"]}), Some("td/ns/foo/sa/b")));
}

#[test]
fn no_trust_domain_aliases_in_ztunnel() {
    let mesh = palisade_policies::MeshConfig {
        trust_domain_aliases: vec!["old".to_owned()],
        ..palisade_policies::MeshConfig::default()
    };
    let policy = from("ALLOW", json!({"principals": ["cluster.local/ns/a/sa/b"]}));
    let ask = Ask { principal: Some("old/ns/a/sa/b".into()), ..Ask::tcp(1) };
    let outcome = |semantics| crate::ask::evaluate_in(&mesh, &policy, semantics, &ask).outcome;
    assert_eq!(outcome(Semantics::Tcp), palisade_authz::Outcome::Allow);
    assert_eq!(outcome(Semantics::L4), palisade_authz::Outcome::Deny);
}

#[test]
fn audit_and_custom_never_reach_ztunnel() {
    for action in ["AUDIT", "CUSTOM"] {
        let found = evaluate(&json!({"action": action, "rules": [{}]}), Semantics::L4, &Ask::tcp(1));
        assert!(!found.audited && found.outcome == palisade_authz::Outcome::Allow);
    }
    assert!(l4(&when("DENY", "source.ip", "values", &["1.2.3.4"]), &Ask::tcp(1)));
}
