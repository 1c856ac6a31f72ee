//! One agent with its directory, socket and metrics.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use palisade_identity::{Clock, Identity, SpiffeId, SvidSource, TrustDomain, UnixTime};
use palisade_sds::{Agent, AgentConfig, FirstTrust, JoinToken, JoinTokenSource, RunError};
use palisade_tests::poll_async;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }
}

/// A running agent; [`Node::stop`] waits for its end.
pub(crate) struct Node {
    directory: tempfile::TempDir,
    config: AgentConfig,
    pub(crate) handle: Agent,
    registry: Registry,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Node {
    /// Starts an agent with a fresh join token and waits for its identity.
    pub(crate) async fn start(server: SocketAddr, token: &str, id: &str) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        // Other users must reach the socket to be refused by attestation.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("mode");
        let config = AgentConfig {
            server: server.to_string(),
            server_name: Some("localhost".to_owned()),
            trust_domain: TrustDomain::parse("a.test").expect("trust domain"),
            first_trust: FirstTrust::JoinToken,
            join_token: Some(JoinTokenSource::Inline(JoinToken::parse(token).expect("join token"))),
            expected_id: Some(SpiffeId::parse(id).expect("an ID")),
            lifetime: None,
            state_dir: directory.path().join("state"),
            socket: Some(directory.path().join("run/workload.sock")),
            allowed_uids: Vec::new(),
            files: Vec::new(),
            admin_socket: None,
        };
        Self::run(directory, config).await
    }

    async fn run(directory: tempfile::TempDir, config: AgentConfig) -> Self {
        let mut registry = Registry::default();
        let handle = Agent::new(config.clone(), Arc::new(SystemClock), &mut registry).expect("an agent");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(handle.clone().run(shutdown.clone()));
        let ready = handle.readiness();
        poll_async("the agent's identity", || async { if *ready.borrow() { Ok(()) } else { Err(handle.health()) } })
            .await;
        Self { directory, config, handle, registry, shutdown, task }
    }

    /// Stops the agent and starts it from its directory, without a token.
    pub(crate) async fn restart(mut self) -> Self {
        self.shutdown.cancel();
        self.task.await.expect("the agent ends").expect("in order");
        self.config.join_token = None;
        self.config.first_trust = FirstTrust::BundleFile("/nowhere/bundle.pem".into());
        Self::run(self.directory, self.config).await
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("the agent ends").expect("in order");
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/workload.sock")
    }

    pub(crate) fn identity(&self) -> Arc<Identity> {
        self.handle.current().expect("an identity")
    }

    /// One metric without labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect("the metric").parse().expect("a number")
    }
}
