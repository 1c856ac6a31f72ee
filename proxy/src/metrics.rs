//! The proxy's figures. Handles are resolved once; a request costs two additions, and no label comes from a peer.

mod helpers;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub(crate) use self::helpers::Helpers;

/// Which way traffic goes, seen from the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// Allowed, and forwarded (or failed upstream).
    Allow,
    /// Denied by policy.
    Deny,
    /// Refused before a decision: malformed, too large, no snapshot.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    direction: &'static str,
    verdict: &'static str,
    response_class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    security: &'static str,
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

const OUTCOMES: [&str; 3] = ["allow", "deny", "refused"];
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Debug)]
struct PerDirection {
    requests: [[Counter; CLASSES.len()]; OUTCOMES.len()],
    mtls: Counter,
    plaintext: Counter,
    open: Gauge,
    received: Counter,
    sent: Counter,
}

/// All metrics of a proxy.
#[derive(Debug)]
pub(crate) struct Metrics {
    inbound: PerDirection,
    outbound: PerDirection,
    /// Open connections and streams ended because the newest policy denies them.
    pub(crate) policy_cuts: Counter,
    refused: Family<ReasonLabels, Counter>,
    upstream_failures: Family<ReasonLabels, Counter>,
    accept_pauses: Counter,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Metrics {
        let requests = Family::<RequestLabels, Counter>::default();
        let connections = Family::<ConnectionLabels, Counter>::default();
        let open = Family::<DirectionLabels, Gauge>::default();
        let received = Family::<DirectionLabels, Counter>::default();
        let sent = Family::<DirectionLabels, Counter>::default();
        let per = |direction: &'static str| PerDirection {
            requests: OUTCOMES.map(|verdict| {
                CLASSES.map(|response_class| {
                    requests.get_or_create_owned(&RequestLabels { direction, verdict, response_class })
                })
            }),
            mtls: connections.get_or_create_owned(&ConnectionLabels { security: "mtls", direction }),
            plaintext: connections.get_or_create_owned(&ConnectionLabels { security: "plaintext", direction }),
            open: open.get_or_create_owned(&DirectionLabels { direction }),
            received: received.get_or_create_owned(&DirectionLabels { direction }),
            sent: sent.get_or_create_owned(&DirectionLabels { direction }),
        };
        let metrics = Metrics {
            inbound: per("inbound"),
            outbound: per("outbound"),
            policy_cuts: Counter::default(),
            refused: Family::default(),
            upstream_failures: Family::default(),
            accept_pauses: Counter::default(),
        };
        registry.register("palisade_proxy_requests", "HTTP requests by verdict and class of response", requests);
        registry.register("palisade_mtls_connections", "Accepted connections by security", connections);
        registry.register("palisade_proxy_open_connections", "Open connections from callers", open);
        registry.register("palisade_proxy_tcp_received_bytes", "Bytes from callers over opaque connections", received);
        registry.register("palisade_proxy_tcp_sent_bytes", "Bytes to callers over opaque connections", sent);
        metrics.register_rest(registry);
        metrics
    }

    fn register_rest(&self, registry: &mut Registry) {
        registry.register(
            "palisade_proxy_policy_cuts",
            "Open connections and streams ended because the newest policy denies them",
            self.policy_cuts.clone(),
        );
        registry.register(
            "palisade_proxy_connections_refused",
            "Connections refused before any request, by reason",
            self.refused.clone(),
        );
        registry.register(
            "palisade_proxy_upstream_failures",
            "Requests and connections that failed towards the application or another proxy, by reason",
            self.upstream_failures.clone(),
        );
        registry.register(
            "palisade_proxy_accept_pauses",
            "Times that accepting paused for want of file descriptors or over the connection limit",
            self.accept_pauses.clone(),
        );
    }

    fn of(&self, direction: Direction) -> &PerDirection {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// Counts one request; status 0 where the caller saw none.
    pub(crate) fn request(&self, direction: Direction, outcome: Outcome, status: u16) {
        let class = usize::from(status / 100).min(CLASSES.len() - 1);
        if let Some(counter) = self.of(direction).requests.get(outcome as usize).and_then(|row| row.get(class)) {
            counter.inc();
        }
    }

    /// Counts an accepted connection.
    pub(crate) fn connection(&self, direction: Direction, plaintext: bool) {
        let per = self.of(direction);
        if plaintext { &per.plaintext } else { &per.mtls }.inc();
    }

    /// The number of open connections of that direction.
    pub(crate) fn open(&self, direction: Direction) -> &Gauge {
        &self.of(direction).open
    }

    /// Counts the bytes of an opaque connection.
    pub(crate) fn carried(&self, direction: Direction, carried: crate::tunnel::Carried) {
        let per = self.of(direction);
        per.received.inc_by(carried.received);
        per.sent.inc_by(carried.sent);
    }

    /// Counts a connection refused before any request.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a failure towards an upstream.
    pub(crate) fn upstream_failure(&self, reason: &'static str) {
        self.upstream_failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a pause of an accept loop.
    pub(crate) fn accept_paused(&self) {
        self.accept_pauses.inc();
    }
}
