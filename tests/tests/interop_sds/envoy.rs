//! Envoy as a subscriber of the agent: what it is configured to do, and where it is reached.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub(crate) use palisade_tests::envoy::sds::Protocol;
use palisade_tests::envoy::sds::bootstrap;
use palisade_tests::{envoy, poll_async, skip};
use serde_json::Value;
use tokio::net::TcpStream;

/// The Envoy of the pinned environment; `None` after a reported skip.
pub(crate) fn binary(test: &str) -> Option<PathBuf> {
    let found = envoy::binary();
    if found.is_none() {
        skip(test, "no Envoy: `cargo xtask test` installs it");
    }
    found
}

/// A running Envoy: an echo behind mTLS, and a plain port that leads through Envoy's own mTLS to an upstream.
pub(crate) struct Envoy(envoy::Envoy);

impl Envoy {
    pub(crate) fn start(binary: &Path, socket: &Path, protocol: Protocol, upstream: SocketAddr) -> Self {
        Self::start_with(binary, socket, protocol, upstream, |_| {})
    }

    /// The same after a change of the bootstrap.
    pub(crate) fn start_with(
        binary: &Path,
        socket: &Path,
        protocol: Protocol,
        upstream: SocketAddr,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let mut bootstrap = bootstrap(socket, protocol, "a.test", upstream);
        change(&mut bootstrap);
        Self(envoy::Envoy::start(binary, &bootstrap).expect("Envoy starts"))
    }

    /// The mTLS port, once it is open: Envoy opens it when the secrets have come.
    pub(crate) async fn mtls(&self) -> SocketAddr {
        self.open("mtls").await
    }

    /// The plain port.
    pub(crate) async fn plain(&self) -> SocketAddr {
        self.open("plain").await
    }

    /// A listener has its address before it listens.
    async fn open(&self, name: &str) -> SocketAddr {
        let address = self.0.listener(name).expect("a listener");
        poll_async("an open listener", || async {
            let connected = TcpStream::connect(address).await;
            connected.map(|_| address).map_err(|error| format!("{address}: {error}; {}", self.0.log()))
        })
        .await
    }

    /// One of Envoy's counters; 0 if it does not exist.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let text = self.0.admin(&format!("/stats?filter={}", name.replace('.', "\\."))).expect("stats");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    pub(crate) fn stop(self) {}
}
