//! What the authority counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Handles to all metrics; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    issued: Family<Attestor, Counter>,
    refused: Family<Reason, Counter>,
    shortened: Counter,
    not_after: Family<Kind, Gauge>,
    maintenance_failures: Counter,
    pub(crate) store_seconds: Histogram,
    pub(crate) store_failures: Counter,
    store_waiting: Gauge,
}

/// A record that waits for its flush, for as long as this lives.
pub(crate) struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attestor {
    attestor: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        // 0.25 ms to 8 s, doubling: from one flush of a good disk to a disk that hangs.
        let buckets = prometheus_client::metrics::histogram::exponential_buckets(0.000_25, 2.0, 16);
        Self {
            issued: Family::default(),
            refused: Family::default(),
            shortened: Counter::default(),
            not_after: Family::default(),
            maintenance_failures: Counter::default(),
            store_seconds: Histogram::new(buckets),
            store_failures: Counter::default(),
            store_waiting: Gauge::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let ca = registry.sub_registry_with_prefix("palisade_ca");
        ca.register("issued", "Certificates issued, by attestor", self.issued.clone());
        ca.register("refused", "Requests refused, by reason", self.refused.clone());
        ca.register("shortened", "Certificates with less than the lifetime asked for", self.shortened.clone());
        let help = "Failed renewals of the intermediate or the server's certificate";
        ca.register("maintenance_failures", help, self.maintenance_failures.clone());
        let help = "From a record's hand-over to the store until it is durable";
        ca.register_with_unit("store", help, Unit::Seconds, self.store_seconds.clone());
        ca.register("store_failures", "Batches of records that could not be made durable", self.store_failures.clone());
        ca.register("store_waiting", "Records that wait to be durable", self.store_waiting.clone());
        let help = "When the certificate of this kind expires, unix time";
        registry.register_with_unit("palisade_cert_not_after", help, Unit::Seconds, self.not_after.clone());
    }

    pub(crate) fn issued(&self, attestor: &'static str, shortened: bool) {
        self.issued.get_or_create(&Attestor { attestor }).inc();
        if shortened {
            self.shortened.inc();
        }
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn waiting(&self) -> Waiting {
        self.store_waiting.inc();
        Waiting(self.store_waiting.clone())
    }

    pub(crate) fn not_after(&self, kind: &'static str, seconds: u64) {
        self.not_after.get_or_create(&Kind { kind }).set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    pub(crate) fn maintenance_failed(&self) {
        self.maintenance_failures.inc();
    }
}
