//! The accept loop: it never ends of itself, and it never runs away.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;

const FIRST_BACKOFF: Duration = Duration::from_millis(5);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// Something connections come from.
pub(super) trait Accept: Send {
    /// One accepted connection.
    type Connection: Send + 'static;

    /// Waits for the next connection; cancel safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Accept for TcpListener {
    type Connection = (TcpStream, SocketAddr);

    async fn accept(&mut self) -> io::Result<Self::Connection> {
        TcpListener::accept(self).await
    }
}

/// Accepts until `shutdown`, each connection in a task of its own, at most `max_connections` at
/// once; then closes the listener and waits for the tasks, cutting what outlives the deadline.
pub(super) async fn run<A, F, T>(mut listener: A, limits: &Limits, shutdown: &CancellationToken, serve: F)
where
    A: Accept,
    F: Fn(A::Connection) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
    let mut backoff = Backoff::default();
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok(connection) => {
                backoff = Backoff::default();
                // Boxed, so that the task holds one of it: each future that it is moved through keeps a place for it.
                let (work, cut) = (Box::pin(serve(connection)), cut.clone());
                tasks.spawn(async move {
                    let _slot = slot;
                    cut.run_until_cancelled(work).await;
                });
            }
            Err(error) => backoff.wait(&error, shutdown).await,
        }
    }
    drop(listener);
    drain(&tasks, &cut, limits.drain).await;
}

async fn drain(tasks: &TaskTracker, cut: &CancellationToken, deadline: Duration) {
    tasks.close();
    if tokio::time::timeout(deadline, tasks.wait()).await.is_err() {
        tracing::info!(connections = tasks.len(), "drain deadline passed, connections are cut");
        cut.cancel();
        tasks.wait().await;
    }
}

/// Out of descriptors or memory: trying again at once would burn a core and help nobody.
struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST_BACKOFF }
    }
}

impl Backoff {
    async fn wait(&mut self, error: &io::Error, shutdown: &CancellationToken) {
        if concerns_one_connection(error) {
            tracing::debug!(%error, "a connection was gone before it was accepted");
            return;
        }
        tracing::warn!(%error, wait_ms = self.next.as_millis(), "accepting failed");
        shutdown.run_until_cancelled(tokio::time::sleep(self.next)).await;
        self.next = self.next.saturating_mul(2).min(LONGEST_BACKOFF);
    }
}

/// Errors of the connection rather than the listener (accept(2)): the next one may be fine.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::sync::mpsc;

    use super::*;

    struct Scripted(VecDeque<io::Result<u32>>);

    impl Accept for Scripted {
        type Connection = u32;

        async fn accept(&mut self) -> io::Result<u32> {
            match self.0.pop_front() {
                Some(step) => step,
                None => std::future::pending().await,
            }
        }
    }

    const EMFILE: i32 = 24;

    fn script(steps: impl IntoIterator<Item = io::Result<u32>>) -> Scripted {
        Scripted(steps.into_iter().collect())
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_backed_off_and_never_end_the_loop() {
        let emfile = || Err(io::Error::from_raw_os_error(EMFILE));
        let aborted = Err(io::ErrorKind::ConnectionAborted.into());
        let listener = script([emfile(), emfile(), emfile(), aborted, Ok(7)]);
        let (shutdown, (served, mut seen)) = (CancellationToken::new(), mpsc::unbounded_channel());
        let (started, stop) = (tokio::time::Instant::now(), shutdown.clone());
        let server = tokio::spawn(async move {
            let serve = |id| {
                let served = served.clone();
                async move { served.send(id).unwrap() }
            };
            run(listener, &Limits::default(), &stop, serve).await;
        });
        assert_eq!(seen.recv().await, Some(7));
        // 5 + 10 + 20 ms: each wait doubles, and the aborted connection adds none.
        assert_eq!(started.elapsed(), Duration::from_millis(35));
        shutdown.cancel();
        server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_cap_are_served_at_once() {
        let limits = Limits { max_connections: 2, ..Limits::default() };
        let (shutdown, (served, mut seen)) = (CancellationToken::new(), mpsc::unbounded_channel());
        let (release, stop) = (Arc::new(Semaphore::new(0)), shutdown.clone());
        let gate = Arc::clone(&release);
        let server = tokio::spawn(async move {
            let serve = |id| {
                let (served, gate) = (served.clone(), Arc::clone(&gate));
                async move {
                    served.send(id).unwrap();
                    gate.acquire().await.unwrap().forget();
                }
            };
            run(script([Ok(1), Ok(2), Ok(3)]), &limits, &stop, serve).await;
        });
        assert_eq!((seen.recv().await, seen.recv().await), (Some(1), Some(2)));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(seen.try_recv().is_err(), "the third waits");
        release.add_permits(1);
        assert_eq!(seen.recv().await, Some(3));
        release.add_permits(2);
        shutdown.cancel();
        server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_outlives_the_drain_is_cut() {
        let limits = Limits { drain: Duration::from_secs(3), ..Limits::default() };
        let (shutdown, (served, mut seen)) = (CancellationToken::new(), mpsc::unbounded_channel());
        let stop = shutdown.clone();
        let server = tokio::spawn(async move {
            let serve = |id| {
                let served = served.clone();
                async move {
                    served.send(id).unwrap();
                    std::future::pending().await
                }
            };
            run(script([Ok(1)]), &limits, &stop, serve).await;
        });
        assert_eq!(seen.recv().await, Some(1));
        let started = tokio::time::Instant::now();
        shutdown.cancel();
        server.await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(3));
    }
}
