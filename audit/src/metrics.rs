//! The counters by which a reader can check that nothing is missing.
//!
//! In one enforcer: `recorded` = `spooled` + lost at `ring` and `stop` + what the ring holds; gap events are not counted, they
//! count. `acknowledged` follows `spooled`, and begins with what an earlier process left behind.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = [(&'static str, &'static str); 1];

/// Counters of an enforcer.
#[derive(Debug, Clone, Default)]
pub(crate) struct RecorderMetrics {
    pub(crate) recorded: Counter,
    pub(crate) spooled: Counter,
    /// Sent, again when an acknowledgement was lost.
    pub(crate) forwarded: Counter,
    pub(crate) acknowledged: Counter,
    /// The ring was full and waiting had lasted too long.
    pub(crate) lost_ring: Counter,
    /// Still in the ring when the spool could not be written at the stop, or recorded after it.
    pub(crate) lost_stop: Counter,
    /// Damaged on disk.
    pub(crate) lost_spool: Counter,
    pub(crate) spool_bytes: Gauge,
}

impl RecorderMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let events = Family::<Labels, Counter>::default();
        let lost = Family::<Labels, Counter>::default();
        let outcome = |name| events.get_or_create_owned(&[("outcome", name)]);
        let stage = |name| lost.get_or_create_owned(&[("stage", name)]);
        let metrics = Self {
            recorded: outcome("recorded"),
            spooled: outcome("spooled"),
            forwarded: outcome("forwarded"),
            acknowledged: outcome("acknowledged"),
            lost_ring: stage("ring"),
            lost_stop: stage("stop"),
            lost_spool: stage("spool"),
            spool_bytes: Gauge::default(),
        };
        registry.register("palisade_audit_events", "Audit events by how far they have come", events.clone());
        registry.register("palisade_audit_lost", "Audit events lost, by where", lost.clone());
        registry.register("palisade_audit_spool_bytes", "Size of the audit spool on disk", metrics.spool_bytes.clone());
        metrics
    }
}

/// Counters of the store's side.
#[derive(Debug, Clone, Default)]
pub(crate) struct IngestMetrics {
    pub(crate) ingested: Counter,
    pub(crate) duplicates: Counter,
}

impl IngestMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("palisade_audit_ingested", "Audit rows stored", metrics.ingested.clone());
        registry.register(
            "palisade_audit_duplicates",
            "Audit events received again and dropped",
            metrics.duplicates.clone(),
        );
        metrics
    }
}
