//! The one Unix socket: Workload API and SDS side by side.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use palisade_wire::node::node_server::NodeServer;
use palisade_wire::serve::{self, Limits, SocketError, UnixSocket};
use palisade_wire::workload::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::admin::{self, NodeService};
use crate::attest::Attestor;
use crate::discovery::{self, Discovery};
use crate::metrics::Metrics;
use crate::secrets::Feed;
use crate::tokens::Tokens;
use crate::workload::Workload;

/// Largest message of the Workload API that a local client may send.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Every local user may connect; attestation decides what each gets.
const SOCKET_MODE: u32 = 0o666;
/// Whoever runs the agent, and root.
const ADMIN_MODE: u32 = 0o600;
/// Its calls are short.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);
const DIRECTORY_MODE: u32 = 0o755;
/// Envoy opens a stream for each secret, all of them on one connection.
const MAX_STREAMS: u32 = 65_536;

/// The workload socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its directory could not be made.
    #[error("directory `{}` cannot be made", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket itself.
    #[error("the socket cannot be opened")]
    Socket(#[source] SocketError),
}

/// What the socket serves, and to whom.
pub(crate) struct Service {
    pub(crate) feed: Feed,
    pub(crate) attestor: Attestor,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) metrics: Metrics,
}

/// Opens the socket and serves it until `shutdown`.
pub(crate) async fn serve(service: Service, socket: UnixSocket, shutdown: CancellationToken) {
    tracing::info!(path = %socket.path().display(), "the workload socket is open");
    let limits = Limits { max_concurrent_streams: MAX_STREAMS, ..Limits::default() };
    serve::unix(socket, service.routes(&shutdown), limits, shutdown).await;
}

/// Serves the operator's socket until `shutdown`.
pub(crate) async fn serve_admin<A: admin::Agent>(
    service: NodeService<A>,
    socket: UnixSocket,
    shutdown: CancellationToken,
) {
    let routes = Routes::new(NodeServer::new(service));
    serve::unix(socket, routes, Limits { drain: ADMIN_DRAIN, ..Limits::default() }, shutdown).await;
}

/// Opens the operator's socket; its directory is the agent's own.
pub(crate) fn bind_admin(path: &Path) -> Result<UnixSocket, ServeError> {
    UnixSocket::bind(path, ADMIN_MODE).map_err(ServeError::Socket)
}

/// Makes the directory if it is missing, and the socket in it. The mode of a directory that exists is its owner's.
pub(crate) fn bind(path: &Path) -> Result<UnixSocket, ServeError> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(|source| ServeError::Directory { path: directory.to_owned(), source })?;
    }
    UnixSocket::bind(path, SOCKET_MODE).map_err(ServeError::Socket)
}

impl Service {
    fn routes(self, shutdown: &CancellationToken) -> Routes {
        let Self { feed, attestor, tokens, .. } = self;
        let workload = Workload {
            feed: feed.clone(),
            attestor: attestor.clone(),
            tokens,
            metrics: self.metrics.clone(),
            shutdown: shutdown.clone(),
        };
        let discovery = Discovery { feed, attestor, metrics: self.metrics, shutdown: shutdown.clone() };
        let workload = SpiffeWorkloadApiServer::new(workload).max_decoding_message_size(MAX_MESSAGE);
        Routes::new(workload).add_service(discovery::Server::new(discovery))
    }
}

#[cfg(test)]
mod tests;
