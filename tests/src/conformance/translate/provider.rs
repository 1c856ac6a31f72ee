//! The filter that asks a CUSTOM policy's provider, behind the RBAC filter that says whether to ask.

use std::time::Duration;

use palisade_policies::{CheckBody, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, ProviderKind};
use serde_json::{Value, json};

use super::Chain;
use super::rbac::CUSTOM_PREFIX;

/// The filter of the provider called `name`: `None` where there is no such provider that can be asked, `Some(None)`
/// where it is not asked on this chain.
pub(super) fn filter(name: &str, chain: Chain, providers: &[ExtensionProvider]) -> Option<Option<Value>> {
    let provider = providers.iter().find(|provider| provider.name == name)?;
    match (&provider.kind, chain) {
        (ProviderKind::Other(_), _) => None,
        (ProviderKind::ExtAuthzHttp(http), Chain::Http) => Some(Some(over_http(name, http))),
        (ProviderKind::ExtAuthzHttp(_), Chain::Tcp) => Some(None),
        (ProviderKind::ExtAuthzGrpc(grpc), Chain::Http) => Some(Some(over_grpc(name, grpc))),
        (ProviderKind::ExtAuthzGrpc(grpc), Chain::Tcp) => Some(Some(connection(name, grpc))),
    }
}

/// The name of the cluster through which a service is asked.
#[must_use]
pub fn cluster(service: &str, port: u16) -> String {
    format!("outbound|{port}||{}", host(service))
}

fn host(service: &str) -> &str {
    service.split_once('/').map_or(service, |(_, host)| host)
}

fn over_http(name: &str, provider: &ExtAuthzHttp) -> Value {
    let mut service = json!({ "serverUri": {
        "uri": format!("http://{}", host(&provider.service)),
        "cluster": cluster(&provider.service, provider.port),
        "timeout": seconds(provider.timeout),
    } });
    if !provider.path_prefix.is_empty() {
        service["pathPrefix"] = provider.path_prefix.as_str().into();
    }
    let added = provider.include_additional.iter().map(|(key, value)| json!({ "key": key, "value": value }));
    let added: Vec<Value> = added.collect();
    if !added.is_empty() {
        service["authorizationRequest"] = json!({ "headersToAdd": added });
    }
    let mut response = json!({});
    let lists = [
        ("allowedUpstreamHeaders", &provider.headers_to_upstream_on_allow),
        ("allowedClientHeaders", &provider.headers_to_downstream_on_deny),
        ("allowedClientHeadersOnSuccess", &provider.headers_to_downstream_on_allow),
    ];
    for (key, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
        response[key] = patterns(names);
        service["authorizationResponse"] = response.clone();
    }
    let failure = (provider.fail_open, provider.status_on_error);
    let mut config = common(name, failure, provider.body);
    config["httpService"] = service;
    if !provider.include_headers.is_empty() {
        config["allowedHeaders"] = patterns(&provider.include_headers);
    }
    named_http(config)
}

fn over_grpc(name: &str, provider: &ExtAuthzGrpc) -> Value {
    let failure = (provider.fail_open, provider.status_on_error);
    let mut config = common(name, failure, provider.body);
    config["grpcService"] = grpc_service(provider);
    named_http(config)
}

fn connection(name: &str, provider: &ExtAuthzGrpc) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
        "statPrefix": "tcp.",
        "transportApiVersion": "V3",
        "grpcService": grpc_service(provider),
        "filterEnabledMetadata": enabled("envoy.filters.network.rbac", name),
    });
    if provider.fail_open {
        config["failureModeAllow"] = true.into();
    }
    json!({ "name": "envoy.filters.network.ext_authz", "typedConfig": config })
}

fn named_http(mut config: Value) -> Value {
    config["@type"] = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz".into();
    json!({ "name": "envoy.filters.http.ext_authz", "typedConfig": config })
}

fn common(name: &str, (fail_open, status): (bool, Option<u16>), body: Option<CheckBody>) -> Value {
    let mut config = json!({
        "transportApiVersion": "V3",
        "filterEnabledMetadata": enabled("envoy.filters.http.rbac", name),
    });
    if fail_open {
        config["failureModeAllow"] = true.into();
    }
    if let Some(code) = status {
        config["statusOnError"] = json!({ "code": code });
    }
    if let Some(body) = body {
        let mut settings = json!({ "maxRequestBytes": body.max_bytes });
        for (key, set) in [("allowPartialMessage", body.allow_partial), ("packAsBytes", body.pack_as_bytes)] {
            if set {
                settings[key] = true.into();
            }
        }
        config["withRequestBody"] = settings;
    }
    config
}

fn enabled(filter: &str, provider: &str) -> Value {
    json!({
        "filter": filter,
        "path": [{ "key": format!("{CUSTOM_PREFIX}shadow_effective_policy_id") }],
        "value": { "stringMatch": { "prefix": format!("istio-ext-authz-{provider}") } },
    })
}

fn grpc_service(provider: &ExtAuthzGrpc) -> Value {
    json!({
        "envoyGrpc": {
            "clusterName": cluster(&provider.service, provider.port),
            "authority": host(&provider.service),
        },
        "timeout": seconds(provider.timeout),
    })
}

fn patterns(names: &[String]) -> Value {
    let pattern = |name: &String| {
        let mut matcher = match (name.strip_prefix('*'), name.strip_suffix('*')) {
            (Some(suffix), _) => json!({ "suffix": suffix }),
            (None, Some(prefix)) => json!({ "prefix": prefix }),
            (None, None) => json!({ "exact": name }),
        };
        matcher["ignoreCase"] = true.into();
        matcher
    };
    json!({ "patterns": names.iter().map(pattern).collect::<Vec<_>>() })
}

fn seconds(duration: Duration) -> String {
    let text = format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}
