//! `palisade proxy`: the sidecar. Traffic has a runtime of its own; everything else (agent, policy, audit, probes) shares one
//! thread, so that a burst of either cannot starve the other.

mod audit;
mod identity;
mod resources;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use palisade_authz::DecisionSink;
use palisade_identity::SvidSource;
use palisade_proxy::{Proxy, ProxyConfig, Snapshots};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::exit::{self, Exit};
use crate::runtime::{self, Addresses, Health, LogOptions, Pages, Supervisor, SystemClock};

/// Which proxy.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The proxy's configuration (YAML): whose it is, its ports, where identity and policy come from.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Threads for traffic; default: one a core.
    #[arg(long, value_name = "N")]
    concurrency: Option<std::num::NonZeroUsize>,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
    #[command(flatten)]
    log: LogOptions,
}

pub(crate) fn run(options: &Options) -> Result<Exit> {
    let config = read(&options.config)?;
    if options.check_config {
        eprintln!("{}: in order", options.config.display());
        return Ok(Exit::Done);
    }
    runtime::init(&options.log)?;
    let mut traffic = Builder::new_multi_thread();
    traffic.enable_all().thread_name("traffic");
    if let Some(threads) = options.concurrency {
        traffic.worker_threads(threads.get());
    }
    let traffic = traffic.build()?;
    let administration = Builder::new_current_thread().enable_all().build()?;
    administration.block_on(serve(&config, traffic.handle()))?;
    Ok(Exit::Done)
}

fn read(path: &std::path::Path) -> Result<ProxyConfig> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| exit::usage(format!("cannot read --config {}: {error}", path.display())))?;
    ProxyConfig::parse(&path.display().to_string(), &text).map_err(|error| exit::usage(exit::chain(&error)))
}

/// The two ends of a proxy's life: traffic stops first, what it needs and what records it stops after it.
#[derive(Clone)]
struct Ends {
    traffic: CancellationToken,
    rest: CancellationToken,
}

async fn serve(config: &ProxyConfig, traffic: &Handle) -> Result<()> {
    let state = &config.state_dir;
    std::fs::create_dir_all(state).map_err(|error| {
        exit::usage(format!("cannot make stateDir {}: {error}; choose a writable directory", state.display()))
    })?;
    Addresses::clear(state);
    let ends = Ends { traffic: CancellationToken::new(), rest: CancellationToken::new() };
    runtime::on_signal(&ends.traffic)?;
    let (mut registry, health) = (Registry::default(), Health::default());
    let mut tasks = Supervisor::new(ends.traffic.clone());
    let identity = identity::start(config, &mut registry, &mut tasks, &ends.rest)?;
    let snapshots = Snapshots::new(config);
    resources::start(config, &identity, &snapshots, &mut registry, (&mut tasks, &ends.rest))?;
    let sink = audit::start(config, &identity, &mut registry, (&mut tasks, &ends.rest))?;
    let mut addresses = Addresses::default();
    let (proxy, registry) = open(config, (traffic, identity, sink), &snapshots, registry).await?;
    health.require("identity and snapshot", proxy.readiness());
    for bound in proxy.bound() {
        addresses.note(&bound.role, bound.address);
    }
    probes(config, &proxy, (health, registry), &mut addresses, (&mut tasks, &ends.rest)).await?;
    let (traffic, ending) = (traffic.clone(), ends.clone());
    tasks.spawn("traffic", async move {
        let ended = traffic.spawn(proxy.run(ending.traffic)).await;
        ending.rest.cancel();
        ended.map_err(|error| error.to_string())?.map_err(|error| exit::chain(&error))
    });
    addresses.write(state)?;
    tracing::info!(workload = %format!("{}/{}", config.workload.namespace, config.workload.name), "the proxy is up");
    let waited = tasks.wait().await;
    Addresses::clear(state);
    waited
}

/// Opens the ports on the traffic runtime: sockets belong to the runtime that serves them.
async fn open(
    config: &ProxyConfig,
    (traffic, identity, sink): (&Handle, Arc<dyn SvidSource>, Arc<dyn DecisionSink>),
    snapshots: &Snapshots,
    mut registry: Registry,
) -> Result<(Proxy, Registry)> {
    let (config, newest) = (config.clone(), snapshots.subscribe());
    let opened = traffic.spawn(async move {
        Proxy::new(&config, identity, sink, newest, Arc::new(SystemClock), &mut registry).map(|proxy| (proxy, registry))
    });
    opened.await.context("the traffic runtime is gone")?.map_err(|error| exit::usage(exit::chain(&error)))
}

/// Status, metrics and probes on their ports.
async fn probes(
    config: &ProxyConfig,
    proxy: &Proxy,
    (health, registry): (Health, Registry),
    addresses: &mut Addresses,
    (tasks, end): (&mut Supervisor, &CancellationToken),
) -> Result<()> {
    let pages = Arc::new(Pages::new(health, registry));
    let status = proxy.status_handle();
    let admin = Arc::new(pages.with_json("/status", move || status.status().to_string()));
    for (role, address, pages) in
        [("admin", config.admin, &admin), ("metrics", config.metrics, &pages), ("readiness", config.readiness, &pages)]
    {
        let listener: TcpListener = runtime::bind(role, address).map_err(|error| exit::usage(format!("{error:#}")))?;
        addresses.note(role, listener.local_addr()?);
        tasks.spawn(role, runtime::serve(listener, Arc::clone(pages), end.clone()));
    }
    Ok(())
}
