//! A scene as a listener of Envoy: the translated filters, and around them what lets a test choose every attribute and
//! read every result.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use palisade_policies::PathNormalization;
use serde_json::{Map, Value, json};

use super::{has_dry_run, proxy_protocol};
use crate::conformance::identities::Identities;
use crate::conformance::scene::{METADATA, Place, Scene, Tls};
use crate::conformance::translate::{self, Chain, Context, Identity};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";
/// Request headers that belong to the harness.
pub(super) const PEER_HEADER: &str = "x-palisade-peer";
pub(super) const NUMBER_HEADER: &str = "x-palisade-number";
pub(super) const METADATA_HEADER: &str = "x-palisade-metadata";

/// The listener called `name` at `address`; connections are logged to `log` where there is no HTTP to answer with.
pub(super) fn listener(scene: &Scene, name: &str, address: SocketAddr, identities: &Identities, log: &Path) -> Value {
    let mut listener_filters = Vec::new();
    if matches!(scene.door.place, Place::Proxied { .. }) {
        listener_filters.push(proxy_protocol_filter());
    }
    if scene.door.tls != Tls::Plain {
        listener_filters.push(typed("tls", "listener.tls_inspector.v3.TlsInspector", json!({})));
    }
    let mut chain = json!({ "filters": match scene.chain {
        Chain::Http => vec![http_connection_manager(scene, access_log(scene, name, log))],
        Chain::Tcp => network(scene),
    } });
    if scene.door.tls == Tls::Ended {
        chain["transportSocket"] = identities.transport_socket();
    }
    let mut listener = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": { "socketAddress": { "address": address.ip(), "portValue": address.port() } },
        "listenerFilters": listener_filters,
        "filterChains": [chain],
    });
    if scene.chain == Chain::Tcp {
        listener["accessLog"] = access_log(scene, name, log);
    }
    listener
}

fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("{FILTERS}.{kind}").into();
    json!({ "name": name, "typedConfig": config })
}

fn proxy_protocol_filter() -> Value {
    typed(
        "proxy_protocol",
        "listener.proxy_protocol.v3.ProxyProtocol",
        json!({ "rules": [
        { "tlvType": proxy_protocol::PEER, "onTlvPresent": { "metadataNamespace": "palisade", "key": "peer" } },
        {
            "tlvType": proxy_protocol::METADATA,
            "onTlvPresent": { "metadataNamespace": METADATA.0, "key": METADATA.1 },
        },
    ] }),
    )
}

/// The translated filters of a scene, in the order of an inbound chain.
fn translated(scene: &Scene) -> (Vec<Value>, Vec<Value>) {
    let trust_domains: Vec<String> = std::iter::once(scene.mesh.trust_domain.to_string())
        .chain(scene.mesh.trust_domain_aliases.iter().cloned())
        .collect();
    let context = Context {
        trust_domains: &trust_domains,
        providers: &scene.mesh.extension_providers,
        identity: scene.door.identity,
    };
    let custom = translate::custom(&scene.policies, scene.chain, &context);
    let enforce = translate::enforce(&scene.policies, scene.chain, &context);
    (custom, enforce)
}

fn network(scene: &Scene) -> Vec<Value> {
    let mut filters = Vec::new();
    if scene.door.identity == Identity::FilterState {
        filters.push(typed(
            "peer",
            "network.set_filter_state.v3.Config",
            json!({
                "onNewConnection": [peer("%DYNAMIC_METADATA(palisade:peer)%")],
            }),
        ));
    }
    let (custom, enforce) = translated(scene);
    filters.extend(custom);
    filters.extend(enforce);
    filters.push(typed("echo", "network.echo.v3.Echo", json!({})));
    filters
}

fn peer(format: &str) -> Value {
    json!({
        "objectKey": "io.istio.peer_principal",
        "factoryKey": "envoy.string",
        "formatString": { "textFormatSource": { "inlineString": format }, "omitEmptyValues": true },
        "skipIfEmpty": true,
    })
}

/// Metadata and the peer's identity arrive in headers.
fn said_in_headers() -> Vec<Value> {
    let metadata = json!({ "requestRules": [{
        "header": METADATA_HEADER,
        "onHeaderPresent": {
            "metadataNamespace": METADATA.0, "key": METADATA.1, "type": "PROTOBUF_VALUE", "encode": "BASE64",
        },
        "remove": true,
    }] });
    let state = json!({ "onRequestHeaders": [peer(&format!("%REQ({PEER_HEADER})%"))] });
    vec![
        typed("metadata", "http.header_to_metadata.v3.Config", metadata),
        typed("peer", "http.set_filter_state.v3.Config", state),
    ]
}

/// The filters of a request, before the router.
fn http_filters(scene: &Scene) -> Vec<Value> {
    let (custom, enforce) = translated(scene);
    let mut filters = said_in_headers();
    filters.extend(custom);
    filters.extend(translate::authentication(&scene.authentications, false, &|_| "{\"keys\":[]}".to_owned()));
    filters.extend(enforce);
    filters.push(typed("router", "http.router.v3.Router", json!({})));
    filters
}

fn http_connection_manager(scene: &Scene, access_log: Value) -> Value {
    let mut manager = json!({
        "statPrefix": "http",
        "accessLog": access_log,
        "codecType": "HTTP1",
        "generateRequestId": false,
        "httpProtocolOptions": { "allowCustomMethods": true },
        "upgradeConfigs": [{ "upgradeType": "CONNECT" }],
        "useRemoteAddress": scene.trusted_hops.is_some(),
        "xffNumTrustedHops": scene.trusted_hops.unwrap_or_default(),
        "localReplyConfig": { "bodyFormat": { "jsonFormat": body_format(scene) } },
        "routeConfig": { "virtualHosts": [{ "name": "all", "domains": ["*"], "routes": [
            { "match": { "prefix": "/" }, "directResponse": { "status": 200 } },
            { "match": { "connectMatcher": {} }, "directResponse": { "status": 200 } },
        ] }] },
        "httpFilters": http_filters(scene),
    });
    for (option, value) in normalisation(scene.mesh.path_normalization) {
        manager[option] = value;
    }
    typed("http", "network.http_connection_manager.v3.HttpConnectionManager", manager)
}

/// As istiod sets it for each option of the mesh.
fn normalisation(option: PathNormalization) -> Vec<(&'static str, Value)> {
    let keep = ("pathWithEscapedSlashesAction", json!("KEEP_UNCHANGED"));
    let normalize = |on: bool| ("normalizePath", Value::Bool(on));
    let merge = ("mergeSlashes", Value::Bool(true));
    match option {
        PathNormalization::None => vec![normalize(false), keep],
        PathNormalization::Base => vec![normalize(true), keep],
        PathNormalization::MergeSlashes => vec![normalize(true), merge, keep],
        PathNormalization::DecodeAndMergeSlashes => {
            vec![normalize(true), merge, ("pathWithEscapedSlashesAction", json!("UNESCAPE_AND_FORWARD"))]
        }
    }
}

/// Every response is made here, so its body can say everything that Envoy knows about the decision.
fn body_format(scene: &Scene) -> Value {
    let headers: Map<String, Value> =
        watched(scene).into_iter().map(|name| (name.clone(), Value::String(format!("%REQ({name})%")))).collect();
    json!({
        "details": "%RESPONSE_CODE_DETAILS%",
        "rbac": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%",
        "audited": "%DYNAMIC_METADATA(envoy.common:access_log_hint)%",
        "path": "%REQ(:PATH)%",
        "headers": headers,
    })
}

/// The headers that token verification of this scene may touch, in lower case.
pub(in crate::conformance) fn watched(scene: &Scene) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    if scene.trusts_claims() {
        return names;
    }
    for rule in scene.authentications.iter().flat_map(|policy| &policy.rules) {
        names.insert("authorization".to_owned());
        names.extend(rule.from_headers.iter().map(|location| location.name.to_ascii_lowercase()));
        names.extend(rule.output_payload_to_header.iter().map(|name| name.to_ascii_lowercase()));
        names.extend(rule.output_claim_to_headers.iter().map(|to| to.header.to_ascii_lowercase()));
    }
    names
}

/// The log of a scene whose responses do not say everything.
fn access_log(scene: &Scene, name: &str, path: &Path) -> Value {
    let (which, details, filter) = match scene.chain {
        Chain::Http => (format!("%REQ({NUMBER_HEADER})%"), "%RESPONSE_CODE_DETAILS%", "http"),
        Chain::Tcp => ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%".to_owned(), "%CONNECTION_TERMINATION_DETAILS%", "network"),
    };
    if scene.chain == Chain::Http && !has_dry_run(scene) {
        return json!([]);
    }
    json!([{ "name": "file", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path,
        "logFormat": { "jsonFormat": {
            "listener": name,
            "which": which,
            "details": details,
            "rbac": format!("%DYNAMIC_METADATA(envoy.filters.{filter}.rbac)%"),
            "audited": "%DYNAMIC_METADATA(envoy.common:access_log_hint)%",
        } },
    } }])
}
