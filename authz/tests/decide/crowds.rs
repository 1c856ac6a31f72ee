//! Shapes of sets and requests at the edges of the index: very many names, values or alternatives, and values that are
//! longer than what is kept of them.

use palisade_authz::{CompiledSet, Edits, HttpRequest, Known, Outcome, Request, Semantics};
use palisade_policies::{AuthorizationPolicy, MeshConfig};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::ask::{Ask, policy};
use crate::large::compile;
use crate::slow;

fn set(policies: &[Value]) -> CompiledSet {
    compile(policies, &MeshConfig::default(), Semantics::Http)
}

/// The rule that allows, by the name of its policy.
fn allowed(set: &CompiledSet, ask: &Ask) -> Option<String> {
    ask.view(&MeshConfig::default(), |request| {
        set.evaluate(request, Known::ALL).policy.map(|policy| policy.name().to_owned())
    })
}

fn condition(name: usize, key: &str, values: &[&str]) -> Value {
    json!({"name": format!("p{name:03}"), "rules": [{"when": [{"key": key, "values": values}]}]})
}

#[test]
fn hundreds_of_header_names() {
    let rules: Vec<Value> =
        (0..300).map(|number| condition(number, &format!("request.headers[X-N{number}]"), &["a*"])).collect();
    let set = set(&rules);
    let headers = [("x-n7", "b"), ("X-n299", "ab"), ("x-n42", "a"), ("x-n42", "b"), ("x-none", "a")];
    let ask = Ask::with(&headers);
    assert_eq!(allowed(&set, &ask).as_deref(), Some("p042"));
    assert_eq!(allowed(&set, &Ask::with(&headers[..1])), None);
    let long = "x".repeat(400);
    assert_eq!(allowed(&set, &Ask::with(&[(&long, "a"), ("x-N8", "a")])).as_deref(), Some("p008"));
}

/// So many names that the request's headers are gone through.
fn by_header(number: usize) -> Value {
    let action = if number.is_multiple_of(4) { "DENY" } else { "ALLOW" };
    let key = format!("request.headers[X-N{}]", number % 12);
    let value = ["a", "b*", "*c", "*"].into_iter().nth(number % 4);
    json!({"name": format!("p{number:03}"), "action": action, "rules": [
        {"when": [{"key": key, "values": [value]}]}]})
}

fn header() -> impl Strategy<Value = (String, String)> {
    ("[xX]-[nN](1[01]|[0-9])", "[abc]{0,2}")
}

fn edits() -> impl Strategy<Value = Edits> {
    let lower =
        |fields: Vec<(String, String)>| fields.into_iter().map(|(name, value)| (name.to_lowercase(), value.into()));
    (vec(header(), 0..3), vec(header(), 0..2), vec(header(), 0..3)).prop_map(move |(remove, set, append)| Edits {
        remove: lower(remove).map(|(name, _)| name).collect(),
        set: lower(set).collect(),
        append: lower(append).collect(),
        ..Edits::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Edits laid over headers, edits carried out, and the obvious evaluator.
    #[test]
    fn edited_headers_among_many_names(headers in vec(header(), 0..6), edits in edits()) {
        let specs: Vec<Value> = (0..48).map(by_header).collect();
        let set = set(&specs);
        let evaluate = |ask: &Ask, edits: &Edits| ask.view(&MeshConfig::default(), |request| {
            let http = request.http.unwrap();
            let edited = edits.over(http.headers);
            set.evaluate(&Request { http: Some(HttpRequest { headers: &edited, ..http }), ..*request }, Known::ALL)
        });
        let came = Ask { headers: headers.clone(), ..Ask::get("/") };
        let mut list = headers.into_iter().map(|(name, value)| (name, value.into())).collect();
        edits.apply(&mut list);
        let list = list.into_iter().map(|(name, value)| (name, String::from_utf8(value).unwrap()));
        let applied = Ask { headers: list.collect(), ..Ask::get("/") };
        let found = evaluate(&came, &edits);
        prop_assert_eq!(&found, &evaluate(&applied, &Edits::default()));
        let policies: Vec<AuthorizationPolicy> = specs.iter().map(|spec| policy(spec).as_ref().clone()).collect();
        let expected = slow::decide(&policies, Semantics::Http, Some("/"), &applied);
        prop_assert_eq!((found.outcome == Outcome::Allow, found.policy.map(|policy| policy.id().to_owned())), expected);
    }
}

#[test]
fn a_header_name_longer_than_any_buffer() {
    let long = format!("request.headers[{}]", "x".repeat(400));
    let mut rules: Vec<Value> =
        (0..40).map(|number| condition(number, &format!("request.headers[x-{number}]"), &["a"])).collect();
    rules.push(condition(99, &long, &["a"]));
    assert_eq!(allowed(&set(&rules), &Ask::with(&[(&"X".repeat(400), "a")])).as_deref(), Some("p099"));
}

#[test]
fn joined_values_and_hosts_longer_than_what_is_kept() {
    let (long, end) = ("b".repeat(300), format!("*{}z", "b".repeat(40)));
    let exact = format!("a,{long},z");
    for (value, expected) in
        [("a,bb*", true), (&*end, false), ("*b,z", true), (&*exact, true), (&*format!("{exact}z"), false)]
    {
        let mut rules: Vec<Value> =
            (0..30).map(|number| condition(number, "request.headers[accept]", &[&format!("v{number}")])).collect();
        rules.push(condition(99, "request.headers[accept]", &[value]));
        let ask = Ask::with(&[("accept", "a"), ("accept", ""), ("accept", &long), ("accept", "z")]);
        assert_eq!(allowed(&set(&rules), &ask).is_some(), expected, "{value}");
    }
    let host = format!("{}.Example", "H".repeat(300));
    for (value, expected) in [
        ("hhh*", true),
        ("*H.EXAMPLE", true),
        (&*host, true),
        ("*h.example.", false),
        (&*"h".repeat(256), false),
        (&*format!("{}*", "h".repeat(280)), true),
    ] {
        let mut rules: Vec<Value> =
            (0..30).map(|number| json!({"name": format!("p{number}"), "rules": [{"to": [{"operation": {"hosts": [format!("v{number}")]}}]}]})).collect();
        rules.push(json!({"name": "long", "rules": [{"to": [{"operation": {"hosts": [value]}}]}]}));
        let ask = Ask { host: Some(host.clone()), ..Ask::get("/") };
        assert_eq!(allowed(&set(&rules), &ask).is_some(), expected, "{value}");
    }
}

#[test]
fn one_rule_with_ten_thousand_values() {
    let values: Vec<String> = (0..10_000).map(|number| format!("/v{number}/*")).collect();
    let principals: Vec<String> = (0..10_000).map(|number| format!("td/ns/n{number}/sa/x")).collect();
    let rules = [
        json!({"name": "paths", "rules": [{"to": [{"operation": {"paths": values, "methods": ["GET"]}}]}]}),
        json!({"name": "peers", "action": "DENY", "rules": [{"from": [{"source": {"principals": principals}}]}]}),
        json!({"name": "others", "rules": [{"from": [{"source": {"notPrincipals": principals}}], "to": [{"operation": {"notPaths": values}}]}]}),
    ];
    let set = set(&rules);
    assert_eq!(allowed(&set, &Ask::get("/v9999/x")).as_deref(), Some("paths"));
    assert_eq!(allowed(&set, &Ask::get("/v10000/x")).as_deref(), Some("others"));
    let peer = |path: &str| Ask { principal: Some("td/ns/n77/sa/x".to_owned()), ..Ask::get(path) };
    assert_eq!(allowed(&set, &peer("/v9999/x")).as_deref(), Some("peers"));
}

/// More predicates hold for one request than are kept.
#[test]
fn hundreds_of_predicates_that_hold_at_once() {
    let prefix = |number: usize| json!({"name": format!("p{number:03}"), "rules": [{"to": [{"operation": {"paths": [format!("/{}*", "a".repeat(number))], "methods": [if number == 250 { "GET" } else { "PUT" }]}}]}]});
    let rules: Vec<Value> = (0..300).map(prefix).collect();
    assert_eq!(allowed(&set(&rules), &Ask::get(&format!("/{}", "a".repeat(299)))).as_deref(), Some("p250"));
    let shared: Vec<Value> = (0..200)
        .map(|number| {
            let paths: Vec<String> = (0..150).map(|length| format!("/{}*", "a".repeat(length))).collect();
            json!({"name": format!("p{number:03}"), "rules": [{"to": [{"operation": {"paths": paths, "methods": [format!("M{}", number % 3)], "ports": [if number == 77 { "80" } else { "81" }]}}]}]})
        })
        .collect();
    let ask = Ask { method: Some("M2".to_owned()), ..Ask::get(&format!("/{}", "a".repeat(200))) };
    assert_eq!(allowed(&set(&shared), &ask).as_deref(), Some("p077"));
}

#[test]
fn rules_with_many_alternatives_that_all_rules_share() {
    let rules: Vec<Value> = (0..100)
        .map(|number| {
            let from: Vec<Value> = (0..6).map(|n| json!({"source": {"namespaces": [format!("n{n}")]}})).collect();
            let to: Vec<Value> = (0..6).map(|n| json!({"operation": {"paths": [format!("/p{n}")], "ports": [if number == 60 { "80" } else { "81" }]}})).collect();
            json!({"name": format!("p{number:03}"), "rules": [{"from": from, "to": to}]})
        })
        .collect();
    let set = set(&rules);
    let ask =
        |namespace: &str, path: &str| Ask { principal: Some(format!("td/ns/{namespace}/sa/x")), ..Ask::get(path) };
    assert_eq!(allowed(&set, &ask("n5", "/p5")).as_deref(), Some("p060"));
    assert_eq!(allowed(&set, &ask("n6", "/p5")), None);
    assert_eq!(allowed(&set, &ask("n5", "/p6")), None);
}

/// Values that many rules refuse, and some do not; each request is left to one rule or to none.
#[test]
fn values_that_most_rules_refuse() {
    let rule = |number: usize| {
        let refused = if number == 150 { json!(["/y*"]) } else { json!(["/x*", "/y*"]) };
        let namespaces = if number == 160 { json!(["a"]) } else { json!(["a", "b"]) };
        json!({"name": format!("p{number:03}"), "rules": [{
            "from": [{"source": {"namespaces": namespaces}}],
            "to": [{"operation": {"methods": ["GET"], "notPaths": refused, "notPorts": if number == 170 { json!(["81"]) } else { json!(["80", "81"]) }}}]}]})
    };
    let set = set(&(0..200).map(rule).collect::<Vec<_>>());
    let ask = |namespace: &str, path: &str, port: u16| Ask {
        principal: Some(format!("td/ns/{namespace}/sa/x")),
        port: Some(port),
        ..Ask::get(path)
    };
    for (ask, expected) in [
        (ask("a", "/x1", 82), Some("p150")),
        (ask("b", "/x1", 82), Some("p150")),
        (ask("a", "/x1", 80), None),
        (ask("a", "/y1", 82), None),
        (ask("a", "/z", 80), Some("p170")),
        (ask("a", "/z", 81), None),
        (ask("b", "/z", 82), Some("p000")),
        (ask("c", "/z", 82), None),
    ] {
        assert_eq!(allowed(&set, &ask).as_deref(), expected, "{ask:?}");
    }
}
