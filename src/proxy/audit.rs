//! Where the proxy's decisions go: spool and server, or, with no server at all, the log.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;
use palisade_audit::{Connect, ForwarderConfig, NanoClock, Recorder, RecorderConfig};
use palisade_authz::{DecisionRecord, DecisionSink};
use palisade_identity::SvidSource;
use palisade_proxy::ProxyConfig;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::runtime::Supervisor;
use crate::sink::{AuditSink, event};
use crate::{exit, upstream};

/// Opens the record and starts what writes and sends it.
pub(super) fn start(
    config: &ProxyConfig,
    identity: &Arc<dyn SvidSource>,
    registry: &mut Registry,
    (tasks, end): (&mut Supervisor, &CancellationToken),
) -> Result<Arc<dyn DecisionSink>> {
    let Some(server) = &config.server else { return Ok(Arc::new(LogSink)) };
    let enforcer = format!("{}/{}", config.workload.namespace, config.workload.name);
    let spool = RecorderConfig::new(config.state_dir.join("audit"), enforcer);
    let recording =
        Recorder::open(&spool, NanoClock::system(), registry).map_err(|error| exit::usage(exit::chain(&error)))?;
    let channels = upstream::channels(&server.address, server.name.as_deref(), identity);
    let connect: Connect = Arc::new(move || {
        let channel = channels();
        Box::pin(async move { channel })
    });
    let (recorder, spooler, forwarder) = recording.forward(ForwarderConfig::default(), connect);
    let (spooling, forwarding) = (end.clone(), end.clone());
    tasks.spawn("audit spool", async move { spooler.run(spooling).await.map_err(|error| exit::chain(&error)) });
    tasks.spawn_quiet("audit delivery", forwarder.run(forwarding));
    Ok(Arc::new(AuditSink(recorder)))
}

/// A standalone proxy has nobody to deliver to: its decisions are lines of its log.
struct LogSink;

impl DecisionSink for LogSink {
    fn has_room(&self) -> bool {
        true
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn record(&self, record: DecisionRecord) {
        let decision = palisade_audit::render::json(&event(record));
        tracing::info!(target: "palisade::audit", %decision);
    }
}
