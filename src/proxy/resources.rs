//! Where the proxy's policies and workloads come from: the server's xDS stream, or a directory of the same YAML.

use std::sync::Arc;

use anyhow::Result;
use palisade_identity::SvidSource;
use palisade_proxy::config::ResourcesConfig;
use palisade_proxy::control_client::{ClientConfig, ControlClient, DirectoryConfig, DirectorySource};
use palisade_proxy::{ProxyConfig, Snapshots};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::exit;
use crate::runtime::{Supervisor, SystemClock};
use crate::upstream;

/// Applies what is there now, and starts the task that follows it.
pub(super) fn start(
    config: &ProxyConfig,
    identity: &Arc<dyn SvidSource>,
    snapshots: &Snapshots,
    registry: &mut Registry,
    (tasks, end): (&mut Supervisor, &CancellationToken),
) -> Result<()> {
    let end = end.clone();
    match &config.resources {
        ResourcesConfig::Directory { directory, mesh } => {
            let watched = DirectoryConfig { mesh_file: mesh.clone(), ..DirectoryConfig::new(directory) };
            let source = DirectorySource::new(watched, snapshots.callback(), registry);
            tasks.spawn_quiet("resources", source.run(end));
        }
        ResourcesConfig::Server => {
            let server = config.server.as_ref().ok_or_else(|| exit::usage("`server` is missing"))?;
            let channels = upstream::channels(&server.address, server.name.as_deref(), identity);
            let workload = &config.workload;
            let client = ClientConfig::new(&workload.namespace, &workload.name, config.state_dir.join("snapshot"));
            let client = ControlClient::new(client, channels, snapshots.callback(), Arc::new(SystemClock), registry)
                .map_err(|error| exit::usage(exit::chain(&error)))?;
            tasks.spawn_quiet("control plane", client.run(end));
        }
    }
    Ok(())
}
