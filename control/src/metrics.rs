//! The control plane's metrics, named in one place.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Handles to the registered metrics; clones count into the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) revisions: Counter,
    pub(crate) errors: Gauge,
    pub(crate) connected: Gauge,
    pushes: Family<PushLabels, Counter>,
    ack_lag: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PushLabels {
    outcome: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            revisions: Counter::default(),
            errors: Gauge::default(),
            connected: Gauge::default(),
            pushes: Family::default(),
            ack_lag: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        };
        registry.register(
            "palisade_config_revisions",
            "Configurations that came into force",
            metrics.revisions.clone(),
        );
        registry.register(
            "palisade_config_errors",
            "Errors that keep the present configuration from being in force, 0 when it is",
            metrics.errors.clone(),
        );
        registry.register("palisade_xds_connected_proxies", "Open xDS streams", metrics.connected.clone());
        registry.register("palisade_xds_pushes", "Snapshots answered by a proxy, by answer", metrics.pushes.clone());
        registry.register(
            "palisade_xds_ack_lag_seconds",
            "Time from the push of a snapshot to the answer of the proxy",
            metrics.ack_lag.clone(),
        );
        // Both outcomes stand at 0 from the start, so that a first NACK is an increase.
        for outcome in ["ack", "nack"] {
            drop(metrics.pushes.get_or_create(&PushLabels { outcome }));
        }
        metrics
    }

    pub(crate) fn answered(&self, accepted: bool, lag: Duration) {
        let outcome = if accepted { "ack" } else { "nack" };
        self.pushes.get_or_create(&PushLabels { outcome }).inc();
        self.ack_lag.observe(lag.as_secs_f64());
    }
}
