//! A server with the sample policies, an application, and Envoys configured as the documentation says.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use palisade_identity::PrivateKey;
use palisade_tests::backend::Backend;
use palisade_tests::envoy::Envoy;
use palisade_tests::mesh::Mesh;
use palisade_tests::{poll, skip};
use serde_json::{Value, json};

use crate::tls::Authority;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/samples");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ext-authz.md");

/// Counts the guards of this test process: each has a loopback address of its own, so that ports can be the documented ones.
static GUARDS: AtomicU8 = AtomicU8::new(0);

/// The pinned Envoy; `None` after a reported skip.
pub(crate) fn envoy(test: &str) -> Option<PathBuf> {
    let found = palisade_tests::envoy::binary();
    if found.is_none() {
        skip(test, "no Envoy: `cargo xtask test` installs it");
    }
    found
}

/// A token of the issuer that the sample names, for half an hour.
pub(crate) fn token(audience: &str, group: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": "https://idp.shop.example", "sub": "alice", "aud": audience, "groups": [group], "exp": now + 1_800,
    });
    let key = PrivateKey::from_pem(include_bytes!("token-key.pem")).unwrap();
    let key = EncodingKey::from_ec_der(key.as_pkcs8_der());
    encode(&Header { kid: Some("sample".into()), ..Header::new(Algorithm::ES256) }, &claims, &key).unwrap()
}

pub(crate) struct Guard {
    pub(crate) mesh: Mesh,
    pub(crate) backend: Backend,
    address: Ipv4Addr,
    /// Rows that were looked at.
    seen: usize,
}

impl Guard {
    /// A server on the samples, with more flags.
    pub(crate) fn start(flags: &[&str]) -> Result<Self> {
        let mut mesh = Mesh::new(&[])?;
        for entry in std::fs::read_dir(SAMPLES)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).context("a name")?.to_owned();
            mesh.write_config(&name, &std::fs::read_to_string(&path)?)?;
        }
        let [.., high, low] = std::process::id().to_be_bytes();
        let own = low.wrapping_add(GUARDS.fetch_add(1, Ordering::Relaxed).wrapping_mul(37));
        let address = Ipv4Addr::new(127, 1 + high % 254, own, 1);
        mesh.host = address.to_string();
        mesh.server_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        mesh.start_server()?;
        Ok(Self { mesh, backend: Backend::start()?, address, seen: 0 })
    }

    /// The documented Envoy, about this workload; with an authority it shows a certificate and asks for one.
    pub(crate) fn envoy_with(
        &self,
        binary: &Path,
        workload: &str,
        authority: Option<&Authority>,
    ) -> Result<(Envoy, SocketAddr)> {
        let mut bootstrap = documented()?;
        bootstrap["admin"] = json!({ "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } });
        let resources = &mut bootstrap["static_resources"];
        let listener = &mut resources["listeners"][0];
        listener["address"]["socket_address"]["address"] = json!(self.address.to_string());
        let chain = &mut listener["filter_chains"][0];
        let host = &mut chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0];
        let settings = &mut host["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["check_settings"];
        assert_eq!(settings["context_extensions"]["palisade.workload"], "shop/catalog-0");
        settings["context_extensions"]["palisade.workload"] = json!(workload);
        if let Some(authority) = authority {
            chain["transport_socket"] = authority.downstream();
        }
        for (index, address) in [self.mesh.server_address("ext-authz")?, self.backend.address].into_iter().enumerate() {
            let assignment = &mut resources["clusters"][index]["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
            assignment["endpoint"]["address"]["socket_address"] =
                json!({ "address": address.ip(), "port_value": address.port() });
        }
        let envoy = Envoy::start(binary, &bootstrap)?;
        let address = envoy.listener("catalog")?;
        assert_eq!(address.port(), 8_080, "as documented");
        Ok((envoy, address))
    }

    /// An Envoy that asks about connections to an echo.
    pub(crate) fn envoy_for_tcp(&self, binary: &Path) -> Result<(Envoy, SocketAddr)> {
        let mut bootstrap = documented()?;
        let echo = palisade_tests::backend::echo()?;
        let asking = bootstrap["static_resources"]["clusters"][0].take();
        let mut clusters = json!([asking, {
            "name": "echo", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": { "cluster_name": "echo", "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": { "socket_address": { "address": echo.ip(), "port_value": echo.port() } } } },
            ] }] },
        }]);
        let server = self.mesh.server_address("ext-authz")?;
        clusters[0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"] =
            json!({ "address": server.ip(), "port_value": server.port() });
        let filters = "type.googleapis.com/envoy.extensions.filters.network";
        let bootstrap = json!({
            "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
            "static_resources": { "clusters": clusters, "listeners": [{
                "name": "echo",
                "address": { "socket_address": { "address": self.address.to_string(), "port_value": 0 } },
                "filter_chains": [{ "filters": [
                    { "name": "envoy.filters.network.ext_authz", "typed_config": {
                        "@type": format!("{filters}.ext_authz.v3.ExtAuthz"),
                        "stat_prefix": "echo", "transport_api_version": "V3", "include_tls_session": true,
                        "grpc_service": { "envoy_grpc": { "cluster_name": "palisade" }, "timeout": "1s" },
                    } },
                    { "name": "envoy.filters.network.tcp_proxy", "typed_config": {
                        "@type": format!("{filters}.tcp_proxy.v3.TcpProxy"), "stat_prefix": "echo", "cluster": "echo",
                    } },
                ] }],
            }] },
        });
        let envoy = Envoy::start(binary, &bootstrap)?;
        let address = envoy.listener("echo")?;
        Ok((envoy, address))
    }

    /// A workload at the listener's address, open on that port only.
    pub(crate) fn register_echo(&self, port: u16) -> Result<()> {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: echo-0, namespace: tools}}\n\
             spec: {{address: {}, labels: {{app: echo}}, serviceAccount: echo}}\n---\n\
             apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: echo, namespace: tools}}\n\
             spec: {{rules: [{{to: [{{operation: {{ports: ['{port}']}}}}]}}]}}\n",
            self.address
        );
        self.mesh.write_config("echo.yaml", &text)
    }

    /// Why the newest decision fell as it did.
    pub(crate) fn newest_reason(&self) -> Option<String> {
        let rows = self.mesh.audit(&["--limit", "1"]).ok()?;
        Some(rows.last()?.get("reason")?.as_str()?.to_owned())
    }

    /// Waits until there are so many decisions, oldest first.
    pub(crate) fn rows(&self, count: usize) -> Result<Vec<Value>> {
        Ok(poll("rows of the audit log", || {
            let rows = self.mesh.audit(&["--limit", "1000"]).map_err(|error| format!("{error:#}"))?;
            let rows: Vec<Value> = rows.into_iter().filter(|row| row["kind"] == "authz.decision").collect();
            if rows.len() >= count { Ok(rows) } else { Err(format!("{} of {count}: {rows:?}", rows.len())) }
        }))
    }

    /// The next decision.
    pub(crate) fn newest_row(&mut self) -> Result<Value> {
        self.seen += 1;
        let mut rows = self.rows(self.seen)?;
        assert_eq!(rows.len(), self.seen, "one row a request");
        rows.pop().context("a row")
    }
}

/// The configuration in `docs/ext-authz.md`.
fn documented() -> Result<Value> {
    let text = std::fs::read_to_string(DOCUMENT)?;
    let yaml = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).context("a YAML block")?;
    Ok(serde_saphyr::from_str(yaml)?)
}
