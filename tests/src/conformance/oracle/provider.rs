//! Providers for CUSTOM policies: one that allows everything and one that refuses everything. They are listeners of the
//! same Envoy, asked through its own client.

use std::path::Path;

use palisade_policies::{ExtAuthzHttp, ExtensionProvider, JwtRule, ProviderKind};
use serde_json::{Value, json};

use crate::conformance::ours::{FAILING, REFUSING};
use crate::conformance::translate::cluster;

const PORT: u16 = 9000;
/// Their names and answers.
const PROVIDERS: [(&str, u16); 2] = [("grant", 200), (REFUSING, 403)];

/// The mesh's providers.
pub(in crate::conformance) fn providers() -> Vec<ExtensionProvider> {
    PROVIDERS
        .iter()
        .map(|(name, _)| ExtensionProvider { name: (*name).to_owned(), kind: ProviderKind::ExtAuthzHttp(http(name)) })
        .collect()
}

fn http(name: &str) -> ExtAuthzHttp {
    ExtAuthzHttp {
        service: format!("{name}.test"),
        port: PORT,
        timeout: JwtRule::DEFAULT_TIMEOUT,
        fail_open: false,
        status_on_error: Some(FAILING),
        body: None,
        clear_route_cache: false,
        path_prefix: String::new(),
        include_headers: Vec::new(),
        include_additional: [].into(),
        headers_to_upstream_on_allow: Vec::new(),
        headers_to_downstream_on_allow: Vec::new(),
        headers_to_downstream_on_deny: Vec::new(),
    }
}

/// The listeners, with sockets in `directory`.
pub(super) fn listeners(directory: &Path) -> Vec<Value> {
    let listener = |(name, status): &(&str, u16)| {
        json!({
            "name": name,
            "address": { "pipe": { "path": directory.join(name) } },
            "filterChains": [{ "filters": [{ "name": "http", "typedConfig": {
                "@type":
                    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "statPrefix": name,
                "codecType": "HTTP1",
                "httpProtocolOptions": { "allowCustomMethods": true },
                "routeConfig": { "virtualHosts": [{ "name": "all", "domains": ["*"], "routes": [
                    { "match": { "prefix": "/" }, "directResponse": { "status": status } },
                    { "match": { "connectMatcher": {} }, "directResponse": { "status": status } },
                ] }] },
                "httpFilters": [{ "name": "router", "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                } }],
            } }] }],
        })
    };
    PROVIDERS.iter().map(listener).collect()
}

/// The clusters through which they are asked.
pub(super) fn clusters(directory: &Path) -> Vec<Value> {
    let cluster = |(name, _): &(&str, u16)| {
        let name_of_cluster = cluster(&format!("{name}.test"), PORT);
        let address = json!({ "pipe": { "path": directory.join(name) } });
        json!({
            "name": name_of_cluster,
            "type": "STATIC",
            "connectTimeout": "5s",
            "loadAssignment": {
                "clusterName": name_of_cluster,
                "endpoints": [{ "lbEndpoints": [{ "endpoint": { "address": address } }] }],
            },
        })
    };
    PROVIDERS.iter().map(cluster).collect()
}
