//! A real Envoy's RBAC filters: what they add to a request, over the same Envoy without them.
//!
//! Two listeners answer by themselves; one has the DENY and the ALLOW filter that istiod would give it. The requests go to
//! both in turn on one connection each, and the row is the difference. The caller's identity arrives as filter state, as in
//! a waypoint, so that no handshake is measured.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use palisade_policies::{Action, AuthorizationPolicy};
use serde_json::{Map, Value, json};

use super::scene::{HEADER, Sample, Scene};
use super::{Row, timing};
use crate::envoy::{Envoy, binary};

const STATE: &str = "io.istio.peer_principal";
const IDENTITY: &str = "x-identity";
/// How long one row may take.
const BUDGET: Duration = Duration::from_secs(3);

/// All rows of one size; none, with a word on stderr, where there is no Envoy.
pub(crate) fn rows(rules: usize, print: &mut dyn FnMut(&Row) -> Result<()>) -> Result<()> {
    let Some(binary) = binary() else {
        eprintln!("no rows of Envoy: it is not installed");
        return Ok(());
    };
    let (selective, unselective) = (Scene::selective(rules), Scene::unselective(rules));
    let (hits, misses) = (&selective.hits, &selective.misses);
    for (scene, rows) in [
        (
            &selective,
            vec![("decide", hits, &selective.hits_allowed), ("decide-miss", misses, &selective.misses_allowed)],
        ),
        (&unselective, vec![("unselective", &unselective.misses, &unselective.misses_allowed)]),
    ] {
        let envoy = Envoy::start(&binary, &bootstrap(scene))?;
        let with = envoy.listener("with")?;
        let without = envoy.listener("without")?;
        for (bench, samples, allowed) in rows {
            let (ns_p50, ns_p99) = added(with, without, samples, allowed)?;
            print(&Row { bench, engine: "envoy", rules, ns_p50, ns_p99 })?;
        }
    }
    Ok(())
}

/// Median and 99th percentile of the time with the filters, less the median without.
fn added(with: SocketAddr, without: SocketAddr, samples: &[Sample], allowed: &[bool]) -> Result<(u64, u64)> {
    let (mut with, mut without) = (Client::connect(with)?, Client::connect(without)?);
    let (mut slow, mut fast) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    for (sample, allowed) in samples.iter().zip(allowed).cycle() {
        let request = request(sample);
        let (status, time) = with.ask(&request)?;
        anyhow::ensure!((status == 200) == *allowed, "envoy: {status} to {sample:?}");
        slow.push(time);
        fast.push(without.ask(&request)?.1);
        if begin.elapsed() > BUDGET {
            break;
        }
    }
    let (base, _) = timing::percentiles(fast);
    let (p50, p99) = timing::percentiles(slow);
    Ok((p50.saturating_sub(base), p99.saturating_sub(base)))
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, buffer: vec![0; 4096] })
    }

    /// The status, and the time until the whole answer was there.
    fn ask(&mut self, request: &str) -> Result<(u16, Duration)> {
        let begin = Instant::now();
        self.stream.write_all(request.as_bytes())?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(self.buffer.get_mut(filled..).unwrap_or_default())?;
            filled += read;
            let text = String::from_utf8_lossy(self.buffer.get(..filled).unwrap_or_default());
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
                if body.len() >= length.parse::<usize>()? {
                    let status = head.split(' ').nth(1).context("no status")?;
                    return Ok((status.parse()?, begin.elapsed()));
                }
            }
            if read == 0 {
                bail!("Envoy closed the connection");
            }
        }
    }
}

fn request(sample: &Sample) -> String {
    let Sample { principal, method, path, host, header } = sample;
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{HEADER}: {header}\r\n{IDENTITY}: spiffe://{principal}\r\n\
         content-length: 0\r\n\r\n"
    )
}

fn bootstrap(scene: &Scene) -> Value {
    let rbac = [rbac(scene, &Action::Deny, "DENY"), rbac(scene, &Action::Allow, "ALLOW")];
    json!({
        "admin": {"address": address()},
        "static_resources": {"listeners": [listener("with", &rbac), listener("without", &[])]},
    })
}

fn address() -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}})
}

fn typed(name: &str, kind: &str, mut config: Value) -> Value {
    if let Some(config) = config.as_object_mut() {
        config.insert("@type".to_owned(), json!(format!("type.googleapis.com/{kind}")));
    }
    json!({"name": name, "typed_config": config})
}

fn listener(name: &str, rbac: &[Value]) -> Value {
    let state = typed(
        "state",
        "envoy.extensions.filters.http.set_filter_state.v3.Config",
        json!({"on_request_headers": [{
            "object_key": STATE,
            "factory_key": "envoy.string",
            "format_string": {"text_format_source": {"inline_string": format!("%REQ({IDENTITY})%")}},
        }]}),
    );
    let router = typed("router", "envoy.extensions.filters.http.router.v3.Router", json!({}));
    let filters: Vec<Value> = std::iter::once(state).chain(rbac.iter().cloned()).chain([router]).collect();
    let manager = typed(
        "http",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": name,
            "normalize_path": true,
            "http_filters": filters,
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
            }]},
        }),
    );
    json!({"name": name, "address": address(), "filter_chains": [{"filters": [manager]}]})
}

fn rbac(scene: &Scene, action: &Action, name: &str) -> Value {
    let policies: Map<String, Value> = scene
        .policies
        .iter()
        .filter(|policy| policy.action == *action)
        .map(|policy| (format!("ns[shop]-policy[{}]-rule[0]", policy.meta.name), rule(policy)))
        .collect();
    typed(
        "rbac",
        "envoy.extensions.filters.http.rbac.v3.RBAC",
        json!({"rules": {"action": name, "policies": policies}}),
    )
}

fn rule(policy: &AuthorizationPolicy) -> Value {
    let mut permissions = Vec::new();
    let mut principals = Vec::new();
    for rule in &policy.rules {
        for operation in &rule.to {
            let header = |name: &str, values: &[String]| json!({"or_rules": {"rules": values.iter().map(|value| json!({"header": {"name": name, "string_match": text(value)}})).collect::<Vec<_>>()}});
            let paths: Vec<Value> = operation.paths.iter().map(|value| path(value)).collect();
            permissions.push(json!({"and_rules": {"rules": [
                header(":authority", &operation.hosts),
                header(":method", &operation.methods),
                {"or_rules": {"rules": paths}},
            ]}}));
        }
        let callers = rule.from.iter().flat_map(|source| &source.principals);
        let callers =
            callers.map(|id| json!({"filter_state": {"key": STATE, "string_match": text(&format!("spiffe://{id}"))}}));
        let tenants = rule.when.iter().flat_map(|condition| &condition.values);
        let tenants = tenants.map(|value| json!({"header": {"name": HEADER, "string_match": text(value)}}));
        principals.push(json!({"and_ids": {"ids": [
            {"or_ids": {"ids": callers.collect::<Vec<_>>()}},
            {"or_ids": {"ids": tenants.collect::<Vec<_>>()}},
        ]}}));
    }
    json!({"permissions": permissions, "principals": principals})
}

fn text(value: &str) -> Value {
    value.strip_suffix('*').map_or_else(|| json!({"exact": value}), |prefix| json!({"prefix": prefix}))
}

fn path(value: &str) -> Value {
    if value.contains("{*}") {
        let template = json!({
            "name": "template",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                "path_template": value.replace("{*}", "*"),
            },
        });
        json!({"uri_template": template})
    } else {
        json!({"url_path": {"path": text(value)}})
    }
}
