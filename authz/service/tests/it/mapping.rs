//! Every attribute that Envoy sends reaches the policies: one rule that asks for it, one request that has it and one that
//! has not.

use palisade_wire::envoy::envoy::config::core::v3::{HeaderMap, HeaderValue, Metadata};
use palisade_wire::envoy::envoy::service::auth::v3::AttributeContext;
use palisade_wire::envoy::envoy::service::auth::v3::attribute_context::TlsSession;
use palisade_wire::envoy::google::protobuf::value::Kind;
use palisade_wire::envoy::google::protobuf::{Struct, Value};

use crate::world::{World, about, connection, from, get, http, metadata, peer, policy, status, with_header};

const FRONT: &str = "spiffe://cluster.local/ns/web/sa/front";

/// What a rule asks for, a request that it lets pass, and one that it does not.
struct Row {
    rule: &'static str,
    passes: AttributeContext,
    refused: AttributeContext,
}

fn row(rule: &'static str, passes: AttributeContext, refused: AttributeContext) -> Row {
    Row { rule, passes, refused }
}

fn raw(fields: &[(&str, &str)]) -> AttributeContext {
    let mut attributes = get("/");
    let headers = fields.iter().map(|(key, value)| HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    });
    http(&mut attributes).header_map = Some(HeaderMap { headers: headers.collect() });
    attributes
}

fn edited(edit: impl FnOnce(&mut AttributeContext)) -> AttributeContext {
    let mut attributes = get("/");
    edit(&mut attributes);
    attributes
}

pub(crate) fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn object(fields: &[(&str, Value)]) -> Struct {
    Struct { fields: fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect() }
}

fn with_filter(filter: &str, fields: Struct) -> AttributeContext {
    edited(|attributes| {
        let filter_metadata = [(filter.to_owned(), fields)].into();
        attributes.metadata_context = Some(Metadata { filter_metadata, ..Metadata::default() });
    })
}

pub(crate) fn with_claims(claims: &[(&str, Value)]) -> AttributeContext {
    let payload = Value { kind: Some(Kind::StructValue(object(claims))) };
    with_filter("envoy.filters.http.jwt_authn", object(&[("payload", payload)]))
}

fn head_rows() -> Vec<Row> {
    vec![
        row("{to: [{operation: {methods: [GET]}}]}", get("/"), edited(|of| http(of).method = "POST".into())),
        row("{to: [{operation: {paths: ['/v1/{*}']}}]}", get("/v1/cart?x=1"), get("/v1/a/b")),
        row("{to: [{operation: {paths: [/admin]}}]}", get("/admin?x=1"), get("/admin/")),
        row("{to: [{operation: {hosts: ['cart.shop:*']}}]}", get("/"), edited(|of| http(of).host = "x".into())),
        row(
            "{when: [{key: 'request.headers[:scheme]', values: [https]}]}",
            edited(|of| http(of).scheme = "https".into()),
            get("/"),
        ),
        row(
            "{when: [{key: 'request.headers[X-Token]', values: [a]}]}",
            with_header(get("/"), "x-token", " a "),
            with_header(get("/"), "x-token", "b"),
        ),
        row(
            "{when: [{key: 'request.headers[x-token]', values: [a]}]}",
            raw(&[(":path", "/"), ("x-token", "a"), ("x-token", "b")]),
            raw(&[("x-token", "a,b")]),
        ),
        row("{when: [{key: 'request.headers[:path]', values: ['/a?b']}]}", get("/a?b"), get("/a")),
        row("{to: [{operation: {methods: [CONNECT], notPaths: ['/*']}}]}", connect(), get("/")),
    ]
}

fn connect() -> AttributeContext {
    edited(|of| {
        http(of).method = "CONNECT".into();
        http(of).path = String::new();
    })
}

fn connection_rows() -> Vec<Row> {
    vec![
        row(
            "{from: [{source: {ipBlocks: [10.0.0.0/24]}}]}",
            get("/"),
            edited(|of| of.source = Some(peer("10.0.1.7", 1, ""))),
        ),
        row(
            "{from: [{source: {ipBlocks: [10.0.0.7]}}]}",
            edited(|of| of.source = Some(peer("::ffff:10.0.0.7", 1, ""))),
            edited(|of| of.source = None),
        ),
        row(
            "{from: [{source: {remoteIpBlocks: [203.0.113.9]}}]}",
            with_header(get("/"), "x-forwarded-for", "1.2.3.4, 203.0.113.9"),
            get("/"),
        ),
        row(
            "{to: [{operation: {ports: ['8080']}}]}",
            get("/"),
            edited(|of| of.destination = Some(peer("10.0.0.9", 9_090, ""))),
        ),
        row(
            "{when: [{key: destination.ip, values: [10.0.0.9]}]}",
            get("/"),
            about(edited(|of| of.destination = Some(peer("10.0.0.10", 8_080, ""))), "shop/cart"),
        ),
        row(
            "{when: [{key: connection.sni, values: [cart.shop]}]}",
            edited(|of| of.tls_session = Some(TlsSession { sni: "cart.shop".into() })),
            get("/"),
        ),
    ]
}

fn identity_rows() -> Vec<Row> {
    vec![
        row("{from: [{source: {principals: [cluster.local/ns/web/sa/front]}}]}", from(get("/"), FRONT), get("/")),
        row(
            "{from: [{source: {namespaces: [web]}}]}",
            from(get("/"), FRONT),
            from(get("/"), "spiffe://cluster.local/ns/x/sa/y"),
        ),
        row("{from: [{source: {notPrincipals: ['*']}}]}", get("/"), from(get("/"), FRONT)),
        row(
            "{when: [{key: 'experimental.envoy.filters.http.ext[k]', values: [v]}]}",
            with_filter("envoy.filters.http.ext", object(&[("k", text("v"))])),
            get("/"),
        ),
        row(
            "{from: [{source: {requestPrincipals: ['https://idp.example/alice']}}]}",
            with_claims(&[("iss", text("https://idp.example")), ("sub", text("alice"))]),
            with_claims(&[("iss", text("https://idp.example")), ("sub", text("bob"))]),
        ),
        row(
            "{when: [{key: 'request.auth.claims[scope]', values: [read]}]}",
            with_claims(&[("scope", text("write read"))]),
            with_claims(&[("scope", text("write"))]),
        ),
    ]
}

#[tokio::test]
async fn each_attribute_decides() {
    let mut world = World::new();
    let mut client = world.client(true).await;
    for Row { rule, passes, refused } in head_rows().into_iter().chain(connection_rows()).chain(identity_rows()) {
        world.policies.set(&policy("one", "ALLOW", rule), "");
        assert_eq!(client.status(passes.clone()).await, 200, "{rule}");
        assert_eq!(client.status(refused.clone()).await, 403, "{rule}");
        world.policies.set(&policy("one", "DENY", rule), "");
        let denied = client.ask(passes).await;
        assert_eq!(status(&denied), 403, "{rule}");
        assert_eq!(metadata(&denied, "enforced_effective_policy_id").unwrap(), "ns[shop]-policy[one]-rule[0]");
        assert_eq!(client.status(refused).await, 200, "{rule}");
    }
    world.stop().await;
}

/// Without HTTP the network filter's semantics hold: HTTP fields drop an ALLOW rule and widen a DENY rule.
#[tokio::test]
async fn connections_without_http_are_decided_as_such() {
    let mut world = World::new();
    let mut client = world.client(false).await;
    for (action, rule, expected) in [
        ("ALLOW", "{to: [{operation: {ports: ['8080']}}]}", 0),
        ("ALLOW", "{to: [{operation: {ports: ['9090']}}]}", 7),
        ("ALLOW", "{to: [{operation: {methods: [GET]}}]}", 7),
        ("DENY", "{to: [{operation: {methods: [POST]}}]}", 7),
        ("DENY", "{from: [{source: {ipBlocks: [10.9.0.0/16]}}]}", 0),
    ] {
        world.policies.set(&policy("one", action, rule), "");
        let answer = client.ask(connection()).await;
        assert_eq!(status(&answer), expected, "{action} {rule}");
        assert!(answer.http_response.is_none());
        assert_eq!(world.records().pop().unwrap().facts.protocol, "tcp");
    }
    world.stop().await;
}

/// The mesh configuration says how a path is read.
#[tokio::test]
async fn the_path_is_read_as_the_mesh_says() {
    let mut world = World::new();
    let mut client = world.client(false).await;
    let policies = policy("one", "DENY", "{to: [{operation: {paths: [/admin]}}]}");
    for (mode, path, expected) in [
        ("BASE", "//admin", 200),
        ("MERGE_SLASHES", "//admin", 403),
        ("MERGE_SLASHES", "/x%2fadmin", 200),
        ("DECODE_AND_MERGE_SLASHES", "/x/..%2fadmin", 403),
        ("NONE", "/%61dmin", 200),
    ] {
        world.policies.set(&policies, &format!("pathNormalization: {{normalization: {mode}}}\n"));
        assert_eq!(client.status(get(path)).await, expected, "{mode} {path}");
    }
    world.stop().await;
}

/// What candidates say, and whether AUDIT matched, is told to later filters.
#[tokio::test]
async fn the_answer_tells_what_candidates_say() {
    let dry = |name: &str, action: &str, rule: &str| {
        policy(name, action, rule)
            .replace("namespace: shop}", "namespace: shop, annotations: {istio.io/dry-run: 'true'}}")
    };
    let mut world = World::with(&format!(
        "{}{}{}{}",
        policy("real", "ALLOW", "{}"),
        policy("seen", "AUDIT", "{}"),
        dry("would-deny", "DENY", "{to: [{operation: {paths: [/x]}}]}"),
        dry("would-allow", "ALLOW", "{to: [{operation: {paths: [/y]}}]}"),
    ));
    let mut client = world.client(false).await;
    let answer = client.ask(get("/x")).await;
    let of = |name: &str| metadata(&answer, name);
    assert_eq!(of("enforced_engine_result").unwrap(), "allowed");
    assert_eq!(of("enforced_effective_policy_id").unwrap(), "ns[shop]-policy[real]-rule[0]");
    assert_eq!(of("istio_dry_run_deny_shadow_engine_result").unwrap(), "denied");
    assert_eq!(of("istio_dry_run_deny_shadow_effective_policy_id").unwrap(), "ns[shop]-policy[would-deny]-rule[0]");
    assert_eq!(of("istio_dry_run_allow_shadow_engine_result").unwrap(), "denied");
    assert_eq!(of("istio_dry_run_allow_shadow_effective_policy_id"), None);
    assert_eq!((of("palisade.phase").unwrap(), of("palisade.audited").unwrap()), ("allow".into(), "true".into()));
    world.stop().await;
}
