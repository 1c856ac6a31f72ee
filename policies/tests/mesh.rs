//! The mesh configuration: defaults, what is used, and the extension providers.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use palisade_policies::{
    CheckBody, Diagnostic, ExtAuthzGrpc, ExtAuthzHttp, MeshConfig, PathNormalization, ProviderKind, SourceText,
};

fn parse(text: &str) -> (Option<MeshConfig>, Vec<Diagnostic>) {
    MeshConfig::parse(&SourceText::new("mesh", text))
}

fn good(text: &str) -> MeshConfig {
    let (config, found) = parse(text);
    assert_eq!(found, [], "{text}");
    config.unwrap()
}

#[test]
fn the_mesh_configuration_is_read_and_has_istios_defaults() {
    assert_eq!(good("# nothing\n"), MeshConfig::default());
    let sample = good(include_str!("../samples/mesh.yaml"));
    assert_eq!(
        (sample.trust_domain.as_str(), sample.path_normalization),
        ("shop.example", PathNormalization::MergeSlashes)
    );
    assert_eq!(sample.trust_domain_aliases, ["cluster.local"]);
    let [provider] = &sample.extension_providers[..] else { panic!("{sample:?}") };
    assert_eq!((provider.name.as_str(), sample.jwks_allow.len()), ("refunds", 1));
    let (warned, found) =
        parse("enableAutoMtls: true\nrootNamespace: root\npalisade: {}\ntrustDomainAliases: ['*', 'a*']\n");
    assert_eq!((warned.unwrap().root_namespace.as_str(), found[0].code, found.len()), ("root", "PAL0502", 1));
    for broken in
        ["[", "a: 1\n---\nb: 2", "- x", "palisade: {ambiguousRequests: istio}", "trustDomains: x", "trustDomain:"]
    {
        let (config, found) = parse(broken);
        assert!(config.is_none() && found.iter().any(|found| found.is_error()), "{broken}");
    }
}

#[test]
fn private_networks_are_opened_to_the_fetcher_by_name() {
    let config = good("palisade: {jwksAllow: [10.1.2.3/8, 192.168.0.7, \"fd00::1\", \"fd00::/8\"]}");
    let networks: Vec<String> = config.jwks_allow.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.168.0.7/32", "fd00::1/128", "fd00::/8"]);
    assert!(good("palisade: {jwksAllow: []}").jwks_allow.is_empty() && good("{}").jwks_allow.is_empty());
}

fn grpc(fields: &str) -> ExtAuthzGrpc {
    let mut config = good(&format!("extensionProviders: [{{name: ext, envoyExtAuthzGrpc: {{{fields}}}}}]"));
    match config.extension_providers.remove(0).kind {
        ProviderKind::ExtAuthzGrpc(provider) => provider,
        other => panic!("{other:?}"),
    }
}

fn http(fields: &str) -> ExtAuthzHttp {
    let mut config = good(&format!("extensionProviders: [{{name: ext, envoyExtAuthzHttp: {{{fields}}}}}]"));
    match config.extension_providers.remove(0).kind {
        ProviderKind::ExtAuthzHttp(provider) => provider,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_grpc_provider_is_read_with_istios_defaults() {
    let expected = ExtAuthzGrpc {
        service: "authz.shop".to_owned(),
        port: 9000,
        timeout: Duration::from_secs(600),
        fail_open: false,
        status_on_error: None,
        body: None,
        clear_route_cache: false,
    };
    assert_eq!(grpc("service: authz.shop, port: 9000"), expected);
    let body = CheckBody { max_bytes: 8, allow_partial: true, pack_as_bytes: true };
    let expected = ExtAuthzGrpc {
        service: "shop/authz.example.org".to_owned(),
        port: 65535,
        timeout: Duration::from_millis(1500),
        fail_open: true,
        status_on_error: Some(503),
        body: Some(body),
        clear_route_cache: true,
    };
    let fields = "service: shop/authz.example.org, port: 65535, timeout: 1.5s, failOpen: true, statusOnError: \"503\", \
                  includeRequestBodyInCheck: {maxRequestBytes: 8, allowPartialMessage: true, packAsBytes: true}, \
                  clearRouteCache: true";
    assert_eq!(grpc(fields), expected);
}

#[test]
fn an_http_provider_is_read_with_istios_defaults() {
    let plain = http("service: authz, port: 1");
    assert_eq!((plain.timeout, plain.path_prefix.as_str(), plain.fail_open), (Duration::from_secs(600), "", false));
    assert_eq!((plain.body, plain.status_on_error, plain.clear_route_cache), (None, None, false));
    assert!(plain.include_headers.is_empty() && plain.include_additional.is_empty());
    assert!(plain.headers_to_upstream_on_allow.is_empty() && plain.headers_to_downstream_on_allow.is_empty());
    assert!(plain.headers_to_downstream_on_deny.is_empty());
    let fields = "service: 10.0.0.7, port: 80, timeout: 1ms, pathPrefix: /check, includeRequestHeadersInCheck: [a, b*], \
                  includeAdditionalHeadersInCheck: {X-From: mesh, x-empty: \"\"}, headersToUpstreamOnAllow: [\"*c\"], \
                  headersToDownstreamOnAllow: [d], headersToDownstreamOnDeny: [e], statusOnError: \"\", \
                  includeRequestBodyInCheck: {maxRequestBytes: 1}";
    let full = http(fields);
    assert_eq!((full.include_headers.join(" "), full.path_prefix.as_str()), ("a b*".to_owned(), "/check"));
    assert_eq!(full.include_additional.get("X-From").map(String::as_str), Some("mesh"));
    assert_eq!(full.include_additional.get("x-empty").map(String::as_str), Some(""));
    assert_eq!(full.headers_to_upstream_on_allow, ["*c"]);
    assert_eq!(full.headers_to_downstream_on_allow, ["d"]);
    assert_eq!(full.headers_to_downstream_on_deny, ["e"]);
    let body = CheckBody { max_bytes: 1, allow_partial: false, pack_as_bytes: false };
    assert_eq!((full.body, full.status_on_error, full.timeout), (Some(body), None, Duration::from_millis(1)));
}

#[test]
fn the_older_list_of_headers_counts_where_the_newer_is_empty() {
    assert_eq!(http("service: a, port: 1, includeHeadersInCheck: [a]").include_headers, ["a"]);
    let both = "service: a, port: 1, includeRequestHeadersInCheck: [b], includeHeadersInCheck: [a]";
    assert_eq!(http(both).include_headers, ["b"]);
}

#[test]
fn services_are_names_with_or_without_their_namespace() {
    for service in ["a", "a.b", "A.b-c.d.", "10.0.0.7", "fd00::7", "ns/a.b"] {
        assert_eq!(grpc(&format!("service: \"{service}\", port: 1")).service, service);
    }
    let long = "a".repeat(64);
    for service in ["a_b", "a..b", ".", "-a", "a.1", "1.2.3", "ns/a", "/a.b", "ns/", "a/b/c.d", "*.a", "ns/*.a", &long]
    {
        let text =
            format!("extensionProviders: [{{name: ext, envoyExtAuthzGrpc: {{service: \"{service}\", port: 1}}}}]");
        let (config, found) = parse(&text);
        let codes: Vec<_> = found.iter().map(|found| found.code).collect();
        assert_eq!((config, codes), (None, vec!["PAL0507"]), "{service}");
    }
}

#[test]
fn other_providers_are_known_and_said_to_be_unused() {
    for kind in ["zipkin", "prometheus", "envoyFileAccessLog", "opentelemetry", "sds"] {
        let (config, found) = parse(&format!("extensionProviders: [{{name: Any_name, {kind}: {{anything: []}}}}]"));
        let provider = config.unwrap().extension_providers.remove(0);
        assert_eq!((provider.name.as_str(), provider.kind), ("Any_name", ProviderKind::Other(kind.to_owned())));
        assert_eq!((found[0].code, found.len()), ("PAL0506", 1));
    }
}

#[test]
fn names_of_providers_are_labels_and_unique() {
    let provider = |name: &str| format!("{{name: \"{name}\", envoyExtAuthzGrpc: {{service: a, port: 1}}}}");
    let codes = |names: &[&str]| {
        let list: Vec<String> = names.iter().map(|name| provider(name)).collect();
        let (_, found) = parse(&format!("extensionProviders: [{}]", list.join(", ")));
        found.iter().map(|found| found.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(&["a", "b-1", &"c".repeat(63)]), [""; 0]);
    assert_eq!(codes(&["a", "b", "a"]), ["PAL0504"]);
    for name in ["A", "a.b", "a_b", "-a", "a-", "ä", &"a".repeat(64)] {
        assert_eq!(codes(&[name]), ["PAL0503"], "{name}");
    }
}
