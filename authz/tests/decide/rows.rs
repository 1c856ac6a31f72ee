//! Rows of the reference's sections 3, 4 and 6 that were executed on a real Envoy, by their section.

use palisade_authz::{Outcome, Semantics, remote_ip_behind};
use palisade_policies::{MeshConfig, PathNormalization};
use serde_json::{Value, json};

use crate::ask::{Ask, evaluate, evaluate_in, from, http, l4, tcp, to, when};

fn path(value: &str, target: &str) -> bool {
    http(&to("ALLOW", json!({"paths": [value]})), &Ask::get(target))
}

fn header(name: &str, side: &str, value: &str, headers: &[(&str, &str)]) -> bool {
    http(&when("ALLOW", &format!("request.headers[{name}]"), side, &[value]), &Ask::with(headers))
}

fn peer(field: &str, value: &str, principal: &str) -> bool {
    http(&from("ALLOW", json!({field: [value]})), &Ask::by(principal))
}

fn claim(key: &str, side: &str, value: &str, claims: Value) -> bool {
    http(&when("ALLOW", &format!("request.auth.claims{key}"), side, &[value]), &Ask::claiming(claims))
}

#[test]
fn row_3_2_empty_forms() {
    for (spec, passes) in [
        (json!({}), false),
        (json!({"rules": []}), false),
        (json!({"rules": [{}]}), true),
        (json!({"action": "DENY", "rules": [{}]}), false),
        (json!({"action": "DENY", "rules": []}), true),
        (json!({"action": "AUDIT", "rules": []}), true),
    ] {
        assert_eq!(http(&spec, &Ask::get("/")), passes, "{spec}");
    }
    assert!(!tcp(&to("ALLOW", json!({"methods": ["GET"]})), &Ask::tcp(80)), "every ALLOW rule dropped");
    assert!(tcp(&when("DENY", "no.such.key", "values", &["x"]), &Ask::tcp(80)), "every DENY rule dropped");
}

#[test]
fn row_3_3_only_dry_run_allows_deny_nobody_and_shadows_speak_for_their_action() {
    let dry = |action: &str, port: &str| json!({"action": action, "dryRun": true, "name": action, "rules": [{"to": [{"operation": {"ports": [port]}}]}]});
    let found = evaluate(&json!([dry("ALLOW", "1"), dry("DENY", "1")]), Semantics::Http, &Ask::get("/"));
    assert_eq!(found.outcome, Outcome::Allow);
    let (allow, deny) = (found.shadow.allow.unwrap(), found.shadow.deny.unwrap());
    assert_eq!((allow.as_str(), allow.policy), ("denied", None), "ALLOW without a match says denied, without an id");
    assert_eq!((deny.as_str(), deny.policy), ("allowed", None));
    let found = evaluate(&json!([dry("ALLOW", "80"), dry("DENY", "80")]), Semantics::Http, &Ask::get("/"));
    assert_eq!(found.shadow.allow.unwrap().as_str(), "allowed");
    assert_eq!(found.shadow.deny.unwrap().as_str(), "denied");
}

#[test]
fn row_4_1_string_forms() {
    for (value, target, expected) in [
        ("/a*b", "/a*b", true),
        ("/a*b", "/axb", false),
        ("**foo", "/x*foo", true),
        ("**foo", "/xfoo", false),
        ("/foo**", "/foo*bar", true),
        ("/foo**", "/foobar", false),
        ("/A", "/a", false),
        ("*", "/", true),
    ] {
        assert_eq!(path(value, target), expected, "{value} {target}");
    }
}

#[test]
fn row_4_2_presence_of_what_is_empty() {
    let empty_host = Ask { host: Some(String::new()), ..Ask::get("/") };
    assert!(http(&to("ALLOW", json!({"hosts": ["*"]})), &empty_host));
    assert!(header("x", "values", "*", &[("x", "")]) && !header("x", "values", "*", &[]));
    assert!(!claim("[c]", "values", "*", json!({"c": ""})) && !claim("[c]", "values", "*", json!({})));
    assert!(claim("[c]", "values", "*", json!({"c": ["", "x"]})));
    let requester = from("ALLOW", json!({"requestPrincipals": ["*"]}));
    assert!(!http(&requester, &Ask::claiming(json!({"iss": "", "sub": "s"}))));
    assert!(!http(&requester, &Ask::claiming(json!({"iss": "i", "sub": ""}))));
    assert!(!http(&when("ALLOW", "connection.sni", "values", &["*"]), &Ask::get("/")));
}

#[test]
fn row_4_2_presence_of_identities() {
    assert!(peer("principals", "*", "td/x") && !http(&from("ALLOW", json!({"principals": ["*"]})), &Ask::get("/")));
    assert!(peer("namespaces", "*", "td/ns/a/sa/b") && !peer("namespaces", "*", "td/x"));
    assert!(peer("trustDomains", "*", "td/x"));
}

#[test]
fn row_4_3_paths_see_no_query_and_connect_has_none() {
    assert!(path("/info", "/info?x") && !path("*.txt", "/a?x=.txt"));
    let connect = Ask { target: None, method: Some("CONNECT".to_owned()), ..Ask::get("/") };
    for (policy, passes) in [
        (to("ALLOW", json!({"paths": ["*"]})), false),
        (to("ALLOW", json!({"notPaths": ["/x"]})), true),
        (to("DENY", json!({"notPaths": ["/x"]})), false),
        (to("ALLOW", json!({"paths": ["/{**}"]})), false),
    ] {
        assert_eq!(http(&policy, &connect), passes, "{policy}");
    }
}

#[test]
fn row_4_4_templates_on_normalised_paths() {
    for (template, target, expected) in [
        ("/admin/{*}", "/admin/a[b]", false),
        ("/admin/{*}", "/admin/a\"b", true),
        ("/admin/{*}", "/admin/a<b>", true),
        ("/foo/{*}", "/foo/bar", true),
        ("/foo/{*}", "/foo/", false),
        ("/foo/{*}", "/foo/bar/", false),
        ("/foo/{**}", "/foo//", true),
        ("/foo/{**}", "/foo", false),
        ("/{**}", "/", true),
        ("/{*}", "/", false),
        ("/foo/{**}/", "/foo/bar/", true),
        ("/foo/{**}/", "/foo/bar", false),
        ("/store/{**}/cart", "/store//cart", true),
        ("/store/{**}/cart", "/store/cart", false),
        ("/foo/{*}/bar/{**}", "/foo//bar/x", false),
    ] {
        assert_eq!(path(template, target), expected, "{template} {target}");
    }
    let off = MeshConfig { path_normalization: PathNormalization::None, ..MeshConfig::default() };
    let policy = to("ALLOW", json!({"paths": ["/admin/{*}"]}));
    let raw = evaluate_in(&off, &policy, Semantics::Http, &Ask::get("/admin/a\"b"));
    assert_eq!(raw.outcome, Outcome::Deny, "not encoded, not in the class");
}

#[test]
fn row_4_5_hosts() {
    for (value, host, expected) in [
        ("example.com", "EXAMPLE.com", true),
        ("EXAMPLE.com", "example.com", true),
        ("example.com", "example.com:80", false),
        ("example.com", "example.com.", false),
        ("example.com*", "example.com.evil.org", true),
        ("*.example.com", "example.com", false),
        ("*.EXAMPLE.com", "a.example.COM", true),
        ("*.example.com", "a.example.com:80", false),
        ("*.example.com", ".example.com", true),
        ("example.com:*", "example.com:80", true),
    ] {
        let ask = Ask { host: Some(host.to_owned()), ..Ask::get("/") };
        assert_eq!(http(&to("ALLOW", json!({"hosts": [value]})), &ask), expected, "{value} {host}");
    }
}

#[test]
fn row_4_7_header_names_ignore_case_and_values_do_not() {
    assert!(header("X-Foo", "values", "a", &[("x-foo", "a")]) && header("x-foo", "values", "a", &[("X-FOO", "a")]));
    assert!(!header("x-foo", "values", "A", &[("x-foo", "a")]));
    assert!(header(":method", "values", "GET", &[]) && header(":authority", "values", "foo.example", &[]));
    assert!(header(":path", "values", "/", &[]) && header(":scheme", "values", "http", &[]));
    assert!(!header("Host", "values", "FOO.example", &[]) && header("Host", "values", "foo.example", &[]));
}

#[test]
fn row_4_7_inline_headers_are_joined() {
    for name in [
        "accept",
        "authorization",
        "user-agent",
        "origin",
        "content-type",
        "x-forwarded-for",
        "x-request-id",
        "referer",
        "accept-encoding",
        "cache-control",
        "if-match",
        "if-none-match",
        "x-forwarded-host",
        "grpc-timeout",
        "via",
        "pragma",
        "access-control-request-method",
        "access-control-request-headers",
    ] {
        let both = [(name, "a"), (name, "b")];
        assert!(header(name, "values", "a,b", &both) && !header(name, "values", "a", &both), "{name}");
        assert!(palisade_authz::is_joined_header(name));
    }
}

#[test]
fn row_4_7_other_headers_are_matched_one_by_one() {
    for name in ["cookie", "accept-language", "range", "date", "from", "forwarded", "traceparent", "x-foo"] {
        let both = [(name, "a"), (name, "b")];
        assert!(header(name, "values", "a", &both) && !header(name, "values", "a,b", &both), "{name}");
        assert!(!header(name, "notValues", "b", &both), "one instance is enough for the negative to fail");
        let one = [(name, "a,b")];
        assert!(header(name, "values", "a,b", &one) && !header(name, "values", "a", &one), "{name}");
    }
}

#[test]
fn row_4_7_present_but_empty() {
    for value in ["a", "a*", "*a"] {
        assert!(!header("x", "values", value, &[("x", "")]), "{value}");
    }
    assert!(header("x", "values", "*", &[("x", "")]) && !header("x", "notValues", "*", &[("x", "")]));
}

fn block(field: &str, value: &str, ip: &str) -> bool {
    let ask = Ask { ip: ip.parse().ok(), remote_ip: ip.parse().ok(), ..Ask::get("/") };
    http(&from("ALLOW", json!({field: [value]})), &ask)
}

#[test]
fn row_4_8_address_blocks() {
    for (value, ip, expected) in [
        ("127.9.9.9/8", "127.0.0.1", true),
        ("10.0.0.7", "10.0.0.7", true),
        ("10.0.0.7", "10.0.0.8", false),
        ("::/0", "10.0.0.7", false),
        ("0.0.0.0/0", "::1", false),
        ("::ffff:127.0.0.1", "127.0.0.1", false),
        ("2001:db8::1", "2001:db8::1", true),
        ("2001:db8::/32", "2001:db8:1::1", true),
        ("fe80::1%eth0", "fe80::1", true),
    ] {
        for field in ["ipBlocks", "remoteIpBlocks"] {
            assert_eq!(block(field, value, ip), expected, "{field} {value} {ip}");
        }
    }
}

#[test]
fn row_4_8_remote_addresses_behind_a_gateway() {
    let peer = "10.0.0.1".parse().ok();
    for (hops, forwarded, expected) in [
        (0, &["1.2.3.4"][..], "10.0.0.1"),
        (1, &["1.2.3.4"], "1.2.3.4"),
        (1, &["1.2.3.4, 5.6.7.8"], "5.6.7.8"),
        (2, &["1.2.3.4, 5.6.7.8"], "1.2.3.4"),
        (2, &["1.2.3.4", "5.6.7.8"], "1.2.3.4"),
        (2, &["1.2.3.4", "", "5.6.7.8"], "1.2.3.4"),
        (3, &["1.2.3.4, 5.6.7.8"], "10.0.0.1"),
        (1, &["1.2.3.4:80"], "10.0.0.1"),
        (1, &["[::1]"], "10.0.0.1"),
        (2, &["nonsense, 5.6.7.8"], "10.0.0.1"),
        (2, &["2001:DB8:0::1,5.6.7.8"], "2001:db8::1"),
        (1, &[""], "10.0.0.1"),
        (1, &[], "10.0.0.1"),
    ] {
        let headers: Vec<_> = forwarded.iter().map(|value| ("x-forwarded-for", *value)).collect();
        assert_eq!(remote_ip_behind(hops, peer, &headers), expected.parse().ok(), "{hops} {forwarded:?}");
    }
}

#[test]
fn trap_40_a_forwarded_list_shorter_than_the_trusted_hops_is_not_believed() {
    let policy = from("ALLOW", json!({"remoteIpBlocks": ["1.2.3.4"]}));
    for (forwarded, passes) in [("1.2.3.4", false), ("1.2.3.4, 9.9.9.9", true)] {
        let headers = vec![("x-forwarded-for", forwarded)];
        let ask = Ask { remote_ip: remote_ip_behind(2, "10.0.0.7".parse().ok(), &headers), ..Ask::get("/") };
        assert_eq!(http(&policy, &ask), passes, "{forwarded}");
    }
}

#[test]
fn row_4_9_identities() {
    let id = "td/ns/a/sa/b";
    assert!(!peer("principals", "spiffe://td/ns/a/sa/b", id) && peer("principals", id, id));
    assert!(peer("namespaces", "n*1", "td/ns/nx1/sa/s") && !peer("namespaces", "n.1", "td/ns/nx1/sa/s"));
    assert!(peer("namespaces", "a", "td/k/v/ns/a/k/v"), "extra pairs are tolerated");
    assert!(peer("serviceAccounts", "a/b", "td/ns/a/k/v/sa/b/x/y"));
    assert!(!peer("serviceAccounts", "b", id), "the policy is in another namespace");
    assert!(!peer("trustDomains", "*a", id), "wildcards do not cross slashes");
    assert!(!http(&from("DENY", json!({"notPrincipals": ["*"]})), &Ask::get("/")), "deny plaintext");
}

#[test]
fn row_4_11_claims() {
    for odd in [json!(true), json!(1), json!(null), json!({"a": "x"}), json!([["x"]])] {
        assert!(!claim("[c]", "values", "*", json!({"c": odd})), "{odd}");
        assert!(claim("[c]", "notValues", "*", json!({"c": odd})), "{odd}");
    }
    assert!(claim("[a][b]", "values", "x", json!({"a": {"b": ["y", "x"]}})));
    assert!(
        claim("[a.b]", "values", "x", json!({"a.b": "x"})) && !claim("[a.b]", "values", "x", json!({"a": {"b": "x"}}))
    );
    assert!(!claim("[l][0]", "values", "x", json!({"l": ["x"]})));
    for name in ["scope", "permission"] {
        let claims = json!({name: "read write"});
        assert!(claim(&format!("[{name}]"), "values", "read", claims.clone()));
        assert!(!claim(&format!("[{name}]"), "values", "read write", claims));
    }
    assert!(claim("[other]", "values", "read write", json!({"other": "read write"})));
    assert!(!http(&when("ALLOW", "request.auth.claims[c]", "values", &["*"]), &Ask::get("/")), "no token");
    assert!(http(&when("ALLOW", "request.auth.claims[c]", "notValues", &["*"]), &Ask::get("/")));
}

#[test]
fn row_4_13_metadata_of_filters() {
    let ask = |value: Value| Ask { metadata: Some(json!({"envoy.filters.x": {"k": value}})), ..Ask::tcp(80) };
    let key = "experimental.envoy.filters.x[k]";
    let string = when("ALLOW", key, "values", &["v"]);
    let list = when("ALLOW", key, "values", &["[v]"]);
    assert!(tcp(&string, &ask(json!("v"))) && !tcp(&string, &ask(json!(["v"]))));
    assert!(tcp(&list, &ask(json!(["a", "v"]))) && !tcp(&list, &ask(json!("v"))));
    assert!(tcp(&when("ALLOW", key, "notValues", &["v"]), &Ask::tcp(80)));
    assert!(!l4(&string, &ask(json!("v"))), "not understood by ztunnel");
}

fn in_domain(domain: &str, aliases: &[&str], policy: &Value, caller: &str) -> bool {
    let mesh = MeshConfig {
        trust_domain: palisade_identity::TrustDomain::parse(domain).unwrap(),
        trust_domain_aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        ..MeshConfig::default()
    };
    evaluate_in(&mesh, policy, Semantics::Http, &Ask::by(caller)).outcome == Outcome::Allow
}

#[test]
fn row_6_trust_domains() {
    let principals = |value: &str| from("ALLOW", json!({"principals": [value]}));
    for (aliases, value, caller, expected) in [
        (&[][..], "cluster.local/ns/a/sa/b", "cluster.local/ns/a/sa/b", false),
        (&[], "cluster.local/ns/a/sa/b", "new/ns/a/sa/b", true),
        (&[], "cluster.local/ns/a/*", "cluster.local/ns/a/sa/b", true),
        (&[], "cluster.local/ns/a/*", "new/ns/a/sa/b", false),
        (&[], "cluster.local/ns/a/sa/*", "new/ns/a/sa/b", true),
        (&["old"], "old/ns/a/sa/b", "new/ns/a/sa/b", true),
        (&["old"], "new/ns/a/sa/b", "old/ns/a/sa/b", true),
        (&["old"], "other/ns/a/sa/b", "old/ns/a/sa/b", false),
        (&["old"], "*/ns/a/sa/b", "other/ns/a/sa/b", true),
    ] {
        assert_eq!(in_domain("new", aliases, &principals(value), caller), expected, "{aliases:?} {value} {caller}");
    }
    let domain = |value: &str| from("ALLOW", json!({"trustDomains": [value]}));
    assert!(in_domain("new", &["old"], &domain("new"), "old/x") && in_domain("new", &["old"], &domain("old"), "new/x"));
    assert!(!in_domain("new", &["old"], &domain("cluster.local"), "new/x"), "no pseudonym here");
    let namespace = from("ALLOW", json!({"namespaces": ["a"], "serviceAccounts": []}));
    assert!(in_domain("new", &[], &namespace, "other/ns/a/sa/b"), "namespaces ignore the domain");
}
