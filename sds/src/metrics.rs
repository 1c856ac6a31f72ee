//! The agent's metrics. Names are fixed here and nowhere else.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::agent::IdentityState;

/// One gauge a state; the present one's is 1.
type States = Family<[(&'static str, &'static str); 1], Gauge>;
type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// Handles of the agent's metrics; clones count into the same numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    renewals: Labelled,
    identity: States,
    pub(crate) not_after: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) pushes: Counter,
    pub(crate) nacks: Counter,
    workload_requests: Labelled,
}

/// How one attempt to get a certificate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A new certificate was installed.
    Renewed,
    /// The authority said no.
    Refused,
    /// The authority could not be reached, or could not issue now.
    Unavailable,
    /// Its answer did not pass validation.
    Invalid,
    /// There was nothing to ask with: no token, no certificate, an unreadable file.
    NoCredential,
    /// No root of the agent vouches for whoever answers under the server's name.
    Unrecognised,
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Renewed => "renewed",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
            Self::NoCredential => "no_credential",
            Self::Unrecognised => "unrecognised",
        }
    }
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "palisade_agent_renewals",
            "Attempts to get a certificate, by outcome",
            metrics.renewals.clone(),
        );
        registry.register(
            "palisade_agent_identity",
            "1 for the state of the agent's own identity, 0 for the others",
            metrics.identity.clone(),
        );
        registry.register(
            "palisade_cert_not_after_seconds",
            "End of the current certificate in Unix seconds; 0 while there is none",
            metrics.not_after.clone(),
        );
        registry.register("palisade_sds_streams", "Open SDS streams", metrics.streams.clone());
        registry.register("palisade_sds_pushes", "SDS responses sent", metrics.pushes.clone());
        registry.register("palisade_sds_nacks", "SDS responses that the client rejected", metrics.nacks.clone());
        registry.register(
            "palisade_workload_api_requests",
            "Workload API calls, by the gRPC code of their first answer",
            metrics.workload_requests.clone(),
        );
        metrics
    }

    pub(crate) fn renewal(&self, outcome: Outcome) {
        self.renewals.get_or_create(&[("outcome", outcome.label())]).inc();
    }

    /// The agent's own identity is in the state of that name.
    pub(crate) fn identity(&self, present: &'static str) {
        for label in IdentityState::LABELS {
            self.identity.get_or_create(&[("state", label)]).set(i64::from(label == present));
        }
    }

    pub(crate) fn workload_request(&self, code: tonic::Code) {
        self.workload_requests.get_or_create(&[("code", code_name(code))]).inc();
    }

    /// Counts one SDS stream until the guard is dropped.
    pub(crate) fn stream(&self) -> StreamGuard {
        self.streams.inc();
        StreamGuard(self.streams.clone())
    }
}

/// One open stream.
#[derive(Debug)]
pub(crate) struct StreamGuard(Gauge);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// gRPC's own names, as dashboards know them.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.renewal(Outcome::NoCredential);
        metrics.workload_request(tonic::Code::PermissionDenied);
        metrics.identity("revoked");
        metrics.not_after.set(7);
        let guard = metrics.stream();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "palisade_agent_renewals_total{outcome=\"no_credential\"} 1",
            "palisade_agent_identity{state=\"usable\"} 0",
            "palisade_agent_identity{state=\"revoked\"} 1",
            "palisade_cert_not_after_seconds 7",
            "palisade_sds_streams 1",
            "palisade_sds_pushes_total 0",
            "palisade_sds_nacks_total 0",
            "palisade_workload_api_requests_total{code=\"PERMISSION_DENIED\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
        drop(guard);
        assert_eq!(metrics.streams.get(), 0);
    }
}
