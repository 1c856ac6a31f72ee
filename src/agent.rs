//! `palisade agent`: keeps one identity fresh and serves it to workloads on a Unix socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use palisade_identity::{SpiffeId, TrustDomain};
use palisade_sds::{Agent, AgentConfig, FilesConfig, FirstTrust, JoinTokenSource, OnChange};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::{self, Exit};
use crate::runtime::{self, Addresses, Health, LogOptions, Pages, Supervisor, SystemClock};

/// Where the identity comes from, and who gets it.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The server, host:port.
    #[arg(long, value_name = "HOST:PORT", default_value = "istiod.istio-system.svc:15012")]
    server: String,
    /// Name in the server's certificate, when it differs from the host of --server.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Trust domain of the identity.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: String,
    /// The one SPIFFE ID to accept; default: whatever the first attestation gave.
    #[arg(long, value_name = "SPIFFE_ID")]
    spiffe_id: Option<String>,
    /// File with a join token (`palisade ca join-token`): needed until the first certificate is kept.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// PEM file with the roots to recognise the server by; default: the root pinned in the join token.
    #[arg(long, value_name = "FILE")]
    trust_bundle: Option<PathBuf>,
    /// Directory of the identity, kept over restarts.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/palisade/agent")]
    data_dir: PathBuf,
    /// The socket of the SPIFFE Workload API and Envoy SDS.
    #[arg(long, value_name = "PATH", default_value = "/run/palisade/workload.sock")]
    socket: PathBuf,
    /// Unix user whose processes get the identity; may be repeated. Default: the agent's own.
    #[arg(long = "allow-uid", value_name = "UID")]
    allow_uids: Vec<u32>,
    /// Directory that an identity is kept in as files: svid.pem, svid_key.pem, bundle.pem.
    #[arg(long, value_name = "DIR")]
    write_svid: Option<PathBuf>,
    /// The identity to write, one of this agent's entries; default: the agent's own.
    #[arg(long, value_name = "SPIFFE_ID", requires = "write_svid")]
    write_svid_id: Option<String>,
    /// User and group of the files, as numbers.
    #[arg(long, value_name = "UID:GID", requires = "write_svid")]
    write_svid_owner: Option<String>,
    /// Permission bits of the key's file.
    #[arg(long, value_name = "OCTAL", default_value = "600", requires = "write_svid")]
    write_svid_key_mode: String,
    /// Shell command after each change of the files; PALISADE_SVID_DIR names their directory.
    #[arg(long, value_name = "COMMAND", requires = "write_svid")]
    on_change: Option<String>,
    /// File with the number of a process that gets SIGHUP after each change of the files.
    #[arg(long, value_name = "FILE", requires = "write_svid", conflicts_with = "on_change")]
    on_change_hup: Option<PathBuf>,
    /// The operator's socket, for `palisade identity`; default: admin.sock in the data directory.
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Lifetime to ask for, such as 1h; default: the server's.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<humantime::Duration>,
    /// Metrics, liveness and readiness.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:15020")]
    metrics_listen: SocketAddr,
    #[command(flatten)]
    log: LogOptions,
}

pub(crate) fn run(options: Options) -> Result<Exit> {
    runtime::init(&options.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(options))?;
    Ok(Exit::Done)
}

async fn serve(options: Options) -> Result<()> {
    let metrics_listen = options.metrics_listen;
    let data_dir = options.data_dir.clone();
    let mut registry = Registry::default();
    let agent = Agent::new(config(options)?, Arc::new(SystemClock), &mut registry)
        .map_err(|error| exit::usage(exit::chain(&error)))?;
    agent.open_socket().map_err(|error| exit::usage(format!("--socket: {}", exit::chain(&error))))?;
    Addresses::clear(&data_dir);
    let listener = runtime::bind("metrics (--metrics-listen)", metrics_listen)
        .map_err(|error| exit::usage(format!("{error:#}")))?;
    let mut addresses = Addresses::default();
    addresses.note("metrics", listener.local_addr()?);
    let health = Health::default();
    let asked = agent.clone();
    health.require_or_say("identity", agent.readiness(), move || asked.health().identity.to_string());
    let shutdown = CancellationToken::new();
    runtime::on_signal(&shutdown)?;
    renew_on_hangup(agent.clone(), shutdown.clone())?;
    let mut tasks = Supervisor::new(shutdown.clone());
    let stopping = shutdown.clone();
    tasks.spawn("agent", async move { agent.run(stopping).await.map_err(|error| exit::chain(&error)) });
    let pages = Arc::new(Pages::new(health, registry));
    tasks.spawn("metrics", runtime::serve(listener, pages, shutdown));
    addresses.write(&data_dir)?;
    let waited = tasks.wait().await;
    Addresses::clear(&data_dir);
    waited
}

fn config(options: Options) -> Result<AgentConfig> {
    let trust_domain = TrustDomain::parse(&options.trust_domain)
        .map_err(|error| exit::usage(format!("--trust-domain `{}`: {error}", options.trust_domain)))?;
    let expected_id = options
        .spiffe_id
        .as_deref()
        .map(|text| SpiffeId::parse(text).map_err(|error| exit::usage(format!("--spiffe-id `{text}`: {error}"))));
    let files = files(&options)?;
    let admin_socket = options.admin_socket.clone().unwrap_or_else(|| options.data_dir.join("admin.sock"));
    Ok(AgentConfig {
        server: options.server,
        server_name: options.server_name,
        trust_domain,
        first_trust: options.trust_bundle.map_or(FirstTrust::JoinToken, FirstTrust::BundleFile),
        join_token: options.join_token_file.map(JoinTokenSource::File),
        expected_id: expected_id.transpose()?,
        lifetime: options.ttl.map(Into::into),
        state_dir: options.data_dir,
        socket: Some(options.socket),
        allowed_uids: options.allow_uids,
        files,
        admin_socket: Some(admin_socket),
    })
}

/// The directory for an application that reads files.
fn files(options: &Options) -> Result<Vec<FilesConfig>> {
    let Some(dir) = options.write_svid.clone() else { return Ok(Vec::new()) };
    let id = options
        .write_svid_id
        .as_deref()
        .map(|text| SpiffeId::parse(text).map_err(|error| exit::usage(format!("--write-svid-id `{text}`: {error}"))));
    let owner = options.write_svid_owner.as_deref().map(|text| {
        let numbers = text.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
        numbers.ok_or_else(|| exit::usage(format!("--write-svid-owner `{text}`: write it like 1000:1000")))
    });
    let mode = &options.write_svid_key_mode;
    let key_mode = u32::from_str_radix(mode, 8).ok().filter(|mode| mode & !0o777 == 0);
    let key_mode = key_mode.ok_or_else(|| exit::usage(format!("--write-svid-key-mode `{mode}`: write it like 640")))?;
    let hangup = options.on_change_hup.clone().map(OnChange::Hangup);
    let on_change = options.on_change.clone().map(OnChange::Command).or(hangup);
    Ok(vec![FilesConfig { dir, spiffe_id: id.transpose()?, owner: owner.transpose()?, key_mode, on_change }])
}

/// SIGHUP asks for a new certificate at once.
pub(crate) fn renew_on_hangup(agent: Agent, shutdown: CancellationToken) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while let Some(Some(())) = shutdown.run_until_cancelled(hangup.recv()).await {
            tracing::info!(signal = "SIGHUP", "renewing the certificate");
            agent.renew_now();
        }
    });
    Ok(())
}
