//! What is denied before, or beside, any policy: each with its reason, its status and one record.

use palisade_authz::Verdict;
use palisade_authz_service::{ListenError, Port, Security};
use palisade_wire::envoy::envoy::config::core::v3::{Address, EnvoyInternalAddress, HeaderMap, HeaderValue, address};
use palisade_wire::envoy::envoy::service::auth::v3::AttributeContext;
use palisade_wire::envoy::envoy::service::auth::v3::attribute_context::{Peer, Request};

use crate::mapping::{text, with_claims};
use crate::world::{World, about, connection, from, get, http, metadata, peer, policy, reason, status, with_header};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn to(attributes: AttributeContext, ip: &str, principal: &str) -> AttributeContext {
    AttributeContext { destination: Some(peer(ip, 8_080, principal)), ..attributes }
}

fn path(path: &str) -> AttributeContext {
    get(path)
}

/// The workload is found by name, else by the destination's identity, else by its address; none or two: no.
#[tokio::test]
async fn the_workload_is_the_one_that_is_meant() {
    let mut world = World::with(&policy("one", "ALLOW", "{to: [{operation: {paths: [/ok]}}]}"));
    let mut client = world.client(false).await;
    let ok = || path("/ok");
    for (what, attributes) in [
        ("by name", about(to(ok(), "10.0.0.20", "spiffe://cluster.local/ns/x/sa/y"), "shop/cart")),
        ("by identity", to(ok(), "10.0.0.20", CART)),
        ("by address", ok()),
        ("by mapped address", to(ok(), "::ffff:10.0.0.9", "")),
        ("a certificate for a DNS name says nothing", to(ok(), "10.0.0.9", "cart.example")),
    ] {
        assert_eq!(client.status(attributes).await, 200, "{what}");
        let record = world.records().pop().unwrap();
        assert_eq!(
            (&*record.facts.destination.namespace, &*record.facts.destination.workload),
            ("shop", "cart"),
            "{what}"
        );
    }
    world.stop().await;
}

/// None, or two: no.
#[tokio::test]
async fn no_workload_or_two_are_a_refusal() {
    let mut world = World::with(&policy("one", "ALLOW", "{to: [{operation: {paths: [/ok]}}]}"));
    let mut client = world.client(false).await;
    let ok = || path("/ok");
    let nowhere = AttributeContext { destination: None, ..ok() };
    let inside = Address { address: Some(address::Address::EnvoyInternalAddress(EnvoyInternalAddress::default())) };
    for (expected, attributes) in [
        ("workload-unknown", about(ok(), "shop/nobody")),
        ("bad-request", about(ok(), "cart")),
        ("bad-request", about(ok(), "shop/cart/0")),
        ("bad-request", about(ok(), "")),
        ("workload-unknown", to(ok(), "10.0.0.9", "spiffe://cluster.local/ns/shop/sa/nobody")),
        ("workload-unknown", to(ok(), "10.0.0.9", "spiffe://other.domain/ns/shop/sa/cart")),
        ("workload-unknown", to(ok(), "10.0.0.9", "spiffe://")),
        ("workload-ambiguous", to(ok(), "10.0.0.9", "spiffe://cluster.local/ns/shop/sa/twin")),
        ("workload-ambiguous", to(ok(), "10.0.0.20", "")),
        ("workload-unknown", to(ok(), "10.0.0.99", "")),
        ("workload-unknown", nowhere),
        (
            "workload-unknown",
            AttributeContext { destination: Some(Peer { address: Some(inside), ..Peer::default() }), ..ok() },
        ),
        ("workload-unknown", AttributeContext::default()),
    ] {
        let answer = client.ask(attributes.clone()).await;
        let http = attributes.request.is_some();
        assert_eq!(
            (reason(&answer).as_str(), status(&answer)),
            (expected, if http { 403 } else { 7 }),
            "{attributes:?}"
        );
        let records = world.records();
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].reason, records[0].verdict), (expected, Verdict::Deny));
    }
    world.stop().await;
}

/// What Envoy could not have sent is no request at all.
#[tokio::test]
async fn what_makes_no_sense_is_denied() {
    let mut world = World::with(&policy("one", "ALLOW", "{}"));
    let mut client = world.client(true).await;
    let edited = |edit: fn(&mut AttributeContext)| {
        let mut attributes = get("/");
        edit(&mut attributes);
        attributes
    };
    for (expected, status_, attributes) in [
        ("bad-request", 403, edited(|of| of.source = Some(peer("not an address", 1, "")))),
        ("bad-request", 403, edited(|of| of.source = Some(peer("10.0.0.1", 70_000, "")))),
        ("bad-request", 403, about(edited(|of| of.destination = Some(peer("::x", 1, ""))), "shop/cart")),
        ("bad-request", 403, edited(|of| http(of).method = String::new())),
        ("bad-request", 403, edited(|of| http(of).path = String::new())),
        ("bad-request", 400, path("no-slash")),
        ("bad-request", 400, path("*")),
        ("bad-request", 400, path("/a b")),
        ("bad-request", 400, path("/%00")),
        ("peer-invalid", 403, from(get("/"), "CN=front")),
        ("peer-invalid", 403, from(get("/"), "spiffe://Bad/x")),
    ] {
        let answer = client.ask(attributes).await;
        assert_eq!((reason(&answer).as_str(), status(&answer)), (expected, status_));
        assert_eq!(world.records().len(), 1);
    }
    assert_eq!(client.status(get("/")).await, 200, "the service is as before");
    world.stop().await;
}

/// Without policies nobody passes; with the first ones they decide, and every later edit does.
#[tokio::test]
async fn nobody_passes_before_the_first_snapshot() {
    let mut world = World::new();
    let mut client = world.client(false).await;
    let answer = client.ask(get("/")).await;
    assert_eq!((reason(&answer).as_str(), status(&answer)), ("no-snapshot", 403));
    let record = world.records().pop().unwrap();
    assert_eq!((record.reason, record.facts.http.unwrap().path.as_deref()), ("no-snapshot", Some("/")));
    world.policies.set("", "");
    assert_eq!(client.status(get("/")).await, 200);
    world.policies.set(&policy("one", "DENY", "{}"), "");
    assert_eq!(client.status(get("/")).await, 403);
    world.policies.set(&policy("one", "ALLOW", "{}"), "");
    assert_eq!(client.status(get("/")).await, 200);
    world.stop().await;
}

/// A server name that nobody reported is not known to be absent.
#[tokio::test]
async fn what_is_not_known_and_would_decide_is_denied() {
    let mut world = World::with(&policy("one", "DENY", "{when: [{key: connection.sni, values: [bad.shop]}]}"));
    let mut client = world.client(false).await;
    let answer = client.ask(AttributeContext { tls_session: None, ..get("/") }).await;
    assert_eq!((reason(&answer).as_str(), status(&answer)), ("undecided", 403));
    assert!(metadata(&answer, "palisade.missing").unwrap().contains("connection.sni"));
    assert_eq!(metadata(&answer, "palisade.phase"), None);
    assert_eq!(client.status(get("/")).await, 200, "reported, and absent");
    world.policies.set(&policy("one", "ALLOW", "{}"), "");
    assert_eq!(client.status(AttributeContext { tls_session: None, ..get("/") }).await, 200, "nobody asks for it");
    world.stop().await;
}

/// Two readings of one request with two verdicts: neither passes.
#[tokio::test]
async fn what_could_be_read_in_two_ways_passes_only_in_both() {
    let mut world = World::new();
    let mut client = world.client(false).await;
    let one = |value: &str| {
        policy("one", "DENY", &format!("{{when: [{{key: 'request.headers[x-list]', values: ['{value}']}}]}}"))
    };
    let listed = |value: &str| with_header(get("/"), "x-list", value);
    let field = |value: &str| HeaderValue { key: "x-list".into(), raw_value: value.into(), ..HeaderValue::default() };
    let raw = |values: &[&str]| {
        let mut attributes = get("/");
        http(&mut attributes).header_map =
            Some(HeaderMap { headers: values.iter().map(|value| field(value)).collect() });
        attributes
    };
    for (denied, attributes, expected) in [
        ("a,b", listed("a,b"), "deny-matched"),
        ("a", listed("b,a"), "ambiguous-request"),
        ("c", listed("a,b"), "no-allow-policy"),
        ("a", raw(&["b", "a"]), "deny-matched"),
        ("a", raw(&["b,a"]), "no-allow-policy"),
    ] {
        world.policies.set(&one(denied), "");
        assert_eq!(client.reason(attributes).await, expected, "{denied}");
        assert_eq!(world.records().len(), 1);
    }
    world.policies.set(&policy("one", "DENY", "{to: [{operation: {paths: ['/x/*']}}]}"), "");
    let answer = client.ask(path("/x/../public")).await;
    assert_eq!(
        (reason(&answer).as_str(), status(&answer)),
        ("ambiguous-request", 400),
        "an Envoy that does not normalise"
    );
    assert_eq!(client.status(path("/y/../public")).await, 200);
    world.stop().await;
}

/// Plaintext is for this machine.
#[tokio::test]
async fn plaintext_is_refused_elsewhere_than_on_loopback() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let refused = Port::bind(address.parse().unwrap(), Security::Loopback).await;
        assert!(matches!(refused, Err(ListenError::Plaintext(_))), "{address}");
    }
    let taken = Port::bind("127.0.0.1:0".parse().unwrap(), Security::Loopback).await.unwrap();
    let again = Port::bind(taken.address().unwrap(), Security::Loopback).await;
    assert!(matches!(again, Err(ListenError::Bind { .. })));
}

/// One record a decision, with what the evaluator saw.
#[tokio::test]
async fn a_record_holds_what_was_decided() {
    let rule = "{to: [{operation: {paths: [/v1]}}], when: [{key: 'request.headers[x-token]', values: [a]}]}";
    let mut world = World::with(&policy("one", "ALLOW", rule));
    let mut client = world.client(false).await;
    let attributes = with_header(with_header(get("/v1?x=1"), "x-token", "a"), "x-secret", "s");
    assert_eq!(client.status(attributes).await, 200);
    let facts = world.records().pop().unwrap().facts;
    let seen = facts.http.unwrap();
    assert_eq!(
        (seen.method.as_str(), seen.path.as_deref(), seen.host.as_deref()),
        ("GET", Some("/v1"), Some("cart.shop:8080"))
    );
    assert_eq!(seen.headers, [("x-token".to_owned(), b"a".to_vec())], "what no policy reads is not kept");
    assert_eq!((facts.source.ip, facts.source.port), ("10.0.0.7".parse().ok(), Some(40_000)));
    assert_eq!((facts.destination.port, facts.transport, facts.protocol), (Some(8_080), "plaintext", "http"));
    assert_eq!(facts.status, 0, "what the client saw in the end is not known here");
    assert_eq!(client.status(get("/v2")).await, 403);
    let record = world.records().pop().unwrap();
    assert_eq!((record.facts.status, record.reason), (403, "no-allow-matched"));
    let metrics = {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &world.registry).unwrap();
        text
    };
    let line = r#"palisade_authz_decisions_total{api="ext_authz",decision="deny",reason="no-allow-matched"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    world.stop().await;
}

/// Nothing that a caller sends ends the service.
#[tokio::test]
async fn garbage_is_answered() {
    let mut world = World::with(&policy("one", "ALLOW", "{}"));
    let mut client = world.client(true).await;
    let long = "x".repeat(300_000);
    let strange =
        ["", "\u{0}", "\u{202e}", "a\r\nb", long.as_str(), "spiffe://", "::", "//", "%", "/%", "/%zz", "/%c0%ae"];
    for text in strange {
        let mut attributes = get(text);
        http(&mut attributes).method = text.to_owned();
        http(&mut attributes).host = text.to_owned();
        http(&mut attributes).headers.insert(text.to_owned(), text.to_owned());
        let _ = client.ask(attributes.clone()).await;
        let _ = client.ask(about(from(attributes, text), text)).await;
    }
    let empty = AttributeContext { request: Some(Request::default()), ..connection() };
    assert_eq!(client.status(empty).await, 0, "no HTTP: a connection");
    assert_eq!(
        client
            .0
            .check(palisade_wire::envoy::envoy::service::auth::v3::CheckRequest::default())
            .await
            .map(|answer| status(answer.get_ref()))
            .unwrap(),
        7
    );
    assert_eq!(client.status(get("/")).await, 200);
    world.stop().await;
}

/// Callers whose word does not count cannot lend anybody an identity.
#[tokio::test]
async fn loopback_alone_proves_nothing() {
    const FRONT: &str = "spiffe://cluster.local/ns/web/sa/front";
    let mut world = World::new();
    let mut client = world.client(false).await;
    for (action, rule) in [
        ("ALLOW", "{from: [{source: {namespaces: [web]}}]}"),
        ("ALLOW", "{from: [{source: {notNamespaces: [x]}}]}"),
        ("DENY", "{from: [{source: {namespaces: [x]}}]}"),
        ("DENY", "{from: [{source: {notPrincipals: ['*']}}]}"),
    ] {
        world.policies.set(&policy("one", action, rule), "");
        let answer = client.ask(from(get("/"), FRONT)).await;
        assert_eq!((reason(&answer).as_str(), status(&answer)), ("caller-unproven", 403), "{action} {rule}");
    }
    let claims = || with_claims(&[("iss", text("https://idp.example")), ("sub", text("alice"))]);
    for action in ["ALLOW", "DENY"] {
        let rule = "{from: [{source: {requestPrincipals: ['https://idp.example/bob']}}]}";
        world.policies.set(&policy("one", action, rule), "");
        assert_eq!(client.reason(claims()).await, "caller-unproven", "{action}");
    }
    world.policies.set(&policy("one", "ALLOW", "{to: [{operation: {methods: [GET]}}]}"), "");
    assert_eq!(client.status(from(get("/"), FRONT)).await, 200, "no rule asks who it is");
    assert_eq!(world.records().pop().unwrap().facts.source.principal, None);
    let spoofed = with_header(get("/"), "x-forwarded-client-cert", &format!("URI={FRONT}"));
    world.policies.set(&policy("one", "ALLOW", "{from: [{source: {namespaces: [web]}}]}"), "");
    assert_eq!(client.reason(spoofed).await, "no-allow-matched", "a header is no identity");
    world.stop().await;
}
