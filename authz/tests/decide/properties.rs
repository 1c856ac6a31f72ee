//! Random policies and requests: the engine agrees with the obvious evaluator, and keeps its promises.

use std::sync::Arc;

use palisade_authz::{Attribute, CompiledSet, Known, Outcome, Semantics, normalize};
use palisade_policies::{AuthorizationPolicy, MeshConfig};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::ask::{Ask, policy};
use crate::slow;

/// Small vocabularies, so that values and requests meet often. Field, then its values.
const SOURCE: &[(&str, &[&str])] = &[
    ("principals", &["td/ns/a/sa/x", "td/*", "*/sa/x", "*", "td/ns/*/sa/x", "spiffe://td/ns/a/sa/x", "ns/a*"]),
    ("namespaces", &["a", "b", "n*1", "*", "n*", "*1", "n.1"]),
    ("serviceAccounts", &["x", "a/x", "b/y", "n1/x"]),
    ("trustDomains", &["td", "t*", "*d", "*", "ns"]),
    ("ipBlocks", &["10.0.0.0/8", "10.0.0.7", "::/0", "fe80::/10", "0.0.0.0/0", "10.0.0.4/30"]),
    ("remoteIpBlocks", &["1.2.3.4", "10.0.0.0/8"]),
    ("requestPrincipals", &["*", "i/s", "i/*", "*/s", "i*", "*s", "*i/s", "i", "i/s*", "a/b/c"]),
];
const OPERATION: &[(&str, &[&str])] = &[
    ("hosts", &["a.com", "A.com", "*.com", "a*", "*", "a.com:80"]),
    ("methods", &["GET", "P*", "*T", "*", "get"]),
    ("paths", &["/a", "/a/*", "*.txt", "*", "/a/{*}", "/{**}", "/a/{**}/b", "/{*}/b", "/a*b", "/a/{**}/"]),
    ("ports", &["80", "8080", "0080"]),
];
const WHEN: &[(&str, &[&str])] = &[
    ("request.headers[x-a]", &["1", "2", "*", "1*", "*2", "1,2"]),
    ("request.headers[Accept]", &["1", "2", "*", "1*", "*2", "1,2"]),
    ("request.headers[Host]", &["a.com", "*"]),
    ("request.auth.claims[g]", &["u", "v", "*", "u*"]),
    ("request.auth.claims[o][p]", &["u", "*"]),
    ("request.auth.claims[scope]", &["u", "u v", "*"]),
    ("request.auth.audiences", &["aud", "*"]),
    ("source.namespace", &["a", "*"]),
    ("source.principal", &["td/ns/a/sa/x"]),
    ("source.ip", &["10.0.0.7"]),
    ("remote.ip", &["1.2.3.4/31"]),
    ("destination.ip", &["10.0.0.9", "::1"]),
    ("destination.port", &["80"]),
    ("connection.sni", &["a.com", "*.com", "A.com", "*"]),
    ("experimental.envoy.filters.x[k]", &["v", "[v]", "[*]", "*"]),
];

fn fields(table: &'static [(&'static str, &'static [&'static str])]) -> BoxedStrategy<Value> {
    let one = select(table).prop_flat_map(|(field, values)| {
        (Just(field), any::<bool>(), subsequence(values.to_vec(), 1..=values.len().min(3)))
    });
    vec(one, 1..3)
        .prop_map(|chosen| {
            let mut object = serde_json::Map::new();
            for (field, negative, values) in chosen {
                let mut name = field.to_owned();
                if negative {
                    let (head, tail) = field.split_at(1);
                    name = format!("not{}{tail}", head.to_uppercase());
                }
                object.insert(name, json!(values));
            }
            Value::Object(object)
        })
        .boxed()
}

fn condition() -> BoxedStrategy<Value> {
    (select(WHEN), any::<bool>())
        .prop_flat_map(|((key, values), negative)| {
            subsequence(values.to_vec(), 1..=values.len().min(2))
                .prop_map(move |values| json!({"key": key, if negative { "notValues" } else { "values" }: values}))
        })
        .boxed()
}

fn rule() -> BoxedStrategy<Value> {
    (vec(fields(SOURCE), 0..3), vec(fields(OPERATION), 0..3), vec(condition(), 0..3))
        .prop_map(|(from, to, when)| {
            let from: Vec<_> = from.into_iter().map(|source| json!({"source": source})).collect();
            let to: Vec<_> = to.into_iter().map(|operation| json!({"operation": operation})).collect();
            json!({"from": from, "to": to, "when": when})
        })
        .boxed()
}

fn some_policy(actions: &'static [&'static str]) -> BoxedStrategy<Value> {
    (select(actions), vec(rule(), 0..4), 0..1000u32, prop::bool::weighted(0.1))
        .prop_map(|(action, rules, number, dry_run)| json!({"action": action, "rules": rules, "name": format!("p{number}"), "dryRun": dry_run}))
        .boxed()
}

/// An empty text stands for an absent one.
fn text(values: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    select(values).prop_map(|value| (!value.is_empty()).then(|| value.to_owned()))
}

fn claims() -> impl Strategy<Value = Option<Value>> {
    prop::option::of(select(vec![
        json!({"iss": "i", "sub": "s", "aud": "aud", "g": "u"}),
        json!({"iss": "i", "sub": "", "aud": ["x", "aud"], "g": ["v", 1], "scope": "u v"}),
        json!({"iss": "a/b", "sub": "c", "o": {"p": "u"}, "g": true}),
        json!({"sub": "s"}),
    ]))
}

fn metadata() -> impl Strategy<Value = Option<Value>> {
    prop::option::of(select(vec![json!({"envoy.filters.x": {"k": "v"}}), json!({"envoy.filters.x": {"k": ["v"]}})]))
}

const PRINCIPALS: &[&str] = &[
    "",
    "td/ns/a/sa/x",
    "td/ns/b/sa/y",
    "other/ns/n1/sa/x",
    "td/ns/nx1/sa/x",
    "ns/a/sa/x",
    "td/ns/a/k/v/sa/x/z",
    "td/x",
];
const TARGETS: &[&str] = &["", "/a", "/a/b", "/a/x.txt", "/", "/a//b", "/a/c/b", "/a*b", "/a/b/", "/a/[b", "/%61?x"];

fn request() -> BoxedStrategy<Ask> {
    let peer = (
        text(PRINCIPALS),
        select(&["10.0.0.7", "192.168.0.1", "fe80::1"][..]),
        select(&["1.2.3.4", "1.2.3.5", "10.1.1.1"][..]),
    );
    let head = (text(&["GET", "POST", "PUT"]), text(TARGETS), text(&["a.com", "A.COM:80", "b.org"]));
    let headers = vec((select(&["x-a", "accept", "X-A"][..]), select(&["1", "2", "", "12"][..])), 0..3);
    let rest = (any::<bool>(), select(&[80u16, 8080][..]), text(&["", "a.com", "A.COM"]), metadata());
    (peer, head, headers, claims(), rest)
        .prop_map(|((principal, ip, remote), (method, target, host), headers, claims, (tcp, port, sni, metadata))| {
            Ask {
                principal,
                ip: ip.parse().ok(),
                remote_ip: remote.parse().ok(),
                port: Some(port),
                sni,
                tcp,
                method,
                target,
                host,
                headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                claims,
                metadata,
                ..Ask::get("/")
            }
        })
        .boxed()
}

fn set(policies: &[Value], semantics: Semantics) -> CompiledSet {
    let list: Vec<Arc<AuthorizationPolicy>> = policies.iter().map(policy).collect();
    CompiledSet::compile(&list, &MeshConfig::default(), semantics)
}

fn outcome(policies: &[Value], semantics: Semantics, ask: &Ask) -> Outcome {
    ask.view(&MeshConfig::default(), |request| set(policies, semantics).evaluate(request, Known::ALL).outcome)
}

/// Names decide which rule is reported, so they are made distinct.
fn distinct(mut policies: Vec<Value>) -> Vec<Value> {
    for (index, policy) in policies.iter_mut().enumerate() {
        policy["name"] = json!(format!("{}-{index}", policy["name"].as_str().unwrap_or_default()));
    }
    policies
}

fn semantics() -> impl Strategy<Value = Semantics> {
    select(&[Semantics::Http, Semantics::Tcp, Semantics::L4][..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_equals_the_obvious_evaluator(policies in vec(some_policy(&["ALLOW", "DENY"]), 0..4), semantics in semantics(), ask in request()) {
        let policies = distinct(policies);
        let list: Vec<AuthorizationPolicy> = policies.iter().map(|spec| policy(spec).as_ref().clone()).collect();
        let target = ask.target.as_deref().map(|raw| normalize::path(raw, MeshConfig::default().path_normalization).unwrap());
        let expected = slow::decide(&list, semantics, target.as_deref().map(normalize::without_query), &ask);
        let found = ask.view(&MeshConfig::default(), |request| set(&policies, semantics).evaluate(request, Known::ALL));
        let got = (found.outcome == Outcome::Allow, found.policy.map(|policy| policy.id().to_owned()));
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn adding_a_deny_never_allows_more(policies in vec(some_policy(&["ALLOW", "DENY", "AUDIT"]), 0..3), extra in some_policy(&["DENY"]), semantics in semantics(), ask in request()) {
        let before = outcome(&policies, semantics, &ask);
        let after = outcome(&[policies, vec![extra]].concat(), semantics, &ask);
        prop_assert!(!(before == Outcome::Deny && after == Outcome::Allow));
    }

    #[test]
    fn adding_an_allow_never_denies_more_once_one_is_attached(mut policies in vec(some_policy(&["ALLOW", "DENY"]), 0..3), extra in some_policy(&["ALLOW"]), semantics in semantics(), ask in request()) {
        policies.push(json!({"rules": []}));
        let before = outcome(&policies, semantics, &ask);
        let after = outcome(&[policies, vec![extra]].concat(), semantics, &ask);
        prop_assert!(!(before == Outcome::Allow && after == Outcome::Deny));
    }

    #[test]
    fn the_order_of_policies_never_matters(policies in vec(some_policy(&["ALLOW", "DENY", "AUDIT"]), 0..5), semantics in semantics(), ask in request()) {
        let policies = distinct(policies);
        let mut backwards = policies.clone();
        backwards.reverse();
        let evaluate = |policies: &[Value]| ask.view(&MeshConfig::default(), |request| set(policies, semantics).evaluate(request, Known::ALL));
        prop_assert_eq!(evaluate(&policies), evaluate(&backwards));
    }

    #[test]
    fn what_is_decided_without_an_attribute_holds_whatever_it_is(policies in vec(some_policy(&["ALLOW", "DENY"]), 0..3), semantics in semantics(), ask in request(), hidden in select(&crate::unknown::ALL[..])) {
        let compiled = set(&policies, semantics);
        let (partial, whole) = ask.view(&MeshConfig::default(), |request| {
            (compiled.evaluate(request, Known::ALL.without(hidden)), compiled.evaluate(request, Known::ALL))
        });
        prop_assert_ne!(whole.outcome, Outcome::Undecided);
        prop_assert!(partial.outcome == Outcome::Undecided || partial.outcome == whole.outcome);
    }

    #[test]
    fn what_leaves_it_undecided_decides_it_once_it_is_known(policies in vec(some_policy(&["ALLOW", "DENY"]), 0..4), semantics in semantics(), ask in request(), hidden in vec(select(&crate::unknown::ALL[..]), 1..6)) {
        let compiled = set(&policies, semantics);
        let without = |hidden: &[Attribute]| hidden.iter().fold(Known::ALL, |known, one| known.without(*one));
        ask.view(&MeshConfig::default(), |request| {
            let named = compiled.undecided_by(request, without(&hidden));
            prop_assert!(named.iter().all(|one| hidden.contains(one)));
            let rest: Vec<Attribute> = hidden.iter().copied().filter(|one| !named.contains(one)).collect();
            prop_assert_ne!(compiled.evaluate(request, without(&rest)).outcome, Outcome::Undecided);
            Ok(())
        })?;
    }
}
