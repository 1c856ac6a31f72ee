//! The tables of section 4, key by key.

use serde_json::{Value, json};

use crate::ask::{Ask, from, http, to, when};

fn identity(field: &str, value: &str, peer: &str) -> bool {
    http(&from("ALLOW", json!({field: [value]})), &Ask::by(peer))
}

/// Section 4.9.
#[test]
fn row_4_9_identity_forms() {
    let peer = "td/ns/a/sa/b";
    for (field, value, peer, expected) in [
        ("principals", "td/ns/a/sa/b", peer, true),
        ("principals", "td/*", peer, true),
        ("principals", "*/sa/b", peer, true),
        ("principals", "*", peer, true),
        ("principals", "*td/ns/a/sa/b", peer, true),
        ("namespaces", "a", peer, true),
        ("namespaces", "*", peer, true),
        ("namespaces", "a", "td/ns/aa/sa/b", false),
        ("namespaces", "a.", "td/ns/ab/sa/b", false),
        ("namespaces", "a", "td/k/v/ns/a/k/v", true),
        ("namespaces", "a", "td/ns/a", false),
        ("namespaces", "*", "td/workload", false),
        ("namespaces", "a", "ns/a/b", true),
        ("serviceAccounts", "a/b", peer, true),
        ("serviceAccounts", "a/b", "td/ns/a/sa/b-more", false),
        ("serviceAccounts", "a/b", "td/ns/a/sa/b/k/v", true),
        ("serviceAccounts", "a/b", "td/ns/a/k/v/sa/b", true),
        ("serviceAccounts", "a/b", "td/ns/x/ns/a/sa/b", true),
        ("serviceAccounts", "a/b", "td/ns/a/xsa/b", false),
        ("serviceAccounts", "a/b", "td/ns/a/sa/b/", false),
        ("serviceAccounts", "a/b", "ns/a/sa/b", false),
        ("trustDomains", "td", peer, true),
        ("trustDomains", "t", peer, false),
        ("trustDomains", "t*", peer, true),
        ("trustDomains", "*d", peer, true),
        ("trustDomains", "*", peer, true),
        ("trustDomains", "*a", peer, false),
        ("trustDomains", "td*", "td", false),
    ] {
        assert_eq!(identity(field, value, peer), expected, "{field} {value} for {peer}");
    }
}

/// A request that lacks everything: positives are false, negatives true, without exception.
fn missing(positive: &Value, negative: &Value) {
    let bare = Ask { ip: None, remote_ip: None, destination_ip: None, port: None, tcp: true, ..Ask::get("/") };
    assert!(!http(positive, &bare), "{positive}");
    assert!(http(negative, &bare), "{negative}");
}

#[test]
fn row_0_2_missing_source_fields() {
    for (field, negative, value) in [
        ("principals", "notPrincipals", "*"),
        ("namespaces", "notNamespaces", "*"),
        ("serviceAccounts", "notServiceAccounts", "a/b"),
        ("trustDomains", "notTrustDomains", "*"),
        ("ipBlocks", "notIpBlocks", "0.0.0.0/0"),
        ("remoteIpBlocks", "notRemoteIpBlocks", "0.0.0.0/0"),
        ("requestPrincipals", "notRequestPrincipals", "*"),
    ] {
        missing(&from("ALLOW", json!({field: [value]})), &from("ALLOW", json!({negative: [value]})));
    }
}

#[test]
fn row_0_2_missing_operation_fields() {
    for (field, negative, value) in [
        ("hosts", "notHosts", "*"),
        ("ports", "notPorts", "80"),
        ("methods", "notMethods", "*"),
        ("paths", "notPaths", "*"),
        ("paths", "notPaths", "/{**}"),
    ] {
        missing(&to("ALLOW", json!({field: [value]})), &to("ALLOW", json!({negative: [value]})));
    }
}

#[test]
fn row_0_2_missing_condition_keys() {
    for (key, value) in [
        ("source.ip", "0.0.0.0/0"),
        ("remote.ip", "::/0"),
        ("source.namespace", "*"),
        ("source.principal", "*"),
        ("source.serviceAccount", "a/b"),
        ("source.trustDomain", "*"),
        ("destination.ip", "0.0.0.0/0"),
        ("destination.port", "80"),
        ("connection.sni", "*"),
        ("experimental.envoy.filters.x[k]", "*"),
        ("request.headers[x]", "*"),
        ("request.auth.principal", "*"),
        ("request.auth.audiences", "*"),
        ("request.auth.presenter", "*"),
        ("request.auth.claims[c]", "*"),
    ] {
        missing(&when("ALLOW", key, "values", &[value]), &when("ALLOW", key, "notValues", &[value]));
    }
}

/// Section 4.10, every row.
#[test]
fn row_4_10_request_principals() {
    for (value, issuer, subject, expected) in [
        ("*", "i", "s", true),
        ("*", "i", "", false),
        ("*/S", "any", "S", true),
        ("*/S", "", "S", false),
        ("*X/S", "aX", "S", true),
        ("*X/S*", "aX", "S*", true),
        ("*X/S*", "aX", "Sb", false),
        ("*X", "i", "aX", true),
        ("*X", "aX", "s", false),
        ("I/*", "I", "s", true),
        ("I/*", "I", "", false),
        ("I/P*", "I", "Pq", true),
        ("P*", "Pq", "s", true),
        ("P*", "Pq", "", false),
        ("I/S", "I", "S", true),
        ("I", "I", "", true),
        ("I", "I", "s", false),
    ] {
        let policy = from("ALLOW", json!({"requestPrincipals": [value]}));
        let found = http(&policy, &Ask::claiming(json!({"iss": issuer, "sub": subject})));
        assert_eq!(found, expected, "{value} for {issuer} and {subject}");
    }
    let policy = when("ALLOW", "request.auth.principal", "values", &["i"]);
    assert!(!http(&policy, &Ask::claiming(json!({"iss": "i"}))), "the claim must be present");
}

/// Section 4.3.
#[test]
fn row_4_3_paths() {
    let hit = |value: &str, target: &str| http(&to("ALLOW", json!({"paths": [value]})), &Ask::get(target));
    for target in ["/info?x", "/info?", "/./info", "/x/../info", "/inf%6f", "/info#f"] {
        assert!(hit("/info", target), "{target}");
    }
    for target in ["/info/", "/INFO", "//info", "/info;a=b", "/info%2f", "/info%3fx", "/info\\"] {
        assert!(!hit("/info", target), "{target}");
    }
    assert!(!hit("*.txt", "/a?x=.txt") && hit("*.txt", "/a.txt?x"));
    let query = when("ALLOW", "request.headers[:path]", "values", &["*?x"]);
    assert!(http(&query, &Ask::get("/a/../b?x")) && !http(&query, &Ask::get("/b")));
    let normal = when("ALLOW", "request.headers[:path]", "values", &["/b?x"]);
    assert!(http(&normal, &Ask::get("/a/../b?x")), "the pseudo header is normalised as well");
}

/// Sections 4.6 to 4.8 and 4.13.
#[test]
fn row_4_6_methods_pseudo_headers_ports_and_metadata() {
    assert!(!http(&to("ALLOW", json!({"methods": ["get"]})), &Ask::get("/")));
    assert!(http(&when("ALLOW", "request.headers[:method]", "values", &["GET"]), &Ask::get("/")));
    assert!(http(&when("ALLOW", "request.headers[:scheme]", "values", &["http"]), &Ask::get("/")));
    assert!(http(&to("ALLOW", json!({"ports": ["0080"]})), &Ask::get("/")));
    assert!(!http(&to("ALLOW", json!({"notPorts": ["80"]})), &Ask::get("/")));
    assert!(http(&when("ALLOW", "destination.ip", "values", &["10.0.0.9"]), &Ask::get("/")));
    let metadata = Ask { metadata: Some(json!({"envoy.filters.a.b": {"k": ["v"]}})), ..Ask::get("/") };
    let key = "experimental.envoy.filters.a.b[k]";
    assert!(http(&when("ALLOW", key, "values", &["[v]"]), &metadata));
    assert!(!http(&when("ALLOW", key, "values", &["v"]), &metadata));
    assert!(http(&when("ALLOW", key, "notValues", &["v"]), &metadata));
}

/// Section 4.11: both are lists of strings or strings.
#[test]
fn row_4_11_audiences_and_presenter() {
    let token = Ask::claiming(json!({"aud": ["a", "b"], "azp": "client"}));
    assert!(http(&when("ALLOW", "request.auth.audiences", "values", &["b"]), &token));
    assert!(http(&when("ALLOW", "request.auth.presenter", "values", &["cl*"]), &token));
    assert!(!http(&when("ALLOW", "request.auth.audiences", "notValues", &["a"]), &token));
}
