//! `palisade server`: CA, policy distribution and audit ingest on one TLS port, administration on a Unix socket, and the
//! authorization service for enforcers that are not ours.

mod admin;
mod attest;
mod authorities;
mod authz;
mod bundle;
mod entries;
mod issuances;
mod mutual;
mod record;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use palisade_audit::{AdminAudit, Authorizer, IngestService, NanoClock, Store};
use palisade_ca::attest::x509pop::{Machines, WithMachines};
use palisade_ca::{Admission, AgentsService, Authority, CaConfig, CaService, Entries, EntrySource};
use palisade_control::{Control, ControlConfig};
use palisade_identity::TrustDomain;
use palisade_policies::{MeshConfig, read_paths};
use palisade_wire::Caller;
use palisade_wire::admin::admin_server::AdminServer;
use palisade_wire::serve::{self, Limits, ServerTls, UnixSocket};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;

use crate::exit::{self, Exit};
use crate::runtime::{self, Addresses, Health, LogOptions, Pages, Supervisor, SystemClock};

/// Where configuration and state are, and where to listen.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Watched directory of Istio YAML: AuthorizationPolicy, PeerAuthentication, WorkloadEntry, ServiceEntry, RegistrationEntry, `mesh.yaml` and `ca.yaml`.
    #[arg(long, value_name = "DIR", default_value = "/etc/palisade")]
    config_dir: PathBuf,
    /// Keys, records and the administration socket.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/palisade/server")]
    data_dir: PathBuf,
    /// gRPC over TLS: CA, xDS, audit ingest.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:15012")]
    listen: SocketAddr,
    /// Metrics, liveness and readiness.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:15014")]
    metrics_listen: SocketAddr,
    /// Administration socket; default: admin.sock in the data directory.
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// One more DNS name for the server's certificate; may be repeated.
    #[arg(long = "dns-name", value_name = "NAME")]
    dns_names: Vec<String>,
    /// Lifetime of a certificate whose request names none.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    leaf_ttl: humantime::Duration,
    /// Longest lifetime of a certificate; a request for more is shortened.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    max_leaf_ttl: humantime::Duration,
    #[command(flatten)]
    keys: authorities::KeyOptions,
    #[command(flatten)]
    tokens: bundle::TokenOptions,
    #[command(flatten)]
    authz: authz::AuthzOptions,
    #[command(flatten)]
    log: LogOptions,
}

pub(crate) fn run(options: Options) -> Result<Exit> {
    runtime::init(&options.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(&options))?;
    Ok(Exit::Done)
}

async fn serve(options: &Options) -> Result<()> {
    let data = &options.data_dir;
    std::fs::create_dir_all(data).map_err(|error| {
        exit::usage(format!("cannot make --data-dir {}: {error}; choose a writable directory", data.display()))
    })?;
    Addresses::clear(data);
    let shutdown = CancellationToken::new();
    runtime::on_signal(&shutdown)?;
    let (mut registry, health) = (Registry::default(), Health::default());
    let mut tasks = Supervisor::new(shutdown.clone());
    let parts = parts(options, &mut registry).await?;
    health.require("certificate authority", parts.authority.ready());
    health.require("configuration", parts.control.handle().ready());
    let bound = Bound::open(options).await?;
    let ground = authz::Ground {
        data_dir: data,
        ingest: bound.admin.path(),
        authority: &parts.authority,
        states: parts.control.handle().states(),
    };
    let authorization = authz::Authorization::open(&options.authz, ground, &mut registry).await?;
    let documents = options.tokens.open().await?;
    let mut addresses = Addresses::default();
    bundle::note(documents.as_ref(), &mut addresses)?;
    addresses.note("grpc", bound.grpc.local_addr()?);
    addresses.note("metrics", bound.metrics.local_addr()?);
    authorization.note(&mut addresses)?;
    let pages = Arc::new(Pages::new(health, registry).with_more(authorization.record_metrics()));
    tasks.spawn("metrics", runtime::serve(bound.metrics, pages, shutdown.clone()));
    // The administration socket also takes the authorization service's events, and so it ends after that.
    let last = CancellationToken::new();
    bundle::start(documents, &parts.authority, &mut tasks, shutdown.clone());
    authorization.run(&mut tasks, &shutdown, last.clone());
    start(parts, (bound.grpc, bound.admin), &mut tasks, (shutdown, last));
    addresses.write(data)?;
    tracing::info!(addresses = %Addresses::path(data).display(), "the server is up");
    let waited = tasks.wait().await;
    Addresses::clear(data);
    waited
}

/// Starts the control plane's own services. `last` ends what others still need while they end.
fn start(
    parts: Parts,
    (grpc, admin): (tokio::net::TcpListener, UnixSocket),
    tasks: &mut Supervisor,
    (shutdown, last): (CancellationToken, CancellationToken),
) {
    let operator = admin::AdminService {
        audit: AdminAudit::new(parts.store.clone()),
        authority: Arc::clone(&parts.authority),
        entries: parts.entries.clone(),
        closing: shutdown.clone(),
    };
    let own = parts.ingest.clone().until(last.clone());
    let operator = Routes::new(AdminServer::new(operator)).add_service(own.into_server());
    tasks.spawn_quiet("administration", serve::unix(admin, operator, Limits::default(), last));
    let known: Arc<dyn EntrySource> = Arc::new(parts.entries.clone());
    let agents = AgentsService::new(Arc::clone(&parts.authority), known, shutdown.clone());
    let agents = agents.with_admission(parts.admission);
    let routes = Routes::new(parts.ca.into_server())
        .add_service(agents.into_server())
        .add_service(parts.control.handle().service())
        .add_service(parts.ingest.until(shutdown.clone()).into_server());
    let tls: Arc<dyn ServerTls> = match parts.machines {
        Some(machines) => Arc::new(WithMachines::new(Arc::clone(&parts.authority), machines)),
        None => Arc::clone(&parts.authority) as Arc<dyn ServerTls>,
    };
    tasks.spawn_quiet("grpc", serve::tls(grpc, tls, routes, Limits::default(), shutdown.clone()));
    tasks.spawn_quiet("certificate authority", parts.authority.run(shutdown.clone()));
    let states = parts.control.handle().states();
    tasks.spawn_quiet("registration entries", entries::follow(parts.entries, states, shutdown.clone()));
    tasks.spawn_quiet("control plane", parts.control.run(shutdown));
}

/// What the server is made of.
struct Parts {
    authority: Arc<Authority>,
    ca: CaService,
    admission: Admission,
    machines: Option<Arc<Machines>>,
    control: Control,
    entries: Entries,
    store: Store,
    ingest: IngestService,
}

async fn parts(options: &Options, registry: &mut Registry) -> Result<Parts> {
    let usage = |error: &(dyn std::error::Error + 'static)| exit::usage(exit::chain(error));
    let clock = Arc::new(SystemClock);
    let trust_domain = trust_domain(options)?;
    let settings = attest::Settings::read(&options.config_dir)?;
    let ca = options.keys.apply(CaConfig {
        leaf_ttl: options.leaf_ttl.into(),
        max_ttl: options.max_leaf_ttl.into(),
        dns_names: options.dns_names.clone(),
        extra_keys: settings.extra_keys(),
        ..CaConfig::new(options.data_dir.join("ca"), trust_domain.clone())
    })?;
    let ca = options.tokens.apply(ca);
    let authority = Authority::open(ca, clock.clone()).await.map_err(|error| usage(&error))?;
    authority.register_metrics(registry);
    let database = options.data_dir.join("ca").join(palisade_ca::DATABASE);
    let entries = Entries::open(&database, trust_domain.clone()).await.map_err(|error| usage(&error))?;
    let config = ControlConfig { trust_domain: Some(trust_domain.clone()), ..ControlConfig::new(&options.config_dir) };
    let control = Control::new(config, clock, registry);
    let admission = settings.admission();
    let ca = CaService::new(Arc::clone(&authority)).with_entries(entries.clone()).with_admission(admission.clone());
    let machines = settings.machines()?;
    let ca = settings.configure(ca, &trust_domain, machines.as_ref(), control.handle().states()).await;
    let store =
        Store::open(options.data_dir.join("audit.db"), NanoClock::system()).await.map_err(|error| usage(&error))?;
    let handle = control.handle();
    let authorize: Authorizer = Arc::new(move |caller, claimed| match own_enforcer(caller, claimed) {
        Some(own) => own,
        None => handle.enforcer_of(caller, claimed),
    });
    let ingest = IngestService::new(store.clone(), authorize, NanoClock::system(), registry);
    Ok(Parts { authority, ca, admission, machines, control, entries, store, ingest })
}

/// On the Unix socket only this very process may add to the record, and only as its authorization service. `None` for callers
/// from elsewhere.
fn own_enforcer(caller: &Caller, claimed: &str) -> Option<Result<String, Status>> {
    let unix = caller.unix?;
    let own = i32::try_from(std::process::id()).is_ok_and(|own| own == unix.pid);
    Some(match claimed {
        record::ENFORCER if own => Ok(claimed.to_owned()),
        _ => Err(Status::permission_denied("only the server itself records over this socket")),
    })
}

/// The trust domain that the CA issues in: the mesh configuration's, Istio's default without one. A CA is made for ever, so
/// the first start insists on the directory: a volume that is not there yet must not decide the domain.
fn trust_domain(options: &Options) -> Result<TrustDomain> {
    let config_dir = &options.config_dir;
    if !config_dir.is_dir() && !options.data_dir.join("ca").exists() {
        let directory = config_dir.display();
        return Err(exit::usage(format!(
            "--config-dir {directory} is no directory: the first start needs it, it may be empty"
        )));
    }
    let path = config_dir.join(palisade_watch::MESH_FILE);
    if !path.exists() {
        return Ok(MeshConfig::default().trust_domain);
    }
    let texts = read_paths(&[path]).map_err(|error| exit::usage(exit::chain(&error)))?;
    let (mesh, diagnostics) = texts.first().map(MeshConfig::parse).unwrap_or_default();
    mesh.map(|mesh| mesh.trust_domain).ok_or_else(|| {
        let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        exit::usage(lines.join("\n"))
    })
}

/// The open doors: everything is bound before anything is served.
struct Bound {
    grpc: tokio::net::TcpListener,
    metrics: tokio::net::TcpListener,
    admin: UnixSocket,
}

impl Bound {
    async fn open(options: &Options) -> Result<Self> {
        let socket = options.admin_socket.clone().unwrap_or_else(|| options.data_dir.join("admin.sock"));
        let usage = |error: anyhow::Error| exit::usage(format!("{error:#}"));
        Ok(Self {
            grpc: runtime::bind("gRPC (--listen)", options.listen).map_err(usage)?,
            metrics: runtime::bind("metrics (--metrics-listen)", options.metrics_listen).map_err(usage)?,
            admin: UnixSocket::bind(socket, 0o600).map_err(|error| exit::usage(exit::chain(&error)))?,
        })
    }
}
