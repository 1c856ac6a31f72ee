//! `cargo xtask bench proxy`: the proxy pair beside a direct connection, in one run, on loopback.
//!
//! Load, backend and server share core 0, both proxies core 1, so "max" is what one core gives the pair. Policies: ten
//! ALLOW policies in Istio's shape, the last of which matches; audit on. Absolute figures belong to the machine and the day;
//! the ratio to `direct` of the same run is what can be compared.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::load::{self, Outcome, Plan};
use super::{backend, cpu};
use crate::http;
use crate::mesh::{Mesh, Proxy};
use crate::poll;

const CONNECTIONS: usize = 64;
const BODY: usize = 1024;
const HOST: &str = "payments.shop.svc.cluster.local";
/// Open-loop rate, requests a second.
const RATE: f64 = 2000.0;

/// One measured row.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `start`, `max` or `rate`.
    pub bench: &'static str,
    /// `direct` or `palisade`.
    pub topology: &'static str,
    /// Requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rps: Option<f64>,
    /// Requests per CPU-second of the pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_cpu_s: Option<f64>,
    /// Requests per CPU-second of everything that took part: load, backend and, where there are any, the proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_per_cpu_s: Option<f64>,
    /// CPU of the outbound and inbound proxy, percent of one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<(f64, f64)>,
    /// Latencies, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// As above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// Resident megabytes of the outbound and inbound proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_mb: Option<(f64, f64)>,
    /// Seconds from the start of the processes until a request passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// Measures and hands each row to `print` as it is known.
///
/// # Errors
/// When a process does not start or a request fails: a benchmark with failures has no result.
pub fn run(mut print: impl FnMut(&Row) -> Result<()>) -> Result<()> {
    let two_cores = cpu::two()?;
    if two_cores {
        cpu::pin_self(0)?;
    }
    let backend = backend::start(BODY)?;
    let mut pair = Pair::start(backend)?;
    if two_cores {
        for pid in pair.pids()? {
            cpu::pin(pid, 1)?;
        }
    }
    print(&Row { seconds: Some(pair.seconds), rss_mb: Some(pair.resident()?), ..row("start", "palisade") })?;
    for (bench, rate) in [("max", None), ("rate", Some(RATE))] {
        print(&direct(bench, backend, rate)?)?;
        print(&pair.measure(bench, rate)?)?;
    }
    Ok(())
}

fn row(bench: &'static str, topology: &'static str) -> Row {
    let none = None;
    Row {
        bench,
        topology,
        rps: none,
        per_cpu_s: none,
        all_per_cpu_s: none,
        cpu_percent: None,
        p50_us: none,
        p99_us: none,
        rss_mb: None,
        seconds: none,
    }
}

fn plan(address: SocketAddr, rate: Option<f64>) -> Plan {
    let request = format!("GET /item HTTP/1.1\r\nhost: {HOST}\r\nuser-agent: palisade-bench\r\n\r\n");
    Plan {
        address,
        connections: CONNECTIONS,
        request: Arc::from(request.into_bytes()),
        rate,
        warm_up: Duration::from_secs(1),
        length: Duration::from_secs(5),
    }
}

fn direct(bench: &'static str, backend: SocketAddr, rate: Option<f64>) -> Result<Row> {
    let (outcome, [own, ..]) = measured(&plan(backend, rate), [std::process::id()])?;
    let all = outcome.latencies.len() as f64 / own;
    Ok(Row { all_per_cpu_s: Some(all), ..with_load(row(bench, "direct"), &outcome) })
}

/// Runs the plan and returns the CPU seconds that each process used in the counted time.
fn measured<const N: usize>(plan: &Plan, pids: [u32; N]) -> Result<(Outcome, [f64; N])> {
    let mut clocks = Vec::new();
    let outcome = load::run(plan, || {
        let now: Result<Vec<f64>> = pids.iter().map(|pid| cpu::seconds(*pid)).collect();
        clocks.push(now?);
        Ok(())
    })?;
    anyhow::ensure!(outcome.refused == 0, "{} requests were refused", outcome.refused);
    let [first, last] = clocks.as_slice() else { anyhow::bail!("the clocks were not read twice") };
    let mut used = [0.0; N];
    for (used, (last, first)) in used.iter_mut().zip(last.iter().zip(first)) {
        *used = last - first;
    }
    Ok((outcome, used))
}

fn with_load(row: Row, outcome: &Outcome) -> Row {
    let (p50_us, p99_us) = (outcome.quantile_us(0.5), outcome.quantile_us(0.99));
    Row { rps: Some(outcome.per_second()), p50_us: Some(p50_us), p99_us: Some(p99_us), ..row }
}

/// Server and two proxies.
struct Pair {
    outbound: Proxy,
    inbound: Proxy,
    seconds: f64,
    _mesh: Mesh,
}

impl Pair {
    fn start(backend: SocketAddr) -> Result<Self> {
        let start = Instant::now();
        let mut mesh = Mesh::new(&[("policies.yaml", &policies()), ("workloads.yaml", &workloads(None))])?;
        mesh.start_server()?;
        let listener = format!("inbound:\n- {{listen: '127.0.0.1:0', forward: '{backend}', protocol: HTTP}}");
        let inbound = mesh.start_proxy("shop", "payments", &listener)?;
        let listener = format!("outbound:\n- {{listen: '127.0.0.1:0', service: '{HOST}:80'}}");
        let outbound = mesh.start_proxy("shop", "web", &listener)?;
        mesh.write_config("workloads.yaml", &workloads(Some(inbound.address("inbound/0")?.port())))?;
        let entry = outbound.address("outbound/0")?;
        poll("a request to pass", || match http::request(entry, "GET", "/item", HOST) {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        Ok(Self { outbound, inbound, seconds: start.elapsed().as_secs_f64(), _mesh: mesh })
    }

    fn pids(&mut self) -> Result<[u32; 2]> {
        Ok([self.outbound.process()?.pid(), self.inbound.process()?.pid()])
    }

    fn resident(&mut self) -> Result<(f64, f64)> {
        let [outbound, inbound] = self.pids()?;
        Ok((cpu::resident_mb(outbound)?, cpu::resident_mb(inbound)?))
    }

    fn measure(&mut self, bench: &'static str, rate: Option<f64>) -> Result<Row> {
        let [outbound, inbound] = self.pids()?;
        let plan = plan(self.outbound.address("outbound/0")?, rate);
        let (outcome, [out, into, own]) = measured(&plan, [outbound, inbound, std::process::id()])?;
        let answered = outcome.latencies.len() as f64;
        Ok(Row {
            per_cpu_s: Some(answered / (out + into)),
            all_per_cpu_s: Some(answered / (out + into + own)),
            cpu_percent: Some((100.0 * out / outcome.seconds, 100.0 * into / outcome.seconds)),
            rss_mb: Some(self.resident()?),
            ..with_load(row(bench, "palisade"), &outcome)
        })
    }
}

/// Ten ALLOW policies: method, path, port and exact principal each; the last one is the caller's.
fn policies() -> String {
    (0..10)
        .map(|index| {
            let account = if index == 9 { "web".to_owned() } else { format!("other-{index}") };
            format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: allow-{index}, namespace: shop}}\n\
                 spec:\n  selector: {{matchLabels: {{app: payments}}}}\n  action: ALLOW\n  rules:\n  - from:\n    - source: {{principals: [\"cluster.local/ns/shop/sa/{account}\"]}}\n    \
                 to:\n    - operation: {{methods: [\"GET\"], paths: [\"/item\"]}}\n---\n"
            )
        })
        .collect()
}

fn workloads(port: Option<u16>) -> String {
    let ports = port.map_or(String::new(), |port| format!("\n  ports: {{http: {port}}}"));
    let entry = |name: &str, ports: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  address: 127.0.0.1\n  \
             labels: {{app: {name}, security.istio.io/tlsMode: istio}}\n  serviceAccount: {name}{ports}\n---\n"
        )
    };
    format!(
        "{}{}apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: payments, namespace: shop}}\nspec:\n  hosts: [\"{HOST}\"]\n  \
         location: MESH_INTERNAL\n  resolution: STATIC\n  ports:\n  - {{number: 80, name: http, protocol: HTTP}}\n  workloadSelector: {{labels: {{app: payments}}}}\n",
        entry("web", ""),
        entry("payments", &ports),
    )
}
