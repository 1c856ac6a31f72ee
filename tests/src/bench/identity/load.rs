//! The load: as many requests as are answered, or as many as are due.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use palisade_wire::istio_ca::istio_certificate_service_client::IstioCertificateServiceClient;
use tonic::transport::Channel;

use super::super::cpu;
use super::once;
use super::scene::{Credential, Scene};

/// Most requests under way in the open loop: further ones wait, and their wait counts.
const UNDER_WAY: usize = 64;

/// Timers wake up to this much late.
const COARSE: Duration = Duration::from_millis(2);

/// Who asks whom, and over how many connections.
pub(super) struct Load<'a> {
    pub(super) scene: &'a Scene,
    pub(super) credential: &'a Credential,
    /// Kept connections; 0: each request makes its own.
    pub(super) connections: usize,
}

/// What was seen in the counted time.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Nanoseconds, sorted.
    pub(super) latencies: Vec<u64>,
    pub(super) failed: u64,
    /// Of the server.
    pub(super) cpu_seconds: f64,
}

impl Outcome {
    /// The latency that this share of the requests did not exceed.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        self.latencies.get(index).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1e6)
    }
}

/// What all tasks of a run write to.
struct Count {
    begin: Instant,
    end: Instant,
    outcome: RefCell<Outcome>,
}

impl Load<'_> {
    /// `tasks` requests are under way at any time.
    pub(super) async fn closed(&self, tasks: usize, warm_up: Duration, length: Duration) -> Result<Outcome> {
        self.run(tasks, None, warm_up, length).await
    }

    /// A request is due every 1/`rate` seconds, whether the earlier ones are answered or not.
    pub(super) async fn open(&self, rate: f64, warm_up: Duration, length: Duration) -> Result<Outcome> {
        self.run(UNDER_WAY, Some(rate), warm_up, length).await
    }

    async fn run(&self, tasks: usize, rate: Option<f64>, warm_up: Duration, length: Duration) -> Result<Outcome> {
        let channels: Vec<Channel> =
            (0..self.connections).map(|_| self.scene.connect(self.credential)).collect::<Result<_>>()?;
        let start = Instant::now();
        let begin = start + warm_up;
        let count = Rc::new(Count { begin, end: begin + length, outcome: RefCell::default() });
        let step = rate.map(|rate| Duration::from_secs_f64(tasks as f64 / rate));
        let working = (0..tasks).map(|index| {
            let offset = step.map_or(Duration::ZERO, |step| step.mul_f64(index as f64 / tasks as f64));
            let channel = channels.get(index % channels.len().max(1)).cloned();
            self.work(channel, index, start + offset, step, Rc::clone(&count))
        });
        let cpu = async {
            tokio::time::sleep_until(count.begin.into()).await;
            let before = cpu::seconds(self.scene.server())?;
            tokio::time::sleep_until(count.end.into()).await;
            Ok::<_, anyhow::Error>(cpu::seconds(self.scene.server())? - before)
        };
        let ((), used) = tokio::join!(join_all(working), cpu);
        let mut outcome = count.outcome.take();
        outcome.latencies.sort_unstable();
        outcome.cpu_seconds = used?;
        Ok(outcome)
    }

    async fn work(
        &self,
        channel: Option<Channel>,
        index: usize,
        mut due: Instant,
        step: Option<Duration>,
        count: Rc<Count>,
    ) {
        for round in index.. {
            match step {
                Some(_) => until(due).await,
                None => due = Instant::now(),
            }
            if due >= count.end {
                return;
            }
            let answered = self.ask(channel.clone(), round).await;
            let now = Instant::now();
            if due >= count.begin && now <= count.end {
                let mut outcome = count.outcome.borrow_mut();
                match answered {
                    Ok(()) => outcome.latencies.push(u64::try_from((now - due).as_nanos()).unwrap_or(u64::MAX)),
                    Err(_) => outcome.failed += 1,
                }
            }
            due += step.unwrap_or_default();
        }
    }

    async fn ask(&self, channel: Option<Channel>, round: usize) -> Result<()> {
        let Some(channel) = channel else { return once::ask(self.scene, self.credential, round).await };
        let request = self.scene.request(self.credential, round)?;
        let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await?;
        answer.get_ref().cert_chain.first().context("no certificate")?;
        Ok(())
    }
}

/// Timers are a millisecond coarse, which is as long as an answer takes: the rest is waited for awake. The load has its core.
async fn until(due: Instant) {
    if let Some(early) = due.checked_sub(COARSE) {
        tokio::time::sleep_until(early.into()).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

/// Waits for all of them, in this task.
async fn join_all(working: impl Iterator<Item = impl Future<Output = ()>>) {
    use tokio_stream::StreamExt as _;
    let mut all: futures_util::stream::FuturesUnordered<_> = working.collect();
    while all.next().await.is_some() {}
}
