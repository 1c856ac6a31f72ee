//! An Envoy that has its certificate and its trust from an agent: an echo behind mTLS (`mtls`), and a plain port (`plain`) that leads
//! through Envoy's own mTLS to an upstream. Each connection to `plain` is a handshake: nothing is kept open, nothing is resumed.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// How Envoy asks for its secrets.
#[derive(Debug, Clone, Copy)]
pub enum Protocol {
    /// State of the world.
    Whole,
    /// Delta.
    Delta,
}

/// The bootstrap of an Envoy that asks at `socket`, accepts every identity of `trust_domain`, and calls `upstream`.
#[must_use]
pub fn bootstrap(socket: &Path, protocol: Protocol, trust_domain: &str, upstream: SocketAddr) -> Value {
    let sds = sds(protocol);
    let common = json!({
        "tls_certificate_sds_secret_configs": [{ "name": "default", "sds_config": sds }],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "prefix": format!("spiffe://{trust_domain}/") } }],
            },
            "validation_context_sds_secret_config": { "name": "ROOTCA", "sds_config": sds },
        },
    });
    json!({
        "node": { "id": "interop", "cluster": "interop" },
        "admin": { "address": any_port() },
        "static_resources": {
            "listeners": [mtls_listener(&common), plain_listener()],
            "clusters": [sds_cluster(socket), upstream_cluster(&common, upstream)],
        },
    })
}

fn any_port() -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } })
}

fn sds(protocol: Protocol) -> Value {
    let api_type = match protocol {
        Protocol::Whole => "GRPC",
        Protocol::Delta => "DELTA_GRPC",
    };
    json!({
        "resource_api_version": "V3",
        // Until the secrets have come the port stays closed.
        "initial_fetch_timeout": "0s",
        "api_config_source": {
            "api_type": api_type,
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            // Its own pauses between attempts grow to half a minute.
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds", "retry_policy": {
                "retry_back_off": { "base_interval": "0.1s", "max_interval": "1s" },
            } } }],
        },
    })
}

fn mtls_listener(common: &Value) -> Value {
    json!({
        "name": "mtls",
        "address": any_port(),
        "filter_chains": [{
            "transport_socket": { "name": "tls", "typed_config": {
                "@type": format!("{TLS}.DownstreamTlsContext"),
                "require_client_certificate": true,
                "disable_stateless_session_resumption": true,
                "disable_stateful_session_resumption": true,
                "common_tls_context": common,
            } },
            "filters": [{ "name": "echo", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo",
            } }],
        }],
    })
}

fn plain_listener() -> Value {
    json!({
        "name": "plain",
        "address": any_port(),
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "plain",
            "cluster": "upstream",
        } }] }],
    })
}

fn sds_cluster(socket: &Path) -> Value {
    json!({
        "name": "sds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        } },
        "load_assignment": endpoint("sds", &json!({ "pipe": { "path": socket } })),
    })
}

fn upstream_cluster(common: &Value, upstream: SocketAddr) -> Value {
    let address = json!({ "socket_address": { "address": upstream.ip(), "port_value": upstream.port() } });
    json!({
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "5s",
        "transport_socket": { "name": "tls", "typed_config": {
            "@type": format!("{TLS}.UpstreamTlsContext"),
            "max_session_keys": 0,
            "common_tls_context": common,
        } },
        "load_assignment": endpoint("upstream", &address),
    })
}

fn endpoint(cluster: &str, address: &Value) -> Value {
    json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }] })
}
