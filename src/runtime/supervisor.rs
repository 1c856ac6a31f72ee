//! Whoever starts a task owns its end: tasks are named, and one that ends unasked ends the process.

use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::exit;

/// How long tasks may take to finish after a shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(15);

/// The tasks of a process.
pub(crate) struct Supervisor {
    tasks: JoinSet<(&'static str, Result<(), String>)>,
    shutdown: CancellationToken,
}

impl Supervisor {
    /// Tasks end when `shutdown` is cancelled.
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), shutdown }
    }

    /// Starts a task under a name that the logs will use.
    pub(crate) fn spawn<E>(&mut self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: std::fmt::Display + Send,
    {
        self.tasks.spawn(async move { (name, task.await.map_err(|error| format!("{error:#}"))) });
    }

    /// [`Supervisor::spawn`] for a task that cannot fail.
    pub(crate) fn spawn_quiet(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(name, async move {
            task.await;
            Ok::<_, std::convert::Infallible>(())
        });
    }

    /// Waits for the shutdown, or for the first task that ends before it; then drains the others.
    pub(crate) async fn wait(mut self) -> Result<()> {
        let failure = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            ended = self.tasks.join_next() => ended.map(|ended| match ended {
                Ok((name, Ok(()))) => format!("task `{name}` ended without being asked"),
                Ok((name, Err(error))) => format!("task `{name}` failed: {error}"),
                Err(error) => format!("a task panicked: {error}"),
            }),
        };
        self.shutdown.cancel();
        if tokio::time::timeout(DRAIN, self.drain()).await.is_err() {
            tracing::warn!(seconds = DRAIN.as_secs(), "tasks did not finish in time and are cut");
            self.tasks.shutdown().await;
        }
        failure.map_or(Ok(()), |message| Err(exit::task_died(message)))
    }

    async fn drain(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok((task, Ok(()))) => tracing::debug!(task, "stopped"),
                Ok((task, Err(error))) => tracing::warn!(task, %error, "did not stop cleanly"),
                Err(error) => tracing::warn!(%error, "a task panicked while stopping"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::Supervisor;

    #[tokio::test]
    async fn an_early_end_stops_the_others_and_is_named() {
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let asked = shutdown.clone();
        supervisor.spawn("waits", async move {
            asked.cancelled().await;
            Ok::<_, String>(())
        });
        supervisor.spawn("dies", async { Err::<(), _>("no disk") });
        let error = supervisor.wait().await.unwrap_err();
        assert_eq!(error.to_string(), "task `dies` failed: no disk");
        assert!(shutdown.is_cancelled());
    }

    #[tokio::test]
    async fn an_asked_end_is_clean() {
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let asked = shutdown.clone();
        supervisor.spawn("waits", async move {
            asked.cancelled().await;
            Ok::<_, String>(())
        });
        shutdown.cancel();
        supervisor.wait().await.unwrap();
    }
}
