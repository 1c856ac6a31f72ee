//! Looking up services and workloads.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use palisade_policies::{AppProtocol, MeshConfig, SourceText, load, registry::Registry};

fn registry(text: &str) -> Registry {
    let loaded = load(&[SourceText::new("f", text)], "shop");
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    Registry::new(Arc::new(loaded.resources), &MeshConfig::default())
}

fn workload(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn service(metadata: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{{metadata}}}\nspec: {{resolution: \
         STATIC, {spec}}}\n"
    )
}

fn endpoints(registry: &Registry, host: &str, port: u16) -> Vec<(String, Option<String>)> {
    let route = registry.service(host, port).unwrap();
    let pair = |endpoint: &palisade_policies::registry::Endpoint| {
        (endpoint.address.to_string(), endpoint.identity.as_ref().map(|id| id.as_str().to_owned()))
    };
    route.endpoints.iter().map(pair).collect()
}

#[test]
fn a_selector_takes_workloads_of_its_namespace_with_their_ports_and_identities() {
    let registry = registry(
        &(workload("a", "address: 10.0.0.1, labels: {app: pay, security.istio.io/tlsMode: istio}, ports: {web: 9000}")
            + &workload("b", "address: 'fd00::2', labels: {app: pay}, serviceAccount: pay, weight: 3")
            + &workload(
                "c",
                "address: 10.0.0.3, labels: {app: pay, security.istio.io/tlsMode: disabled}, serviceAccount: pay",
            )
            + &workload("d, namespace: other", "address: 10.0.0.4, labels: {app: pay}")
            + &workload("e", "address: 10.0.0.5, labels: {app: web}")
            + &service(
                "name: pay",
                "hosts: [Pay.shop], location: MESH_INTERNAL, workloadSelector: {labels: {app: pay}}, ports: [{number: 80, \
                 name: web, protocol: HTTP, targetPort: 8080}, {number: 81, name: tcp-raw}, {number: 82, name: other}]",
            )),
    );
    let id = |account: &str| Some(format!("spiffe://cluster.local/ns/shop/sa/{account}"));
    assert_eq!(
        endpoints(&registry, "pay.SHOP.", 80),
        [
            ("10.0.0.1:9000".to_owned(), id("default")),
            ("[fd00::2]:8080".to_owned(), id("pay")),
            ("10.0.0.3:8080".to_owned(), None),
        ]
    );
    assert_eq!(endpoints(&registry, "pay.shop", 81)[0].0, "10.0.0.1:81", "neither own nor target port");
    let route = |port| registry.service("pay.shop", port).unwrap();
    assert_eq!(
        [route(80), route(81), route(82)].map(|route| route.protocol),
        [AppProtocol::Http, AppProtocol::Tcp, AppProtocol::Detect]
    );
    assert_eq!(route(80).endpoints.iter().map(|endpoint| endpoint.weight).collect::<Vec<_>>(), [1, 3, 1]);
    assert_eq!(route(80).endpoints[1].workload, ("shop".to_owned(), "b".to_owned()));
    assert!(registry.service("pay.shop", 8080).is_none() && registry.service("pay", 80).is_none());
    assert_eq!(registry.services().count(), 3);
}

#[test]
fn inline_endpoints_are_used_and_external_services_are_plaintext() {
    let registry = registry(&service(
        "name: ext",
        "hosts: [ext.example, www.ext.example], ports: [{number: 443, name: tls, protocol: TLS}], endpoints: [{address: \
         192.0.2.1, ports: {tls: 8443}, weight: 2, labels: {security.istio.io/tlsMode: disabled}}]",
    ));
    assert_eq!(endpoints(&registry, "www.ext.example", 443), [("192.0.2.1:8443".to_owned(), None)]);
    let route = registry.service("ext.example", 443).unwrap();
    assert_eq!((route.protocol, route.endpoints[0].weight, route.host.as_str()), (AppProtocol::Tcp, 2, "ext.example"));
    assert_eq!(route.endpoints[0].workload, ("shop".to_owned(), "ext".to_owned()));
}

#[test]
fn of_two_services_with_one_host_the_older_counts_whole() {
    let entry = |name: &str, created: &str, address: &str| {
        let spec = format!("hosts: [x.y], ports: [{{number: 1, name: a}}], endpoints: [{{address: {address}}}]");
        service(&format!("name: {name}, creationTimestamp: \"{created}\""), &spec)
    };
    let registry =
        registry(&(entry("a", "2026-01-02T00:00:00Z", "10.0.0.1") + &entry("b", "2026-01-01T00:00:00Z", "10.0.0.2")));
    assert_eq!(endpoints(&registry, "x.y", 1), [("10.0.0.2:1".to_owned(), None)]);
}

#[test]
fn workloads_are_found_by_address_and_by_name() {
    let registry = registry(&(workload("a", "address: 10.0.0.1") + &workload("b", "address: '::ffff:10.0.0.1'")));
    let names = |ip: &str| -> Vec<String> {
        registry.workload_by_ip(ip.parse().unwrap()).iter().map(|entry| entry.meta.name.clone()).collect()
    };
    assert_eq!(names("10.0.0.1"), ["a", "b"]);
    assert_eq!(names("::ffff:10.0.0.1"), ["a", "b"]);
    assert_eq!(names("10.0.0.2"), [""; 0]);
    assert_eq!(registry.workload("shop", "b").map(|entry| entry.address.as_str()), Some("::ffff:10.0.0.1"));
    assert!(registry.workload("other", "b").is_none());
}

#[test]
fn protocols_are_named_as_istio_names_them() {
    let table = [
        ("HTTP", Some(AppProtocol::Http)),
        ("http1", Some(AppProtocol::Http1)),
        ("HTTP2", Some(AppProtocol::Http2)),
        ("gRPC-Web", Some(AppProtocol::Grpc)),
        ("HTTPS", Some(AppProtocol::Tcp)),
        ("Mongo", Some(AppProtocol::Tcp)),
        ("UDP", None),
        ("", None),
    ];
    for (text, protocol) in table {
        assert_eq!(AppProtocol::parse(text), protocol, "{text}");
    }
    for (name, protocol) in [
        ("http", AppProtocol::Http),
        ("http-web", AppProtocol::Http),
        ("http2-web", AppProtocol::Http2),
        ("grpc-web-x", AppProtocol::Grpc),
        ("tcp-raw", AppProtocol::Tcp),
        ("httpweb", AppProtocol::Detect),
        ("web", AppProtocol::Detect),
    ] {
        assert_eq!(AppProtocol::from_port_name(name), protocol, "{name}");
    }
}
