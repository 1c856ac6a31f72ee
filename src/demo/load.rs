//! Steady traffic while something else happens, with every answer counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Result;
use tokio::task::JoinSet;

use super::call::Caller;

const CALLERS: usize = 4;

/// Requests in flight until they are told to stop.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    callers: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    /// Starts a few callers that repeat `GET path` as fast as they are answered.
    pub(super) fn start(caller: &Caller, address: SocketAddr, path: &'static str) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (caller, stop, counts) = (caller.clone(), Arc::clone(&stop), Arc::clone(&counts));
            callers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let good = caller.get(address, path).await.is_ok_and(|answer| answer.status == 200);
                    let count = if good { &counts.answered } else { &counts.failed };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { stop, counts, callers }
    }

    /// Answered so far.
    pub(super) fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Stops, and returns how many requests were answered with 200 and how many were not.
    pub(super) async fn stop(mut self) -> Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended?;
        }
        Ok((self.answered(), self.counts.failed.load(Ordering::Relaxed)))
    }
}
