//! One accepted connection in service: what it may do, and where its requests go.

use std::sync::Arc;

use palisade_authz::reason;
use palisade_policies::{AppProtocol, MtlsMode};

use crate::core::Core;
use crate::endpoint::Endpoint;
use crate::leg::Leg;
use crate::live::{CUT, DRAIN, Open};
use crate::metrics::Direction;
use crate::outbound::OutboundPort;
use crate::party::Party;
use crate::sniff::{self, Spoken};
use crate::{h1, h2, tcp};

/// Where the requests of a connection go.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// The one application.
    App(Arc<Endpoint>),
    /// A service of other workloads.
    Service(Arc<OutboundPort>),
}

/// A connection in service.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) core: Arc<Core>,
    pub(crate) open: Arc<Open>,
    pub(crate) target: Target,
    /// What the port speaks.
    pub(crate) protocol: AppProtocol,
    /// Who calls; none for the application's own calls, on which nothing is decided here.
    pub(crate) party: Option<Arc<Party>>,
}

impl Session {
    pub(crate) fn direction(&self) -> Direction {
        match self.target {
            Target::App(_) => Direction::Inbound,
            Target::Service(_) => Direction::Outbound,
        }
    }

    /// The endpoint for the next request; none when the service has none. `avoid` just failed.
    pub(crate) fn endpoint(&self, avoid: Option<&Arc<Endpoint>>) -> Option<Arc<Endpoint>> {
        match &self.target {
            Target::App(endpoint) => Some(endpoint.clone()),
            Target::Service(port) => port.pick(&self.core, avoid),
        }
    }

    /// Carries the connection to its end as what it speaks.
    pub(crate) async fn carry(&self, leg: Leg, spoken: Spoken) {
        match spoken {
            Spoken::Http1 => Box::pin(h1::serve::serve(self, leg)).await,
            Spoken::Http2 => Box::pin(h2::serve(self, leg)).await,
            Spoken::Silent if self.protocol != AppProtocol::Detect => self.core.metrics.refused("silent"),
            Spoken::Other | Spoken::Silent => Box::pin(self.carry_bytes(leg)).await,
            Spoken::Closed => {}
        }
    }

    async fn carry_bytes(&self, leg: Leg) {
        let Some(mut late) = Box::pin(tcp::serve(self, leg)).await else { return };
        match sniff::http_version(&mut late, &self.open.signal, self.core.limits.header_timeout).await {
            Spoken::Http2 => Box::pin(h2::serve(self, late)).await,
            Spoken::Http1 => Box::pin(h1::serve::serve(self, late)).await,
            Spoken::Other | Spoken::Silent | Spoken::Closed => {}
        }
    }

    /// The connection should end after what is under way.
    pub(crate) fn is_ending(&self) -> bool {
        self.open.signal.flags() & (DRAIN | CUT) != 0 || self.core.is_draining()
    }

    /// After the connection was cut from outside: when STRICT did it, the record says so.
    pub(crate) fn record_strict_cut(&self) {
        let Some(party) = self.party.as_ref().filter(|party| party.is_plaintext()) else { return };
        let strict = self.core.snapshot.load().as_ref().is_some_and(|now| now.mode(party.port) == MtlsMode::Strict);
        if strict && self.open.signal.flags() & CUT != 0 && !self.core.is_draining() {
            self.core.metrics.policy_cuts.inc();
            party.refuse(&self.core, reason::POLICY_CHANGED);
        }
    }
}
