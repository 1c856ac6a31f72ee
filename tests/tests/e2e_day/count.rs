//! The figures of those who shake hands: Envoy's own counters and our proxies' metrics, as they grow.

use std::fmt;

use anyhow::Result;
use palisade_tests::envoy::Envoy;
use palisade_tests::http::counted;
use palisade_tests::shop::Shop;

/// What an Envoy counts when a handshake, or what it needs for one, fails.
const ENVOY_FAILURES: [&str; 9] = [
    ".ssl.connection_error",
    ".ssl.fail_verify_no_cert",
    ".ssl.fail_verify_error",
    ".ssl.fail_verify_san",
    ".ssl.fail_verify_cert_hash",
    "_context_secrets_not_ready",
    ".update_rejected",
    "cluster.upstream.upstream_cx_connect_fail",
    "cluster.upstream.upstream_cx_connect_timeout",
];

/// What a proxy counts when a connection or a request fails.
const PROXY_FAILURES: [&str; 3] = [
    "palisade_proxy_connections_refused_total",
    "palisade_proxy_upstream_failures_total",
    "palisade_mtls_connections_total{security=\"plaintext\",direction=\"inbound\"}",
];

/// Figures with their names, in a fixed order.
#[derive(Debug)]
pub(crate) struct Count {
    /// Handshakes that the calling Envoy, the called Envoy and the called proxy have finished.
    pub(crate) handshakes: [u64; 3],
    pub(crate) resumed: u64,
    failures: Vec<(String, u64)>,
}

impl Count {
    pub(crate) fn now(envoys: [&Envoy; 2], shop: &Shop) -> Result<Self> {
        let mut count = Self { handshakes: [0; 3], resumed: 0, failures: Vec::new() };
        for (envoy, side) in envoys.into_iter().zip(["caller", "called"]) {
            for name in ENVOY_FAILURES {
                count.failures.push((format!("Envoy, {side}: {name}"), envoy.counted(name)?));
            }
            count.resumed += envoy.counted(".ssl.session_reused")?;
        }
        for proxy in [&shop.web, &shop.payments] {
            for name in PROXY_FAILURES {
                count.failures.push((format!("{}: {name}", proxy.name), counted(proxy.address("metrics")?, name)?));
            }
        }
        let [caller, called] = envoys;
        let mutual = "palisade_mtls_connections_total{security=\"mtls\",direction=\"inbound\"}";
        let inbound = counted(shop.payments.address("metrics")?, mutual)?;
        count.handshakes = [caller.counted(".ssl.handshake")?, called.counted(".ssl.handshake")?, inbound];
        Ok(count)
    }

    /// What has been counted since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (now, before) in self.handshakes.iter_mut().zip(before.handshakes) {
            *now -= before;
        }
        self.resumed -= before.resumed;
        for ((_, now), (_, before)) in self.failures.iter_mut().zip(&before.failures) {
            *now -= before;
        }
        self.failures.retain(|(_, count)| *count > 0);
        self
    }

    /// Fails if anything failed.
    pub(crate) fn check(&self) {
        assert!(self.failures.is_empty(), "{self}");
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [caller, called, proxies] = self.handshakes;
        write!(
            f,
            "handshakes: {caller} by the calling Envoy, {called} by the called one, {proxies} between the proxies; "
        )?;
        write!(f, "{} resumed; failures: {:?}", self.resumed, self.failures)
    }
}
