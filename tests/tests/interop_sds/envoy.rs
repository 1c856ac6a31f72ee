//! Envoy as a subscriber of the agent: what it is configured to do, and where it is reached.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use palisade_tests::{envoy, poll_async, skip};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// The Envoy of the pinned environment; `None` after a reported skip.
pub(crate) fn binary(test: &str) -> Option<PathBuf> {
    let found = envoy::binary();
    if found.is_none() {
        skip(test, "no Envoy: `cargo xtask test` installs it");
    }
    found
}

/// How Envoy asks for its secrets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    /// State of the world.
    Whole,
    Delta,
}

/// A running Envoy: an echo behind mTLS, and a plain port that leads through Envoy's own mTLS to an upstream.
pub(crate) struct Envoy(envoy::Envoy);

impl Envoy {
    pub(crate) fn start(binary: &Path, socket: &Path, protocol: Protocol, upstream: SocketAddr) -> Self {
        Self::start_with(binary, socket, protocol, upstream, |_| {})
    }

    /// The same after a change of the bootstrap.
    pub(crate) fn start_with(
        binary: &Path,
        socket: &Path,
        protocol: Protocol,
        upstream: SocketAddr,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let mut bootstrap = bootstrap(socket, protocol, upstream);
        change(&mut bootstrap);
        Self(envoy::Envoy::start(binary, &bootstrap).expect("Envoy starts"))
    }

    /// The mTLS port, once it is open: Envoy opens it when the secrets have come.
    pub(crate) async fn mtls(&self) -> SocketAddr {
        self.open("mtls").await
    }

    /// The plain port.
    pub(crate) async fn plain(&self) -> SocketAddr {
        self.open("plain").await
    }

    /// A listener has its address before it listens.
    async fn open(&self, name: &str) -> SocketAddr {
        let address = self.0.listener(name).expect("a listener");
        poll_async("an open listener", || async {
            let connected = TcpStream::connect(address).await;
            connected.map(|_| address).map_err(|error| format!("{address}: {error}; {}", self.0.log()))
        })
        .await
    }

    /// One of Envoy's counters; 0 if it does not exist.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let text = self.0.admin(&format!("/stats?filter={}", name.replace('.', "\\."))).expect("stats");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    pub(crate) fn stop(self) {}
}

fn bootstrap(socket: &Path, protocol: Protocol, upstream: SocketAddr) -> Value {
    let sds = sds(protocol);
    let common = json!({
        "tls_certificate_sds_secret_configs": [{ "name": "default", "sds_config": sds }],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "prefix": "spiffe://a.test/" } }],
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
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds" } }],
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
