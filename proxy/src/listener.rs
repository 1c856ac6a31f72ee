//! Listening sockets and their accept loops: a failed accept never ends one, and want of descriptors never spins it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::metrics::Direction;

/// Pause before accepting again when the process or the system is out of something.
const PAUSE: Duration = Duration::from_millis(20);
const BACKLOG: i32 = 1024;

/// A port that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}; fix: {fix}")]
pub struct BindError {
    /// Address asked for.
    pub address: SocketAddr,
    /// What would have been served, for example `inbound[0]`.
    pub what: String,
    /// What can be done.
    pub fix: String,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Opens a listening socket whose connections inherit no-delay and keep-alive, so that none pays system calls for them.
pub(crate) fn bind(address: SocketAddr, what: &str) -> Result<TcpListener, BindError> {
    listen(address).map_err(|source| BindError { address, what: what.to_owned(), fix: fix(&source, address), source })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(5);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn fix(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another process listens there (`ss -ltnp 'sport = :{}'` names it): stop it, or choose another port; 0 takes a free one",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => {
            "choose a port from 1024 up, or give the process CAP_NET_BIND_SERVICE".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is no address of this machine: choose one that is", address.ip())
        }
        _ => "choose another address".to_owned(),
    }
}

/// Counts an accepted connection for the limit and the gauge.
#[derive(Debug)]
pub(crate) struct Accepted {
    core: Arc<Core>,
    direction: Direction,
}

impl Accepted {
    fn new(core: Arc<Core>, direction: Direction) -> Accepted {
        core.accepted.fetch_add(1, Ordering::Relaxed);
        core.metrics.open(direction).inc();
        Accepted { core, direction }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.core.accepted.fetch_sub(1, Ordering::Relaxed);
        self.core.metrics.open(self.direction).dec();
    }
}

/// Accepts until shutdown, handing each connection to `serve` in a task of its own.
pub(crate) async fn run<F, S>(
    core: Arc<Core>,
    listener: TcpListener,
    direction: Direction,
    shutdown: CancellationToken,
    serve: F,
) where
    F: Fn(TcpStream, SocketAddr) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((tcp, peer)) if core.accepted.load(Ordering::Relaxed) < core.limits.max_connections => {
                let counted = Accepted::new(core.clone(), direction);
                let connection = serve(tcp, peer);
                tokio::spawn(async move {
                    connection.await;
                    drop(counted);
                });
            }
            // Over the limit: closed at once, so that the caller can go elsewhere.
            Ok(_) => core.metrics.refused("connection-limit"),
            Err(error) => {
                if is_shortage(&error) {
                    tracing::warn!(%error, "accepting pauses");
                    core.metrics.accept_paused();
                    shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
            }
        }
    }
}

/// Errors of the process or system rather than of the one connection; accepting again at once would spin.
fn is_shortage(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
