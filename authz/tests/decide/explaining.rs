//! Explanations: every phase, all rules that match, and of those that do not what they miss.

use palisade_authz::{Attribute, Explanation, Failed, Known, PhaseReport, PolicyRef, Semantics};
use palisade_policies::MeshConfig;
use serde_json::{Value, json};

use crate::ask::{Ask, from, to, when};
use crate::large::compile;

fn explain_with(policies: &[Value], ask: &Ask, known: Known) -> Explanation {
    let set = compile(policies, &MeshConfig::default(), Semantics::Http);
    ask.view(&MeshConfig::default(), |request| set.explain(request, known))
}

fn explain(policies: &[Value], ask: &Ask) -> Explanation {
    explain_with(policies, ask, Known::ALL)
}

fn phase<'a>(explanation: &'a Explanation, name: &str) -> &'a PhaseReport {
    explanation.phases.iter().find(|report| report.phase == name).unwrap()
}

fn ids(policies: &[PolicyRef]) -> Vec<&str> {
    policies.iter().map(PolicyRef::id).collect()
}

/// Field, expected and actual of the one clause that fails in the one rule of an ALLOW policy.
fn failed(policy: Value, ask: &Ask) -> (String, String, String) {
    let explanation = explain(&[policy], ask);
    let near = &phase(&explanation, "allow").nearest;
    assert_eq!(near.iter().map(|near| near.failed.len()).collect::<Vec<_>>(), [1], "{explanation:?}");
    let Failed { field, expected, actual } = near.first().and_then(|near| near.failed.first()).unwrap();
    (field.clone(), expected.clone(), actual.clone())
}

#[test]
fn every_phase_is_reported_in_order_with_all_that_matches() {
    let any =
        |action: &str, name: &str, dry: bool| json!({"action": action, "name": name, "dryRun": dry, "rules": [{}, {}]});
    let all = [
        any("ALLOW", "b", false),
        any("ALLOW", "a", false),
        any("DENY", "s", true),
        json!({"action": "AUDIT", "name": "u"}),
        any("CUSTOM", "c", false),
    ];
    let found = explain(&all, &Ask::get("/"));
    let names: Vec<_> = found.phases.iter().map(|report| report.phase).collect();
    assert_eq!(names, ["custom", "audit", "deny", "allow", "shadow-deny", "shadow-allow"]);
    let summary: Vec<_> =
        found.phases.iter().map(|one| (one.attached, one.rules, one.result, one.matched.len())).collect();
    assert_eq!(
        summary,
        [
            (true, 2, Some(true), 2),
            (true, 0, Some(false), 0),
            (false, 0, Some(false), 0),
            (true, 4, Some(true), 4),
            (true, 2, Some(true), 2),
            (false, 0, Some(false), 0),
        ]
    );
    let first = ["ns[foo]-policy[a]-rule[0]", "ns[foo]-policy[a]-rule[1]"];
    assert_eq!(ids(&phase(&found, "allow").matched)[..2], first);
    assert!(found.phases.iter().all(|one| one.nearest.is_empty()), "something matches, or there is nothing");
}

#[test]
fn the_nearest_rules_come_first() {
    let rule = |name: &str, method: &str, path: &str, port: &str| json!({"name": name, "rules": [{"to": [{"operation": {"methods": [method], "paths": [path], "ports": [port]}}]}]});
    let mut all = vec![
        rule("d", "PUT", "/b", "81"),
        rule("c", "GET", "/a", "81"),
        rule("b", "PUT", "/a", "80"),
        rule("a", "PUT", "/a", "81"),
        json!({"name": "e", "rules": [{"to": [{"operation": {"methods": ["PUT"]}}]}]}),
    ];
    all.extend((0..4).map(|number| rule(&format!("z{number}"), "PUT", "/b", "82")));
    let found = explain(&all, &Ask::get("/a"));
    let near = &phase(&found, "allow").nearest;
    let summary: Vec<_> = near.iter().map(|near| (near.policy.name(), near.held, near.failed.len())).collect();
    assert_eq!(summary, [("b", 2, 1), ("c", 2, 1), ("a", 1, 2), ("e", 0, 1), ("d", 0, 3)]);
    assert_eq!(near[0].failed[0].field, "to[0].operation.methods");
}

#[test]
fn of_alternatives_the_best_one_is_explained() {
    let policy = json!({"rules": [{
        "from": [{"source": {"namespaces": ["x"], "ipBlocks": ["1.1.1.1"]}}, {"source": {"namespaces": ["a"], "ipBlocks": ["1.1.1.1"]}}],
        "to": [{"operation": {"methods": ["GET"]}}, {"operation": {"methods": ["PUT"], "ports": ["81"]}}]}]});
    let found = explain(&[policy], &Ask::by("td/ns/a/sa/b"));
    let near = &phase(&found, "allow").nearest[0];
    assert_eq!(near.held, 2, "the namespace and the method");
    let fields: Vec<_> =
        near.failed.iter().map(|failed| (&*failed.field, &*failed.expected, &*failed.actual)).collect();
    assert_eq!(fields, [("from[1].source.ipBlocks", "`1.1.1.1`", "`10.0.0.7`")]);
}

/// Policies with one clause that fails, and field, expected and actual of it.
fn check(rows: Vec<(Value, Ask, &str, &str, &str)>) {
    for (policy, ask, field, expected, actual) in rows {
        assert_eq!(failed(policy, &ask), (field.to_owned(), expected.to_owned(), actual.to_owned()));
    }
}

#[test]
fn operations_are_shown_as_they_were_written() {
    let row = |field: &str, values: Value| to("ALLOW", json!({field: values}));
    let get = Ask::get("/a?q");
    check(vec![
        (
            row("paths", json!(["/b*", "/c", "/d/{*}"])),
            get.clone(),
            "to[0].operation.paths",
            "`/b*`, `/c` or `/d/{*}`",
            "`/a`",
        ),
        (row("notMethods", json!(["GET"])), get.clone(), "to[0].operation.notMethods", "none of `GET`", "`GET`"),
        (row("hosts", json!(["Shop.x"])), get.clone(), "to[0].operation.hosts", "`Shop.x`", "`foo.example`"),
        (row("ports", json!(["081"])), get, "to[0].operation.ports", "`081`", "`80`"),
    ]);
    let many: Vec<String> = (0..10).map(|number| format!("/{number}")).collect();
    let (_, expected, _) = failed(to("ALLOW", json!({"paths": many})), &Ask::get("/a"));
    assert_eq!(expected, "`/0`, `/1`, `/2`, `/3`, `/4`, `/5`, `/6`, `/7` or 2 more");
}

#[test]
fn sources_are_shown_as_they_were_written() {
    let row = |field: &str, value: &str| from("ALLOW", json!({field: [value]}));
    let (plain, peer, id) = (Ask::get("/"), Ask::by("td/ns/a/sa/b"), "`td/ns/a/sa/b`");
    let token = Ask::claiming(json!({"iss": "i", "sub": "s"}));
    check(vec![
        (row("principals", "x"), plain.clone(), "from[0].source.principals", "`x`", "(missing)"),
        (row("notPrincipals", "*"), peer.clone(), "from[0].source.notPrincipals", "none of `*`", id),
        (row("serviceAccounts", "b"), peer.clone(), "from[0].source.serviceAccounts", "`b`", id),
        (row("trustDomains", "x"), peer, "from[0].source.trustDomains", "`x`", id),
        (row("remoteIpBlocks", "::/0"), plain.clone(), "from[0].source.remoteIpBlocks", "`::/0`", "`10.0.0.7`"),
        (row("requestPrincipals", "*"), plain, "from[0].source.requestPrincipals", "`*`", "(missing)"),
        (row("requestPrincipals", "i/t"), token, "from[0].source.requestPrincipals", "`i/t`", "`i/s`"),
    ]);
}

#[test]
fn conditions_are_shown_with_their_key() {
    let (sni, ip, claim) = ("connection.sni", "destination.ip", "request.auth.claims[g]");
    let plain = Ask::get("/");
    let token = Ask::claiming(json!({"g": ["b", 1]}));
    let not_ip = when("ALLOW", ip, "notValues", &["10.0.0.9"]);
    check(vec![
        (when("ALLOW", sni, "values", &["a"]), plain.clone(), "when[0].values", "`a` for connection.sni", "(missing)"),
        (not_ip, plain, "when[0].notValues", "none of `10.0.0.9` for destination.ip", "`10.0.0.9`"),
        (
            when("ALLOW", claim, "values", &["a"]),
            token,
            "when[0].values",
            "`a` for request.auth.claims[g]",
            "`[\"b\",1]`",
        ),
    ]);
}

#[test]
fn headers_are_shown_as_policies_see_them_and_credentials_never() {
    let header = |name: &str, headers: &[(&str, &str)]| {
        failed(when("ALLOW", &format!("request.headers[{name}]"), "values", &["no"]), &Ask::with(headers)).2
    };
    assert_eq!(header("x-a", &[]), "(missing)");
    assert_eq!(header("X-A", &[("x-a", "1"), ("X-a", "2")]), "`1`, `2`");
    assert_eq!(header("accept", &[("accept", "1"), ("accept", ""), ("accept", "2")]), "`1,2`");
    assert_eq!(header("x-a", &[("x-a", "")]), "``");
    for name in ["authorization", "Cookie", "proxy-authorization"] {
        assert_eq!(header(name, &[(name, "secret")]), "(not shown)");
        assert_eq!(header(name, &[]), "(missing)");
    }
    assert_eq!(header(":method", &[]), "`GET`");
    assert_eq!(header(":scheme", &[]), "`http`");
    assert_eq!(header("host", &[]), "`foo.example`");
    let target = |target: &str| failed(when("ALLOW", "request.headers[:path]", "values", &["no"]), &Ask::get(target)).2;
    assert_eq!(target("/a"), "`/a`");
    assert_eq!(target("/a?access_token=secret"), "`/a?` with a query (not shown)");
}

#[test]
fn what_is_unknown_is_said_to_be() {
    let policies = [to("ALLOW", json!({"ports": ["80"], "methods": ["GET"]}))];
    let found = explain_with(&policies, &Ask::get("/"), Known::ALL.without(Attribute::DestinationPort));
    let allow = phase(&found, "allow");
    assert_eq!((allow.result, allow.nearest[0].held), (None, 1));
    assert_eq!(allow.nearest[0].failed[0].actual, "(unknown)");
}

/// On TCP the HTTP fields are left out; of an expanded principal the text as written is shown.
#[test]
fn only_what_was_compiled_is_explained() {
    let policy = json!({"action": "DENY", "rules": [{
        "from": [{"source": {"principals": ["cluster.local/ns/a/sa/b"]}}], "to": [{"operation": {"methods": ["GET"]}}]}]});
    let mesh = MeshConfig { trust_domain_aliases: vec!["old".to_owned()], ..MeshConfig::default() };
    let set = compile(&[policy], &mesh, Semantics::Tcp);
    let found = Ask::tcp(80).view(&mesh, |request| set.explain(request, Known::ALL));
    let near = &phase(&found, "deny").nearest[0];
    assert_eq!((near.held, near.failed.len()), (0, 1));
    assert_eq!(near.failed[0].expected, "`cluster.local/ns/a/sa/b`");
}
