//! Subscribers of one agent: opening them, what each costs, and a new bundle for all of them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use palisade_wire::SECRET_TYPE_URL;
use palisade_wire::channel;
use palisade_wire::envoy::envoy::config::core::v3::Node;
use palisade_wire::envoy::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use palisade_wire::envoy::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::super::cpu;
use super::Row;
use super::scene::Scene;
use crate::mesh::Agent;
use crate::poll_async;

/// Whoever has nothing by then has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// One Envoy with one stream, on a connection of its own.
struct Subscriber {
    answers: Streaming<DiscoveryResponse>,
    requests: mpsc::Sender<DiscoveryRequest>,
}

/// Both rows of the agent.
pub(super) fn run(
    runtime: &Runtime,
    scene: &mut Scene,
    many: usize,
    print: &mut impl FnMut(&Row) -> Result<()>,
) -> Result<()> {
    let mut agent = scene.mesh.start_agent("shop", "node")?;
    let pid = agent.process()?.pid();
    if cpu::two()? {
        cpu::pin(pid, 1)?;
    }
    let mut all = vec![runtime.block_on(poll_async("the agent to serve", || subscribe(&agent)))];
    let idle = cpu::resident_mb(pid)?;
    print(&Row { bench: "sds-idle", rss_mb: Some(idle), ..Row::default() })?;
    let begin = Instant::now();
    all.extend(runtime.block_on(open(&agent, many)));
    let (seconds, resident) = (begin.elapsed().as_secs_f64(), cpu::resident_mb(pid)?);
    print(&Row {
        bench: "sds-open",
        seconds: Some(seconds),
        rss_mb: Some(resident),
        kb_per_stream: Some((resident - idle) * 1e3 / many as f64),
        failed: Some(count(many + 1 - all.len())),
        ..Row::default()
    })?;
    let begin = Instant::now();
    let prepared = scene.mesh.palisade(&["ca", "rotate", "--prepare"])?;
    ensure!(prepared.status.success(), "ca rotate: {}", String::from_utf8_lossy(&prepared.stderr));
    let failed = runtime.block_on(pushed(&mut all));
    print(&Row {
        bench: "sds-push",
        seconds: Some(begin.elapsed().as_secs_f64()),
        rss_mb: Some(cpu::peak_mb(pid)?),
        failed: Some(failed),
        ..Row::default()
    })
}

/// Those that have their first secret in time; all at the same moment.
async fn open(agent: &Agent, many: usize) -> Vec<Subscriber> {
    let mut opening: FuturesUnordered<_> = (0..many).map(|_| timeout(PATIENCE, subscribe(agent))).collect();
    let mut all = Vec::with_capacity(many);
    while let Some(opened) = opening.next().await {
        all.extend(opened.ok().and_then(Result::ok));
    }
    all
}

/// Opens a stream for the roots, as Envoy does, and takes the first answer.
async fn subscribe(agent: &Agent) -> Result<Subscriber> {
    let (requests, sent) = mpsc::channel(2);
    let node = Node { id: "bench".to_owned(), cluster: "bench".to_owned(), ..Node::default() };
    let first = DiscoveryRequest { node: Some(node), ..request() };
    requests.send(first).await?;
    let mut client = SecretDiscoveryServiceClient::new(channel::unix(&agent.socket));
    let answers = client.stream_secrets(ReceiverStream::new(sent)).await?.into_inner();
    let mut subscriber = Subscriber { answers, requests };
    subscriber.next().await?;
    Ok(subscriber)
}

/// Waits until everybody has the next answer; how many have not.
async fn pushed(all: &mut [Subscriber]) -> u64 {
    let mut waiting: FuturesUnordered<_> =
        all.iter_mut().map(|subscriber| timeout(PATIENCE, subscriber.next())).collect();
    let mut failed = 0;
    while let Some(answered) = waiting.next().await {
        failed += u64::from(!matches!(answered, Ok(Ok(()))));
    }
    failed
}

impl Subscriber {
    /// The next answer, acknowledged.
    async fn next(&mut self) -> Result<()> {
        let answer = self.answers.message().await?.context("the stream has ended")?;
        let acknowledged =
            DiscoveryRequest { version_info: answer.version_info, response_nonce: answer.nonce, ..request() };
        Ok(self.requests.send(acknowledged).await?)
    }
}

fn request() -> DiscoveryRequest {
    let resource_names = vec!["ROOTCA".to_owned()];
    DiscoveryRequest { resource_names, type_url: SECRET_TYPE_URL.to_owned(), ..DiscoveryRequest::default() }
}

fn count(many: usize) -> u64 {
    u64::try_from(many).unwrap_or(u64::MAX)
}
