//! The service's metrics, named in one place.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Which door a question came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// Envoy's external authorization.
    ExtAuthz,
    /// `OpenID` AuthZEN.
    AuthZen,
}

impl Api {
    const ALL: [Self; 2] = [Self::ExtAuthz, Self::AuthZen];

    const fn label(self) -> &'static str {
        match self {
            Self::ExtAuthz => "ext_authz",
            Self::AuthZen => "authzen",
        }
    }
}

/// Handles; clones count into the same numbers.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    decisions: Family<Decided, Counter>,
    duration: Family<OfApi, Histogram>,
    refused: Counter,
    pub(crate) compiled: Gauge,
    pub(crate) connections: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfApi {
    api: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    api: &'static str,
    decision: &'static str,
    reason: &'static str,
}

impl Metrics {
    /// Adds the metrics to `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            decisions: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_05, 2.0, 16))),
            refused: Counter::default(),
            compiled: Gauge::default(),
            connections: Gauge::default(),
        };
        registry.register(
            "palisade_authz_decisions",
            "Decisions of the authorization service, by API, answer and reason",
            metrics.decisions.clone(),
        );
        registry.register(
            "palisade_authz_decision_duration_seconds",
            "Time from a question to its answer, asking providers and fetching keys included",
            metrics.duration.clone(),
        );
        registry.register(
            "palisade_authz_http_refused",
            "AuthZEN requests answered with an error instead of a decision",
            metrics.refused.clone(),
        );
        registry.register(
            "palisade_authz_compiled_sets",
            "Workloads whose policies are compiled",
            metrics.compiled.clone(),
        );
        registry.register("palisade_authz_connections", "Open connections of enforcers", metrics.connections.clone());
        for api in Api::ALL {
            drop(metrics.duration.get_or_create(&OfApi { api: api.label() }));
        }
        metrics
    }

    pub(crate) fn decided(&self, api: Api, allowed: bool, reason: &'static str, took: Duration) {
        let decision = if allowed { "allow" } else { "deny" };
        self.decisions.get_or_create(&Decided { api: api.label(), decision, reason }).inc();
        self.duration.get_or_create(&OfApi { api: api.label() }).observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }
}
