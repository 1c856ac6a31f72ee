//! Figures of those who help to decide: providers, and the servers of token keys. They are counted where they are asked;
//! here they are read when somebody looks. Labels come from the configuration alone.

use std::fmt;
use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::core::Core;
use crate::snapshot::ProxySnapshot;

/// Reads them from the snapshot in use.
#[derive(Debug)]
pub(crate) struct Helpers(pub(crate) Weak<Core>);

impl Collector for Helpers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshot = self.0.upgrade().and_then(|core| core.snapshot.load_full());
        let Some(snapshot) = snapshot else { return Ok(()) };
        checks(&snapshot, &mut encoder)?;
        failures(&snapshot, &mut encoder)?;
        keys(&snapshot, &mut encoder)
    }
}

fn checks(snapshot: &ProxySnapshot, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let help = "Questions to extension providers by what came of them";
    let mut family = encoder.encode_descriptor("palisade_proxy_provider_checks", help, None, MetricType::Counter)?;
    for (provider, counts) in snapshot.providers.counts() {
        for (outcome, count) in [("ok", counts.ok), ("denied", counts.denied), ("error", counts.error)] {
            ConstCounter::new(count).encode(family.encode_family(&[("provider", provider), ("outcome", outcome)])?)?;
        }
    }
    Ok(())
}

fn failures(snapshot: &ProxySnapshot, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let help =
        "Questions to extension providers without a usable answer, by cause; passed are those let pass by failOpen";
    let mut family = encoder.encode_descriptor("palisade_proxy_provider_failures", help, None, MetricType::Counter)?;
    for (provider, counts) in snapshot.providers.counts() {
        let causes = [
            ("timeout", counts.timeout),
            ("invalid", counts.invalid),
            ("rejected", counts.rejected),
            ("passed", counts.failure_mode_allowed),
        ];
        for (cause, count) in causes {
            ConstCounter::new(count).encode(family.encode_family(&[("provider", provider), ("cause", cause)])?)?;
        }
    }
    Ok(())
}

fn keys(snapshot: &ProxySnapshot, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let help = "Keys that tokens are verified with, by where they were fetched; 0 while there are none";
    let mut family = encoder.encode_descriptor("palisade_proxy_token_keys", help, None, MetricType::Gauge)?;
    for state in snapshot.keys.states() {
        let count = i64::try_from(state.keys.unwrap_or(0)).unwrap_or(i64::MAX);
        ConstGauge::new(count).encode(family.encode_family(&[("source", state.source.as_str())])?)?;
    }
    Ok(())
}
