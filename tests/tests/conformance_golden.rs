//! The translation that configures the oracle agrees with istiod: Istio's own golden files of the authorization plugin.

#![expect(clippy::expect_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use palisade_policies::{
    AuthorizationPolicy, CheckBody, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, ProviderKind, Severity, SourceText,
    load,
};
use palisade_tests::conformance::translate::{self, Chain, Context, Identity};
use palisade_tests::skip;
use serde_json::Value;

const BUILDER: &str = "pilot/pkg/security/authz/builder/testdata";

/// One row of the tables of `builder_test.go`.
struct Case {
    input: &'static str,
    outputs: &'static [&'static str],
    trust_domains: &'static [&'static str],
    custom: Option<Provider>,
}

/// The mesh configurations of that test; the invalid one has no provider that can be asked.
#[derive(Clone, Copy)]
enum Provider {
    GrpcNoNamespace,
    Grpc,
    Http,
    Invalid,
}

const fn plain(input: &'static str, outputs: &'static [&'static str]) -> Case {
    Case { input, outputs, trust_domains: &[], custom: None }
}

const fn aliases(
    input: &'static str,
    outputs: &'static [&'static str],
    trust_domains: &'static [&'static str],
) -> Case {
    Case { input, outputs, trust_domains, custom: None }
}

const fn custom(input: &'static str, outputs: &'static [&'static str], provider: Provider) -> Case {
    Case { input, outputs, trust_domains: &[], custom: Some(provider) }
}

const HTTP: &[Case] = &[
    plain("allow-empty-rule", &["allow-empty-rule-out"]),
    plain("allow-full-rule", &["allow-full-rule-out"]),
    plain("allow-nil-rule", &["allow-nil-rule-out"]),
    plain("allow-path", &["allow-path-out"]),
    plain("audit-full-rule", &["audit-full-rule-out"]),
    custom(
        "custom-simple-http",
        &["custom-grpc-provider-no-namespace-out1", "custom-grpc-provider-no-namespace-out2"],
        Provider::GrpcNoNamespace,
    ),
    custom("custom-simple-http", &["custom-grpc-provider-out1", "custom-grpc-provider-out2"], Provider::Grpc),
    custom("custom-simple-http", &["custom-http-provider-out1", "custom-http-provider-out2"], Provider::Http),
    custom(
        "custom-bad-multiple-providers",
        &["custom-bad-multiple-providers-out1", "custom-bad-multiple-providers-out2"],
        Provider::Http,
    ),
    custom("custom-simple-http", &["custom-bad-out"], Provider::Invalid),
    plain("deny-and-allow", &["deny-and-allow-out1", "deny-and-allow-out2"]),
    plain("deny-empty-rule", &["deny-empty-rule-out"]),
    plain("dry-run-allow-and-deny", &["dry-run-allow-and-deny-out1", "dry-run-allow-and-deny-out2"]),
    plain("dry-run-allow", &["dry-run-allow-out"]),
    plain("dry-run-mix", &["dry-run-mix-out"]),
    plain("multiple-policies", &["multiple-policies-out"]),
    plain("single-policy", &["single-policy-out"]),
    aliases("simple-policy-td-aliases", &["simple-policy-td-aliases-out"], &["td1", "cluster.local"]),
    aliases(
        "simple-policy-multiple-td-aliases",
        &["simple-policy-multiple-td-aliases-out"],
        &["td1", "cluster.local", "some-td"],
    ),
    aliases(
        "simple-policy-principal-with-wildcard",
        &["simple-policy-principal-with-wildcard-out"],
        &["td1", "foobar"],
    ),
    aliases(
        "td-aliases-source-principal",
        &["td-aliases-source-principal-out"],
        &["new-td", "old-td", "some-trustdomain"],
    ),
    plain("trust-domains", &["trust-domains-out"]),
];

const TCP: &[Case] = &[
    plain("allow-both-http-tcp", &["allow-both-http-tcp-out"]),
    plain("allow-only-http", &["allow-only-http-out"]),
    plain("audit-both-http-tcp", &["audit-both-http-tcp-out"]),
    custom("custom-both-http-tcp", &["custom-both-http-tcp-out1", "custom-both-http-tcp-out2"], Provider::Grpc),
    custom("custom-only-http", &[], Provider::Http),
    plain("deny-both-http-tcp", &["deny-both-http-tcp-out"]),
    plain("dry-run-mix", &["dry-run-mix-out"]),
];

/// A file pair that no test of Istio's names any more.
const STALE: &[&str] = &["allow-host-before-111-in.yaml", "allow-host-before-111-out.yaml"];

const SERVICE: &str = "my-custom-ext-authz.foo.svc.cluster.local";

#[test]
fn istio_golden() {
    let Some(source) = std::env::var_os("ISTIO_SRC").map(PathBuf::from) else {
        return skip("istio_golden", "ISTIO_SRC does not name a checkout of Istio");
    };
    let mut agreed = BTreeSet::new();
    for (folder, cases, chain) in [("http", HTTP, Chain::Http), ("tcp", TCP, Chain::Tcp)] {
        let folder = source.join(BUILDER).join(folder);
        let mut seen = BTreeSet::new();
        for case in cases {
            seen.insert(format!("{}-in.yaml", case.input));
            seen.extend(check(&folder, case, chain));
        }
        let unseen: Vec<String> =
            files(&folder).into_iter().filter(|name| !seen.contains(name) && !STALE.contains(&name.as_str())).collect();
        assert!(unseen.is_empty(), "golden files that no case names: {unseen:?}");
        agreed.extend(seen.into_iter().map(|name| folder.join(name)));
    }
    let outputs = agreed.iter().filter(|path| !path.to_string_lossy().ends_with("-in.yaml")).count();
    eprintln!("istio_golden: {} cases, {} files agree ({outputs} outputs)", HTTP.len() + TCP.len(), agreed.len());
}

/// The outputs of one case that agree: all of them.
fn check(folder: &Path, case: &Case, chain: Chain) -> Vec<String> {
    let policies = policies(&folder.join(format!("{}-in.yaml", case.input)));
    let trust_domains: Vec<String> = case.trust_domains.iter().map(|name| (*name).to_owned()).collect();
    let providers: Vec<ExtensionProvider> = case.custom.and_then(provider).into_iter().collect();
    let context = Context { trust_domains: &trust_domains, providers: &providers, identity: Identity::Certificate };
    let filters = match case.custom {
        Some(_) => translate::custom(&policies, chain, &context),
        None => translate::enforce(&policies, chain, &context),
    };
    let shown = format!("{}/{}", folder.display(), case.input);
    assert_eq!(filters.len(), case.outputs.len(), "{shown}: {filters:#?}");
    let mut names = Vec::new();
    for (filter, output) in filters.into_iter().zip(case.outputs) {
        for prefix in ["", "extended-"] {
            let name = format!("{prefix}{output}.yaml");
            let path = folder.join(&name);
            // Istio keeps the same expectations twice, for HTTP only.
            if !prefix.is_empty() && !path.exists() {
                continue;
            }
            assert_eq!(normal(filter.clone()), normal(yaml(&path)), "{shown} and {name}");
            names.push(name);
        }
    }
    names
}

/// The policies of an input that concern the workload of Istio's test: namespace `foo`, `app: httpbin, version: v1`.
fn policies(path: &Path) -> Vec<Arc<AuthorizationPolicy>> {
    let text = std::fs::read_to_string(path).expect("an input");
    let loaded = load(&[SourceText::new(path.display().to_string(), text)], "foo");
    assert!(loaded.diagnostics.iter().all(|found| found.severity != Severity::Error), "{:#?}", loaded.diagnostics);
    let labels = BTreeMap::from([("app", "httpbin"), ("version", "v1")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    let selects = |policy: &AuthorizationPolicy| {
        let here = ["foo", "istio-system", ""].contains(&policy.meta.namespace.as_str());
        here && policy.selector.as_ref().is_none_or(|selector| selector.matches(&labels))
    };
    loaded.resources.authorization_policies.into_iter().filter(|policy| selects(policy)).collect()
}

fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a golden file");
    serde_saphyr::from_str(&text).expect("YAML")
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("a folder of golden files");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// One spelling for what protobuf's JSON spells in two ways.
fn normal(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<String, Value> = fields.into_iter().map(|(key, value)| (key, normal(value))).collect();
            sorted.into_iter().collect()
        }
        Value::Array(items) => items.into_iter().map(normal).collect(),
        Value::String(name) if name == "Forbidden" => 403.into(),
        other => other,
    }
}

fn provider(which: Provider) -> Option<ExtensionProvider> {
    let kind = match which {
        Provider::GrpcNoNamespace => {
            ProviderKind::ExtAuthzGrpc(grpc(SERVICE.to_owned(), Duration::from_secs(600), None))
        }
        Provider::Grpc => {
            let body = CheckBody { max_bytes: 4096, allow_partial: true, pack_as_bytes: false };
            ProviderKind::ExtAuthzGrpc(grpc(format!("foo/{SERVICE}"), Duration::from_millis(2), Some(body)))
        }
        Provider::Http => ProviderKind::ExtAuthzHttp(http()),
        Provider::Invalid => return None,
    };
    Some(ExtensionProvider { name: "default".to_owned(), kind })
}

fn grpc(service: String, timeout: Duration, body: Option<CheckBody>) -> ExtAuthzGrpc {
    ExtAuthzGrpc {
        service,
        port: 9000,
        timeout,
        fail_open: true,
        status_on_error: Some(403),
        body,
        clear_route_cache: false,
    }
}

fn http() -> ExtAuthzHttp {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let cookies = names(&["Set-cookie", "x-prefix-*", "*-suffix"]);
    let additional = [("x-header-1", "value-1"), ("x-header-2", "value-2")];
    ExtAuthzHttp {
        service: format!("foo/{SERVICE}"),
        port: 9000,
        timeout: Duration::from_secs(10),
        fail_open: true,
        status_on_error: Some(403),
        body: Some(CheckBody { max_bytes: 2048, allow_partial: true, pack_as_bytes: true }),
        clear_route_cache: false,
        path_prefix: "/check".to_owned(),
        include_headers: names(&["x-custom-id", "x-prefix-*", "*-suffix"]),
        include_additional: additional.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        headers_to_upstream_on_allow: names(&["Authorization", "x-prefix-*", "*-suffix"]),
        headers_to_downstream_on_allow: cookies.clone(),
        headers_to_downstream_on_deny: cookies,
    }
}
