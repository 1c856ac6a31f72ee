//! Deciding allocates nothing: a counting allocator watches the deciding thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use palisade_authz::{CompiledSet, Semantics};
use palisade_policies::MeshConfig;
use serde_json::json;

use crate::ask::{Ask, policy};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // Gone while a thread ends: nothing to count then.
    let _ = ALLOCATIONS.try_with(|counter| counter.set(counter.get() + 1));
}

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait; this one only counts")]
// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    run();
    ALLOCATIONS.with(Cell::get) - before
}

fn crowded(semantics: Semantics) -> CompiledSet {
    let mut policies = vec![
        json!({"action": "DENY", "name": "d", "rules": [
            {"from": [{"source": {"notNamespaces": ["n*1", "foo"], "principals": ["*/sa/evil"], "ipBlocks": ["10.9.0.0/16"]}}]},
            {"when": [{"key": "request.headers[accept]", "values": ["*evil", "b*", "a,b,c"]},
                      {"key": "request.auth.claims[o][p]", "notValues": ["x"]},
                      {"key": "connection.sni", "values": ["*.evil"]}]}]}),
        json!({"action": "AUDIT", "name": "u", "rules": [{"to": [{"operation": {"hosts": ["*.example"]}}]}]}),
        json!({"action": "DENY", "name": "s", "dryRun": true, "rules": [{"to": [{"operation": {"paths": ["/v1/{*}/{**}"]}}]}]}),
    ];
    for number in 0..100 {
        policies.push(json!({"name": format!("a{number}"), "rules": [{
            "from": [{"source": {"principals": ["td/ns/foo/sa/x"], "serviceAccounts": ["foo/x"], "trustDomains": ["t*"],
                                 "requestPrincipals": ["iss/*"]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": [format!("/v{number}/{{**}}/z")]}}]}]}));
    }
    let list: Vec<_> = policies.iter().map(policy).collect();
    CompiledSet::compile(&list, &MeshConfig::default(), semantics)
}

/// Rules of every kind that the index knows: selective ones, such as share all values, such as only refuse.
fn ten_thousand(semantics: Semantics) -> CompiledSet {
    let rule = |number: usize| match number % 4 {
        0 => json!({"from": [{"source": {"principals": [format!("td/ns/n{number}/sa/x"), "td/ns/foo/sa/x"]}}],
                    "to": [{"operation": {"methods": ["PUT"], "paths": [format!("/v{number}/{{*}}/{{**}}")]}}]}),
        1 => {
            json!({"from": [{"source": {"namespaces": [format!("n{}", number % 40), "n*1"]}}, {"source": {"ipBlocks": ["10.0.0.0/8"]}}],
                    "to": [{"operation": {"notPaths": ["/v99/*"], "ports": ["81", "82", "83", "84", "85", format!("{}", number % 40)]}}]})
        }
        2 => json!({"when": [{"key": "request.headers[accept]", "values": ["a*", format!("*{number}")]},
                             {"key": format!("request.headers[x-{}]", number % 100), "values": ["t"]},
                             {"key": "request.auth.claims[scope]", "notValues": ["read", format!("w{number}")]}]}),
        _ => {
            json!({"to": [{"operation": {"hosts": [format!("*.h{number}.example")]}}, {"operation": {"paths": [format!("/z{number}")]}}]})
        }
    };
    let policies: Vec<_> = (0..10_000)
        .map(|number| policy(&json!({"name": format!("p{number}"), "action": if number % 3 == 0 { "DENY" } else { "ALLOW" }, "rules": [rule(number)]})))
        .collect();
    CompiledSet::compile(&policies, &MeshConfig::default(), semantics)
}

#[test]
fn deciding_allocates_nothing_with_ten_thousand_rules() {
    let headers: Vec<(String, String)> =
        (0..300).map(|number| (format!("X-{}", number % 100), "u".to_owned())).collect();
    let long = Ask {
        principal: Some("td/ns/foo/sa/x".to_owned()),
        host: Some("A.h7.Example".repeat(40)),
        claims: Some(json!({"iss": "iss", "sub": "s", "scope": "read write"})),
        target: Some("/v4/a/b".to_owned()),
        headers,
        ..Ask::get("/")
    };
    let joined = Ask::with(&[("accept", "a"), ("accept", &"b".repeat(300)), ("accept", "c")]);
    for semantics in [Semantics::Http, Semantics::Tcp, Semantics::L4] {
        let set = ten_thousand(semantics);
        for ask in [&long, &joined, &Ask::get("/v99/z"), &Ask::tcp(81)] {
            ask.view(&MeshConfig::default(), |request| {
                let made = allocations(|| drop(std::hint::black_box(set.decide(request))));
                assert_eq!(made, 0, "{semantics:?} {ask:?}");
            });
        }
    }
}

#[test]
fn deciding_allocates_nothing() {
    let headers = [("accept", "a"), ("Accept", "b"), ("x-token", "t"), ("cookie", "k=v")];
    let allowed = Ask {
        principal: Some("td/ns/foo/sa/x".to_owned()),
        sni: Some("A.Example".to_owned()),
        claims: Some(json!({"iss": "iss", "sub": "s", "scope": "read write", "o": {"p": "x"}})),
        target: Some("/v99/items/z?q=1".to_owned()),
        ..Ask::with(&headers)
    };
    let denied =
        Ask { principal: Some("td/ns/bar/sa/evil".to_owned()), ip: "10.9.1.1".parse().ok(), ..allowed.clone() };
    for semantics in [Semantics::Http, Semantics::Tcp, Semantics::L4] {
        let set = crowded(semantics);
        for (ask, passes) in [(&allowed, true), (&denied, false), (&Ask::get("/"), false)] {
            ask.view(&MeshConfig::default(), |request| {
                let mut outcome = false;
                let made = allocations(|| outcome = set.decide(request).is_allow());
                assert_eq!(made, 0, "{semantics:?} {ask:?}");
                assert_eq!(outcome, passes && semantics == Semantics::Http, "{semantics:?} {ask:?}");
            });
        }
    }
    assert!(allocations(|| drop(std::hint::black_box(vec![1_u8]))) > 0, "the counter counts");
}
