//! Clients of the extension providers that CUSTOM policies ask: Envoy's external authorization over gRPC and HTTP, as
//! Istio configures it.
//!
//! Kept apart from the engine because everything here waits: a provider is another machine. What it answers is taken
//! for what it is, bytes from outside: an answer that cannot be obeyed as it stands is an error of the provider, and
//! no part of it is forwarded. Each provider keeps its connections, counters and circuit breaker across changes of
//! policy, see [`Providers::renewed`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use palisade_policies::{CheckBody, ExtensionProvider, MeshConfig, ProviderKind};
use tokio::time::Instant;

mod answer;
mod breaker;
mod check;
mod counters;
mod dial;
mod field;
mod grpc;
mod http;
mod one;
mod query;
mod question;
mod reach;
mod response;
mod watched;

pub use check::{CheckRequest, Party};
pub use counters::Counts;
pub use dial::{Dial, Dialing, Io, TcpDial};
pub use response::{Resolved, Response, ResponseEdits, Verdict};

use one::Provider;

/// What a provider may hold and cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Checks under way at once, for each provider.
    pub max_concurrent: usize,
    /// Checks that wait for one of those to end; one more is an error of the provider.
    pub max_pending: usize,
    /// Opening a connection may take so long (Istio's `connectTimeout`).
    pub connect_timeout: Duration,
    /// Bytes of an answer's body, or of a whole gRPC answer.
    pub max_answer: usize,
    /// A connection that rested so long is not used again: what stands between may have forgotten it without a word. gRPC's
    /// single one is pinged instead.
    pub max_rest: Duration,
    /// A connection is used no longer than this, so that a name that leads elsewhere now is followed. That it carries no
    /// question once a certificate is over is up to [`Dial`], who knows of certificates.
    pub max_age: Duration,
    /// So many connections in a row that did not come about open the circuit: requests fail at once. What happens after
    /// a question was put (no answer in time, no HTTP) may be the question's doing and opens nothing.
    pub failures: u32,
    /// After so long one check is let through to an open circuit; it doubles with each that fails.
    pub open_for: Duration,
    /// What `open_for` grows to at most.
    pub open_for_max: Duration,
    /// The time by which a circuit is opened and tried again, and connections grow old.
    pub now: fn() -> Instant,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_concurrent: 1024,
            max_pending: 1024,
            connect_timeout: Duration::from_secs(10),
            max_answer: 1024 * 1024,
            max_rest: Duration::from_secs(60),
            max_age: Duration::from_secs(3600),
            failures: 5,
            open_for: Duration::from_secs(1),
            open_for_max: Duration::from_secs(30),
            now: Instant::now,
        }
    }
}

/// The extension providers of one mesh configuration.
pub struct Providers {
    by_name: BTreeMap<String, Arc<Provider>>,
    dial: Arc<dyn Dial>,
    limits: Limits,
}

impl Providers {
    /// The providers that `mesh` names, reached through `dial`. Nothing is connected before it is asked.
    #[must_use]
    pub fn new(mesh: &MeshConfig, dial: Arc<dyn Dial>) -> Self {
        Self::with_limits(mesh, dial, Limits::default())
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mesh: &MeshConfig, dial: Arc<dyn Dial>, limits: Limits) -> Self {
        Self { by_name: BTreeMap::new(), dial, limits }.renewed(mesh)
    }

    /// No providers: whoever is asked, the answer is no.
    #[must_use]
    pub fn none() -> Self {
        Self::new(&MeshConfig::default(), Arc::new(TcpDial::default()))
    }

    /// The providers of a newer configuration: those that did not change keep connections, counters and circuit.
    #[must_use]
    pub fn renewed(&self, mesh: &MeshConfig) -> Self {
        let mut by_name = BTreeMap::new();
        for provider in mesh.extension_providers.iter().filter(|provider| is_asked(provider)) {
            let kept = self.by_name.get(&provider.name).filter(|kept| kept.config == *provider).map(Arc::clone);
            let made = kept.unwrap_or_else(|| Arc::new(Provider::new(provider, Arc::clone(&self.dial), &self.limits)));
            by_name.entry(provider.name.clone()).or_insert(made);
        }
        Self { by_name, dial: Arc::clone(&self.dial), limits: self.limits.clone() }
    }

    /// Asks `provider` about a request, or about a connection (`request.tcp`). Always answers: what goes wrong is
    /// decided by the provider's `failOpen` and `statusOnError`, and a provider that is not there refuses.
    ///
    /// A connection is refused by any [`Verdict::Refused`]; its response has no meaning there.
    pub async fn check(&self, provider: &str, request: &CheckRequest) -> Verdict {
        match self.by_name.get(provider) {
            Some(provider) => provider.check(request).await,
            None => Verdict::no_provider(),
        }
    }

    /// How much of a request's body `provider` wants to see; none where it wants none, or is not there.
    #[must_use]
    pub fn body_wanted(&self, provider: &str) -> Option<CheckBody> {
        self.by_name.get(provider)?.body()
    }

    /// What happened since each provider was made, by name.
    pub fn counts(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.by_name.iter().map(|(name, provider)| (name.as_str(), provider.counts()))
    }
}

impl std::fmt::Debug for Providers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

fn is_asked(provider: &ExtensionProvider) -> bool {
    matches!(provider.kind, ProviderKind::ExtAuthzHttp(_) | ProviderKind::ExtAuthzGrpc(_))
}

#[cfg(test)]
mod tests;
