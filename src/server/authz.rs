//! The authorization service inside the server: the same directory of policies, doors of its own, and a record like a proxy's.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use palisade_authz_service::{
    Callers, Limits, ListenError, PolicySnapshot, PolicySource, Port, Security, Service, ServiceConfig,
};
use palisade_ca::Authority;
use palisade_identity::SpiffeId;
use palisade_watch::State;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::mutual::OwnTls;
use super::record::{Delivery, Record};
use crate::exit;
use crate::runtime::{Addresses, Supervisor};

/// Open requests get so long at the end; what is recorded after that still has to reach the store within the process' own time.
const DRAIN: Duration = Duration::from_secs(5);

/// Where enforcers ask that are not ours, and who is believed.
#[derive(Args, Debug)]
pub(super) struct AuthzOptions {
    /// Envoy's external authorization (gRPC); default: 127.0.0.1:9191, if it is free. Elsewhere than on loopback only with --ext-authz-mtls.
    #[arg(long, visible_alias = "ext-authz-address", value_name = "ADDRESS", help_heading = "Authorization service")]
    ext_authz_listen: Option<SocketAddr>,
    /// Mutual TLS on that port: callers need an SVID of this trust domain.
    #[arg(long, help_heading = "Authorization service")]
    ext_authz_mtls: bool,
    /// An identity that may ask about every workload, such as a gateway's; may be repeated. Any other may ask about workloads of its own identity.
    #[arg(long = "ext-authz-caller", value_name = "SPIFFE_ID", help_heading = "Authorization service")]
    ext_authz_callers: Vec<String>,
    /// Believe callers without TLS who their clients are: every process of this machine can then claim any client.
    #[arg(long, help_heading = "Authorization service")]
    ext_authz_trust_loopback_principals: bool,
    /// HTTP API: AuthZEN; default: 127.0.0.1:15080, if it is free. Elsewhere than on loopback only with --http-mtls.
    #[arg(long, visible_alias = "http-address", value_name = "ADDRESS", help_heading = "Authorization service")]
    http_listen: Option<SocketAddr>,
    /// Mutual TLS on that port.
    #[arg(long, help_heading = "Authorization service")]
    http_mtls: bool,
    /// An identity that may ask about every workload; may be repeated.
    #[arg(long = "http-caller", value_name = "SPIFFE_ID", help_heading = "Authorization service")]
    http_callers: Vec<String>,
    /// Where enforcers reach the HTTP API, for its metadata document; default: the address it listens on.
    #[arg(long, value_name = "URL", help_heading = "Authorization service")]
    http_url: Option<String>,
}

/// The service with its doors open and nothing served yet.
pub(super) struct Authorization {
    service: Service,
    ext_authz: Option<(Port, Callers)>,
    http: Option<(Port, Callers, Option<String>)>,
    policies: Policies,
    states: watch::Receiver<State>,
    record: Record,
    delivery: Delivery,
}

/// What the service is made from.
pub(super) struct Ground<'a> {
    pub(super) data_dir: &'a Path,
    /// The socket on which this process takes its own audit events.
    pub(super) ingest: &'a Path,
    pub(super) authority: &'a Arc<Authority>,
    pub(super) states: watch::Receiver<State>,
}

impl Authorization {
    /// Opens ports and record.
    pub(super) async fn open(options: &AuthzOptions, ground: Ground<'_>, registry: &mut Registry) -> Result<Self> {
        let (record, delivery) = Record::new(ground.data_dir, ground.ingest).await?;
        let policies = Policies::new(&ground.states);
        let config = ServiceConfig { limits: Limits { drain: DRAIN, ..Limits::default() }, ..ServiceConfig::default() };
        let source: Arc<dyn PolicySource> = Arc::new(policies.clone());
        let service = Service::new(source, Arc::new(record.clone()), config, registry);
        let ext_authz = Door {
            flag: "--ext-authz-listen",
            address: options.ext_authz_listen,
            default: SocketAddr::from(([127, 0, 0, 1], 9191)),
            mutual: options.ext_authz_mtls.then(|| OwnTls::mutual(Arc::clone(ground.authority), &[b"h2"])),
        };
        let http = Door {
            flag: "--http-listen",
            address: options.http_listen,
            default: SocketAddr::from(([127, 0, 0, 1], 15080)),
            mutual: options.http_mtls.then(|| OwnTls::mutual(Arc::clone(ground.authority), &[b"h2", b"http/1.1"])),
        };
        let ext_callers = Callers {
            trusted: identities("--ext-authz-caller", &options.ext_authz_callers)?,
            trust_loopback: options.ext_authz_trust_loopback_principals,
        };
        let http_callers =
            Callers { trusted: identities("--http-caller", &options.http_callers)?, trust_loopback: false };
        let url = options.http_url.as_deref().map(url).transpose()?;
        let ext_authz = ext_authz.open().await?.map(|port| (port, ext_callers));
        let http = http.open().await?.map(|port| (port, http_callers, url));
        Ok(Self { service, ext_authz, http, policies, states: ground.states, record, delivery })
    }

    /// Writes down where it listens.
    pub(super) fn note(&self, addresses: &mut Addresses) -> Result<()> {
        if let Some((port, _)) = &self.ext_authz {
            addresses.note("ext-authz", port.address()?);
        }
        if let Some((port, ..)) = &self.http {
            addresses.note("http", port.address()?);
        }
        Ok(())
    }

    /// Metrics of the record, once it has begun.
    pub(super) fn record_metrics(&self) -> Arc<OnceLock<Registry>> {
        self.record.metrics()
    }

    /// Serves until `shutdown`; then drains the doors, and only then the record. `last` is cancelled when all of it is in the
    /// store, or will have to wait for the next start.
    pub(super) fn run(self, tasks: &mut Supervisor, shutdown: &CancellationToken, last: CancellationToken) {
        let Self { service, ext_authz, http, policies, states, delivery, .. } = self;
        tasks.spawn_quiet("authorization policies", policies.follow(states, shutdown.clone()));
        let (drained, doors) = (CancellationToken::new(), shutdown.clone());
        let closed = drained.clone();
        let delivering = drained.clone();
        tasks.spawn_quiet("authorization", async move {
            let (envoy, authzen) = (service.clone(), service);
            let ext_authz = async {
                match ext_authz {
                    Some((port, callers)) => envoy.ext_authz(port, callers, doors.clone()).await,
                    None => doors.cancelled().await,
                }
            };
            let http = async {
                match http {
                    Some((port, callers, url)) => authzen.authzen(port, callers, url, doors.clone()).await,
                    None => doors.cancelled().await,
                }
            };
            tokio::join!(ext_authz, http);
            closed.cancel();
        });
        tasks.spawn("authorization audit", async move {
            let delivered = delivery.run(delivering).await;
            if delivered.is_ok() {
                drained.cancelled().await;
            }
            last.cancel();
            delivered
        });
    }
}

/// A port as it was asked for.
struct Door {
    flag: &'static str,
    address: Option<SocketAddr>,
    default: SocketAddr,
    mutual: Option<OwnTls>,
}

impl Door {
    /// Opens it. A port that nobody asked for and that is taken is left out with a warning: who happens to listen there must
    /// not keep the certificate authority from starting.
    async fn open(self) -> Result<Option<Port>> {
        let security = self.mutual.map_or(Security::Loopback, |tls| Security::Mutual(Arc::new(tls)));
        match (Port::bind(self.address.unwrap_or(self.default), security).await, self.address) {
            (Ok(port), _) => Ok(Some(port)),
            (Err(error @ ListenError::Bind { .. }), None) => {
                tracing::warn!(
                    flag = self.flag,
                    error = exit::chain(&error),
                    "this part of the authorization service is not served"
                );
                Ok(None)
            }
            (Err(error), _) => Err(exit::usage(format!("{}: {}", self.flag, exit::chain(&error)))),
        }
    }
}

fn identities(flag: &str, texts: &[String]) -> Result<BTreeSet<SpiffeId>> {
    let parse = |text: &String| {
        SpiffeId::parse(text).map_err(|error| exit::usage(format!("{flag} `{text}` is no SPIFFE ID: {error}")))
    };
    texts.iter().map(parse).collect()
}

/// An `http(s)` URL without query and fragment (the standard's identifier of a decision point).
fn url(text: &str) -> Result<String> {
    let parsed = text.parse::<http::Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    match parsed {
        Some(_) if !text.contains(['?', '#']) => Ok(text.to_owned()),
        _ => Err(exit::usage(format!("--http-url `{text}` is no http or https URL without query and fragment"))),
    }
}

/// The directory's last good configuration, as the service reads it.
#[derive(Clone)]
struct Policies(watch::Sender<Option<Arc<PolicySnapshot>>>);

impl PolicySource for Policies {
    fn current(&self) -> Option<Arc<PolicySnapshot>> {
        self.0.borrow().clone()
    }
}

impl Policies {
    fn new(states: &watch::Receiver<State>) -> Self {
        Self(watch::Sender::new(snapshot(&states.borrow())))
    }

    async fn follow(self, mut states: watch::Receiver<State>, shutdown: CancellationToken) {
        // Begins with the present state: it may have changed since it was read first.
        loop {
            let state = states.borrow_and_update().clone();
            if let Some(newest) = snapshot(&state) {
                self.0.send_if_modified(|held| {
                    let changed = held.as_ref().is_none_or(|held| held.revision() != newest.revision());
                    if changed {
                        *held = Some(newest);
                    }
                    changed
                });
            }
            match shutdown.run_until_cancelled(states.changed()).await {
                Some(Ok(())) => {}
                // The control plane ends with the process.
                Some(Err(_)) => return shutdown.cancelled().await,
                None => return,
            }
        }
    }
}

fn snapshot(state: &State) -> Option<Arc<PolicySnapshot>> {
    let good = state.good.as_ref()?;
    let resources = Arc::new(good.resources.clone());
    Some(Arc::new(PolicySnapshot::new(good.revision.as_str(), resources, good.mesh.clone())))
}
