//! Many agents that start at the same moment, each with a connection of its own.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::super::cpu;
use super::scene::{Credential, Scene};
use super::{Row, once};

/// An agent whose call fails tries again after this: they all restart at once, and stay.
const AGAIN: Duration = Duration::from_millis(250);
/// Whoever is not served by then has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// All of them until the last one has its certificate.
pub(super) async fn run(scene: &Scene, agents: usize) -> Result<Row> {
    let credential = Credential::Token(scene.token("herd")?);
    let begin = Instant::now();
    let mut all: FuturesUnordered<_> = (0..agents).map(|index| agent(scene, &credential, index, begin)).collect();
    let mut failed = 0;
    while let Some(served) = all.next().await {
        failed += u64::from(!served);
    }
    Ok(Row {
        bench: "herd",
        seconds: Some(begin.elapsed().as_secs_f64()),
        rss_mb: Some(cpu::peak_mb(scene.server())?),
        failed: Some(failed),
        ..Row::default()
    })
}

async fn agent(scene: &Scene, credential: &Credential, index: usize, begin: Instant) -> bool {
    while begin.elapsed() < PATIENCE {
        if once::ask(scene, credential, index).await.is_ok() {
            return true;
        }
        tokio::time::sleep(AGAIN).await;
    }
    false
}
