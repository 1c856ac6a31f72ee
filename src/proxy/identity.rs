//! Where the proxy's certificate comes from: an agent in this process, or files that somebody else keeps.

mod files;

use std::sync::Arc;

use anyhow::Result;
use palisade_identity::SvidSource;
use palisade_proxy::ProxyConfig;
use palisade_proxy::config::{AgentConfig, IdentityConfig};
use palisade_sds::{Agent, FirstTrust, JoinTokenSource};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::agent::renew_on_hangup;
use crate::exit;
use crate::runtime::{Supervisor, SystemClock};

/// Starts the source and the task that keeps it fresh.
pub(super) fn start(
    config: &ProxyConfig,
    registry: &mut Registry,
    tasks: &mut Supervisor,
    end: &CancellationToken,
) -> Result<Arc<dyn SvidSource>> {
    match &config.identity {
        IdentityConfig::Agent(agent) => embedded(config, agent, registry, tasks, end),
        IdentityConfig::Files(wanted) => {
            let source = files::FileSource::open(wanted, Arc::new(SystemClock)).map_err(exit::usage)?;
            tasks.spawn("identity files", files::follow(Arc::clone(&source), end.clone()));
            Ok(source)
        }
    }
}

fn embedded(
    config: &ProxyConfig,
    wanted: &AgentConfig,
    registry: &mut Registry,
    tasks: &mut Supervisor,
    end: &CancellationToken,
) -> Result<Arc<dyn SvidSource>> {
    let server = config.server.as_ref().ok_or_else(|| exit::usage("identity.agent needs `server`"))?;
    let agent = palisade_sds::AgentConfig {
        server: server.address.clone(),
        server_name: server.name.clone(),
        trust_domain: config.trust_domain.clone(),
        first_trust: wanted.trust_bundle.clone().map_or(FirstTrust::JoinToken, FirstTrust::BundleFile),
        join_token: wanted.join_token.clone().map(JoinTokenSource::File),
        expected_id: None,
        lifetime: None,
        state_dir: config.state_dir.join("identity"),
        socket: wanted.socket.clone(),
        allowed_uids: wanted.allowed_uids.clone(),
        files: Vec::new(),
        admin_socket: None,
    };
    let agent = Agent::new(agent, Arc::new(SystemClock), registry).map_err(|error| exit::usage(exit::chain(&error)))?;
    agent.open_socket().map_err(|error| exit::usage(format!("identity.agent.socket: {}", exit::chain(&error))))?;
    renew_on_hangup(agent.clone(), end.clone())?;
    let (running, stopping) = (agent.clone(), end.clone());
    tasks.spawn("agent", async move { running.run(stopping).await.map_err(|error| exit::chain(&error)) });
    Ok(Arc::new(agent))
}
