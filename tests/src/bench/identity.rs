//! `cargo xtask bench identity`: what issuing an identity costs the server, and holding streams the agent, on loopback.
//!
//! The load runs on core 0, the process that is measured on core 1. Per CPU-second means user and system time of that
//! process over exactly the counted seconds. Requests are P-256 and made beforehand; every issuance is on disk before it is
//! answered. Absolute figures belong to the machine and the day: `floor` of the same run is what the cryptography alone costs,
//! `flush` what the disk takes.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use self::load::{Load, Outcome};
use self::scene::{Credential, Scene};
use super::cpu;

mod floor;
mod flush;
mod herd;
mod load;
mod once;
mod scene;
mod streams;

/// Open-loop rate of the latencies, issuances a second.
const RATE: f64 = 1_000.0;
/// Agents that start at once; subscribers of one agent.
const MANY: usize = 10_000;

/// One measured row; what does not fit a bench is absent.
#[derive(Debug, Default, Serialize)]
pub struct Row {
    /// `floor`, `flush`, `renew`, `jwt`, `newconn`, `herd`, `sds-idle`, `sds-open` or `sds-push`.
    pub bench: &'static str,
    /// Issuances per CPU-second of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_cpu_s: Option<f64>,
    /// Median latency at 1,000 issuances a second, from the moment each was due, milliseconds; of `flush`, of one flush.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// 99th percentile of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    /// Until the last one was served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Resident megabytes of the process measured: of the server at its peak, of the agent at the moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_mb: Option<f64>,
    /// Resident kilobytes that each stream added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kb_per_stream: Option<f64>,
    /// What was not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// CPU microseconds of one issuance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<f64>,
    /// Of these, what is not verifying the request and signing the leaf: TLS, HTTP/2, gRPC, the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest_us: Option<f64>,
}

/// Measures and hands each row to `print` as it is known. With `streams_only` just the agent's two rows.
///
/// # Errors
/// When a process does not start or its answers make no sense.
pub fn run(streams_only: bool, mut print: impl FnMut(&Row) -> Result<()>) -> Result<()> {
    let two_cores = cpu::two()?;
    if two_cores {
        cpu::pin_self(0)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut scene = Scene::start(two_cores)?;
    if !streams_only {
        of_server(&runtime, &scene, &mut print)?;
    }
    streams::run(&runtime, &mut scene, MANY, &mut print)
}

/// What issuing costs the server.
fn of_server(
    runtime: &tokio::runtime::Runtime,
    scene: &Scene,
    print: &mut impl FnMut(&Row) -> Result<()>,
) -> Result<()> {
    let floor = floor::measure()?;
    print(&Row { bench: "floor", per_cpu_s: Some(1e6 / floor), cpu_us: Some(floor), ..Row::default() })?;
    let flushes = flush::measure(scene.mesh.path())?;
    let quantile_ms = |share: usize| flushes.get(flushes.len() * share / 100).map(|seconds| seconds * 1e3);
    print(&Row { bench: "flush", p50_ms: quantile_ms(50), p99_ms: quantile_ms(99), ..Row::default() })?;
    let enrolled = runtime.block_on(scene.enrol("bench"))?;
    for (bench, credential) in
        [("renew", Credential::Certificate(enrolled.clone())), ("jwt", Credential::Token(scene.token("bench")?))]
    {
        let load = Load { scene, credential: &credential, connections: 4 };
        print(&issuing(bench, runtime, &load, floor)?)?;
    }
    let credential = Credential::Token(scene.token("bench")?);
    let load = Load { scene, credential: &credential, connections: 0 };
    print(&issuing("newconn", runtime, &load, floor)?)?;
    print(&runtime.block_on(herd::run(scene, MANY))?)
}

/// Closed loop for what a CPU-second gives, open loop for the latencies.
fn issuing(bench: &'static str, runtime: &tokio::runtime::Runtime, load: &Load<'_>, floor: f64) -> Result<Row> {
    let (warm_up, length) = (Duration::from_secs(1), Duration::from_secs(5));
    let full = runtime.block_on(load.closed(64, warm_up, length))?;
    let paced = runtime.block_on(load.open(RATE, warm_up, length))?;
    let cpu_us = full.cpu_seconds * 1e6 / full.latencies.len().max(1) as f64;
    let milliseconds = |outcome: &Outcome, share| Some(outcome.quantile_ms(share));
    Ok(Row {
        bench,
        per_cpu_s: Some(1e6 / cpu_us),
        p50_ms: milliseconds(&paced, 0.5),
        p99_ms: milliseconds(&paced, 0.99),
        rss_mb: Some(cpu::peak_mb(load.scene.server())?),
        failed: Some(full.failed + paced.failed),
        cpu_us: Some(cpu_us),
        rest_us: Some(cpu_us - floor),
        ..Row::default()
    })
}
