//! A real Envoy as a child process: no fixed port, bounded waits, killed when dropped.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use palisade_tests::{poll, poll_async, skip};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::python;

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// The Envoy of the pinned environment; `None` after a reported skip.
pub(crate) fn binary(test: &str) -> Option<PathBuf> {
    let found = python::environment().map(|home| home.join("bin/envoy")).filter(|envoy| envoy.exists());
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
pub(crate) struct Envoy {
    child: Child,
    directory: tempfile::TempDir,
    admin: SocketAddr,
}

impl Envoy {
    pub(crate) fn start(binary: &Path, socket: &Path, protocol: Protocol, upstream: SocketAddr) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        let bootstrap = bootstrap(socket, protocol, upstream);
        std::fs::write(path("envoy.json"), bootstrap.to_string()).expect("bootstrap");
        let child = Command::new(binary)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--config-path"])
            .arg(path("envoy.json"))
            .arg("--admin-address-path")
            .arg(path("admin"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(path("log")).expect("log"))
            .spawn()
            .expect("Envoy starts");
        let mut envoy = Self { child, directory, admin: SocketAddr::from(([127, 0, 0, 1], 0)) };
        envoy.admin = poll("Envoy's admin port", || {
            let text = std::fs::read_to_string(envoy.directory.path().join("admin")).unwrap_or_default();
            text.trim().parse().map_err(|_| envoy.state())
        });
        envoy
    }

    /// The mTLS port, once it is open: Envoy opens it when the secrets have come.
    pub(crate) async fn mtls(&self) -> SocketAddr {
        self.listener("mtls").await
    }

    /// The plain port.
    pub(crate) async fn plain(&self) -> SocketAddr {
        self.listener("plain").await
    }

    async fn listener(&self, name: &str) -> SocketAddr {
        poll_async("an open listener", || async {
            let listeners = self.admin("/listeners?format=json").await;
            let address = listeners.as_deref().ok().and_then(|text| address_of(text, name));
            let address = address.ok_or_else(|| format!("{listeners:?}; {}", self.state()))?;
            match TcpStream::connect(address).await {
                Ok(_) => Ok(address),
                Err(error) => Err(format!("{address}: {error}; {}", self.state())),
            }
        })
        .await
    }

    /// One of Envoy's counters; 0 if it does not exist.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        let text = self.admin(&format!("/stats?filter={}", name.replace('.', "\\."))).await.expect("stats");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    async fn admin(&self, path: &str) -> anyhow::Result<String> {
        let stream = TokioIo::new(TcpStream::connect(self.admin).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let request = http::Request::get(path).header("host", "admin").body(Empty::<Bytes>::new())?;
        let exchange = async {
            let body = sender.send_request(request).await?.into_body().collect().await?;
            Ok::<_, hyper::Error>(body.to_bytes())
        };
        let bytes = tokio::select! {
            bytes = exchange => bytes?,
            ended = connection => anyhow::bail!("the admin connection ended: {ended:?}"),
        };
        Ok(String::from_utf8(bytes.to_vec())?)
    }

    fn state(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn stop(self) {}
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_of(listeners: &str, name: &str) -> Option<SocketAddr> {
    let listeners: Value = serde_json::from_str(listeners).ok()?;
    let ours = listeners["listener_statuses"].as_array()?.iter().find(|listener| listener["name"] == name)?;
    let socket = &ours["local_address"]["socket_address"];
    let port = u16::try_from(socket["port_value"].as_u64()?).ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(socket["address"].as_str()?.parse().ok()?, port))
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
