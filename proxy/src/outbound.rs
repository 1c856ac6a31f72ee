//! Outbound ports: which workload serves the service, over mTLS if it is in the mesh, and what is spoken to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use bytes::BytesMut;
use palisade_policies::AppProtocol;
use tokio::net::TcpStream;

use crate::config::OutboundConfig;
use crate::core::Core;
use crate::endpoint::{Endpoint, EndpointKey};
use crate::leg::Leg;
use crate::live::Entry;
use crate::metrics::Direction;
use crate::session::{Session, Target};
use crate::sniff::{self, Spoken};
use crate::stream::Stream;

/// An outbound port in service.
#[derive(Debug)]
pub(crate) struct OutboundPort {
    host: String,
    port: u16,
    route: ArcSwapOption<Route>,
    turn: AtomicUsize,
}

/// The service as one snapshot knows it.
#[derive(Debug)]
struct Route {
    revision: Arc<str>,
    protocol: AppProtocol,
    /// Each as often as its weight says, at least once.
    endpoints: Vec<Arc<Endpoint>>,
}

/// Weights are spread over at most this many slots.
const SLOTS: usize = 1024;

impl OutboundPort {
    pub(crate) fn new(config: &OutboundConfig) -> OutboundPort {
        OutboundPort {
            host: config.host.clone(),
            port: config.port,
            route: ArcSwapOption::empty(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The route of the newest snapshot; looked up once a snapshot.
    fn route(&self, core: &Core) -> Option<Arc<Route>> {
        let snapshot = core.snapshot.load();
        let snapshot = snapshot.as_ref()?;
        if let Some(route) = self.route.load().as_ref().filter(|route| Arc::ptr_eq(&route.revision, &snapshot.revision))
        {
            return Some(route.clone());
        }
        let found = snapshot.registry().service(&self.host, self.port);
        let protocol = found.as_ref().map_or(AppProtocol::Detect, |service| service.protocol);
        let weighted = found.iter().flat_map(|service| service.endpoints.iter()).map(|one| {
            let key = EndpointKey { address: one.address, identity: one.identity.clone() };
            (core.endpoints.get(key), one.weight.max(1) as usize)
        });
        let route = Route { revision: snapshot.revision.clone(), protocol, endpoints: spread(weighted.collect()) };
        let route = Arc::new(route);
        self.route.store(Some(route.clone()));
        Some(route)
    }

    /// The less busy of two neighbours in turn (the power of two choices). `avoid` is taken only if there is no other.
    pub(crate) fn pick(&self, core: &Core, avoid: Option<&Arc<Endpoint>>) -> Option<Arc<Endpoint>> {
        let route = self.route(core)?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let at = |offset: usize| route.endpoints.get(turn.wrapping_add(offset) % route.endpoints.len().max(1));
        if let Some(avoid) = avoid {
            let other = (0..route.endpoints.len()).filter_map(at).find(|one| !Arc::ptr_eq(one, avoid));
            return other.or(at(0)).cloned();
        }
        let (first, second) = (at(0)?, at(1)?);
        Some(if second.in_flight() < first.in_flight() { second.clone() } else { first.clone() })
    }
}

/// Spreads weights over slots, round by round, so that neighbours differ.
fn spread(weighted: Vec<(Arc<Endpoint>, usize)>) -> Vec<Arc<Endpoint>> {
    let least = weighted.iter().map(|(_, weight)| *weight).min().unwrap_or(1);
    let most = weighted.iter().map(|(_, weight)| weight.div_ceil(least)).max().unwrap_or(0);
    let mut slots = Vec::new();
    for round in 0..most.min(SLOTS) {
        for (endpoint, weight) in &weighted {
            if round < weight.div_ceil(least) && slots.len() < SLOTS.max(weighted.len()) {
                slots.push(endpoint.clone());
            }
        }
    }
    slots
}

/// Serves one of the application's own connections to its end.
pub(crate) async fn serve(core: Arc<Core>, port: Arc<OutboundPort>, tcp: TcpStream, _from: SocketAddr) {
    let Some(route) = port.route(&core) else {
        core.metrics.refused("no-snapshot");
        return Stream::Plain(tcp).reset();
    };
    core.metrics.connection(Direction::Outbound, route.endpoints.iter().all(|one| one.key.identity.is_none()));
    let protocol = route.protocol;
    drop(route);
    let open = Arc::new(core.live.open(Arc::new(Entry::new(None, false, u64::MAX))));
    let session = Session { core, open, target: Target::Service(port), protocol, party: None };
    let mut leg = Leg::new(Stream::Plain(tcp), BytesMut::new());
    let limits = &session.core.limits;
    let spoken = match protocol {
        AppProtocol::Tcp => Spoken::Other,
        AppProtocol::Detect => sniff::spoken(&mut leg, &session.open.signal, limits.detect_timeout).await,
        _ => sniff::http_version(&mut leg, &session.open.signal, limits.idle_timeout).await,
    };
    session.carry(leg, spoken).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_become_slots() {
        let endpoint = |port| {
            Arc::new(Endpoint::new(EndpointKey { address: SocketAddr::from(([127, 0, 0, 1], port)), identity: None }))
        };
        let ports = |weighted: &[(u16, usize)]| {
            let weighted = weighted.iter().map(|(port, weight)| (endpoint(*port), *weight)).collect();
            spread(weighted).iter().map(|one| one.key.address.port()).collect::<Vec<_>>()
        };
        assert_eq!(ports(&[(1, 1), (2, 1)]), [1, 2]);
        assert_eq!(ports(&[(1, 10), (2, 30)]), [1, 2, 2, 2]);
        assert!(ports(&[]).is_empty());
        assert_eq!(ports(&[(1, 1), (2, 1_000_000)]).len(), SLOTS);
    }
}
