//! A workload, the connections to it, and their requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use palisade_identity::TrustDomain;
use palisade_policies::{ExtensionProvider, MeshConfig, PathNormalization};
use serde_json::Value;

use super::aim::{Draft, aim};
use super::authn::{self, Keys};
use super::world::World;
use super::{policy, request, text};
use crate::conformance::dice::Dice;
use crate::conformance::oracle::Question;
use crate::conformance::scene::{Ask, Call, Door, Place, Reserved, Scene, Tls};
use crate::conformance::translate::{Chain, Identity};

/// How much of everything there is.
#[derive(Debug, Clone, Copy)]
pub(in crate::conformance) struct Sizes {
    /// Requests to one workload over HTTP; connections without it are a third as many.
    pub(in crate::conformance) requests: usize,
    /// Whether this machine has IPv6 on loopback.
    pub(in crate::conformance) v6: bool,
}

/// What scenes of one run share.
#[derive(Debug)]
pub(in crate::conformance) struct Shared {
    pub(in crate::conformance) keys: Keys,
    pub(in crate::conformance) providers: Vec<ExtensionProvider>,
    pub(in crate::conformance) sizes: Sizes,
}

/// A workload and what is asked of it.
///
/// # Errors
/// When no address is left.
pub(in crate::conformance) fn question(dice: &mut Dice, shared: &Shared) -> Result<Question> {
    let v6 = shared.sizes.v6 && dice.chance(15);
    let rules = rules(dice);
    let mut world = World::new(dice, v6, rules);
    let chain = if dice.chance(16) { Chain::Tcp } else { Chain::Http };
    let door = door(dice, &world, chain, v6)?;
    if let Place::At(reserved) = &door.place {
        world.ports.push(reserved.address.port());
        world.addresses.push(reserved.address.ip());
    }
    let custom = dice.chance(25);
    let authentications = match dice.below(10) {
        _ if chain == Chain::Tcp => Vec::new(),
        0..=2 => {
            // The query behind a token that was taken out is not the same on both sides.
            world.headers.retain(|name| name != ":path");
            authn::policies(dice, &world, &shared.keys)
        }
        3..=8 => vec![shared.keys.trusting()],
        _ => Vec::new(),
    };
    let trusted_hops = (chain == Chain::Http && dice.chance(10)).then(|| u32::try_from(dice.below(3)).unwrap_or(0));
    if trusted_hops.is_some() {
        // A gateway writes them itself.
        world.headers.retain(|name| !name.starts_with("x-forwarded-"));
    }
    let policies = policy::policies(dice, &world, rules, custom);
    let scene =
        Scene { chain, mesh: mesh(dice, &world, &shared.providers), policies, authentications, door, trusted_hops };
    let calls = calls(dice, &world, &scene, shared);
    Ok(Question { scene, calls })
}

/// How many rules a workload has. Up to sixteen the engine tries them one by one, beyond it has an index, and from five
/// hundred and twelve on that has more than one block.
fn rules(dice: &mut Dice) -> usize {
    match dice.below(200) {
        0..=5 => 0,
        6..=89 => dice.between(1, 4),
        90..=134 => dice.between(3, 16),
        135..=189 => dice.between(17, 60),
        190..=197 => dice.between(100, 400),
        _ => dice.between(520, 1100),
    }
}

fn door(dice: &mut Dice, world: &World, chain: Chain, v6: bool) -> Result<Door> {
    let proxied = dice.chance(65);
    let place = if proxied {
        Place::Proxied { v6 }
    } else {
        let ip =
            if v6 { dice.pick(&world.callers).to_owned() } else { IpAddr::from([127, 0, 0, *dice.pick(&[1, 2, 9])]) };
        Place::At(Arc::new(Reserved::on(ip)?))
    };
    let tls = match dice.below(100) {
        0..=14 => Tls::Ended,
        15..=49 if chain == Chain::Tcp => Tls::Passed,
        _ => Tls::Plain,
    };
    // Only the certificate of a connection, a header or a field of the PROXY protocol can carry an identity.
    let identity = match (tls, chain) {
        (Tls::Ended, _) if dice.chance(80) => Identity::Certificate,
        (Tls::Plain, _) if dice.chance(8) => Identity::Certificate,
        _ => Identity::FilterState,
    };
    Ok(Door { place, tls, identity })
}

fn mesh(dice: &mut Dice, world: &World, providers: &[ExtensionProvider]) -> MeshConfig {
    let domain = if dice.chance(50) { "cluster.local" } else { dice.pick(&world.trust_domains).as_str() };
    let aliases = {
        let count = *dice.pick(&[0, 0, 1, 1, 2]);
        dice.some(&world.trust_domains, count)
    };
    let aliases = aliases.into_iter().map(|alias| match dice.below(6) {
        0 => format!("*{}", alias.get(1..).unwrap_or_default()),
        1 => format!("{}*", alias.get(..2).unwrap_or_default()),
        _ => alias,
    });
    MeshConfig {
        trust_domain: TrustDomain::parse(domain).unwrap_or(MeshConfig::default().trust_domain),
        trust_domain_aliases: aliases.collect(),
        path_normalization: *dice.pick(&[
            PathNormalization::Base,
            PathNormalization::Base,
            PathNormalization::None,
            PathNormalization::MergeSlashes,
            PathNormalization::DecodeAndMergeSlashes,
        ]),
        extension_providers: providers.to_vec(),
        ..MeshConfig::default()
    }
}

fn calls(dice: &mut Dice, world: &World, scene: &Scene, shared: &Shared) -> Vec<Call> {
    let total = shared.sizes.requests;
    if scene.chain == Chain::Tcp {
        return (0..total.div_ceil(3)).map(|_| call(dice, world, scene, shared, 0)).collect();
    }
    let connections = 4.min(total).max(1);
    let share = total / connections;
    let count = |index: usize| if index == 0 { total - share * (connections - 1) } else { share };
    (0..connections).map(|index| call(dice, world, scene, shared, count(index))).collect()
}

fn call(dice: &mut Dice, world: &World, scene: &Scene, shared: &Shared, requests: usize) -> Call {
    let mut draft = aim(dice, world, &scene.policies);
    let source = draft.source.filter(|ip| can_call_from(*ip, scene)).unwrap_or_else(|| *dice.pick(&world.callers));
    let proxied = matches!(scene.door.place, Place::Proxied { .. });
    let certified = scene.door.tls == Tls::Ended && scene.door.identity == Identity::Certificate;
    // Nothing but these can say who a connection belongs to.
    let identified =
        certified || (proxied && scene.chain == Chain::Tcp && scene.door.identity == Identity::FilterState);
    let principal = draft.principal.take().or_else(|| dice.chance(60).then(|| world.principal(dice)));
    let sni = draft.sni.take().or_else(|| dice.chance(70).then(|| dice.pick(&world.servers).clone()));
    let call = Call {
        source,
        proxied: proxied.then(|| addresses(dice, world, &draft)),
        principal: principal.filter(|id| identified && request::is_plain(id)),
        sni: server_name(dice, scene.door.tls, sni),
        metadata: (proxied && scene.chain == Chain::Tcp && dice.chance(50)).then(|| {
            draft.metadata.clone().filter(Value::is_string).unwrap_or_else(|| dice.pick(&world.texts).clone().into())
        }),
        asks: Vec::new(),
    };
    let asks = if scene.chain == Chain::Tcp {
        vec![Ask::default()]
    } else {
        (0..requests).map(|_| ask(dice, world, scene, shared, &draft)).collect()
    };
    Call { asks, ..call }
}

fn ask(dice: &mut Dice, world: &World, scene: &Scene, shared: &Shared, shared_draft: &Draft) -> Ask {
    let draft = if dice.chance(45) { shared_draft.clone() } else { aim(dice, world, &scene.policies) };
    let keys = scene.trusts_claims().then_some(&shared.keys);
    let claims = draft.claims.clone();
    let mut ask = request::ask(dice, world, draft, keys, scene.door.identity == Identity::Certificate);
    if !scene.authentications.is_empty() && keys.is_none() {
        authn::carry(dice, world, &shared.keys, &scene.authentications, &claims, &mut ask);
    }
    ask
}

fn can_call_from(ip: IpAddr, scene: &Scene) -> bool {
    let v6 = match &scene.door.place {
        Place::Proxied { v6 } => *v6,
        Place::At(reserved) => reserved.address.is_ipv6(),
    };
    // All but the network and broadcast addresses of 127.0.0.0/8 are this machine.
    let usable = |ip: std::net::Ipv4Addr| ip.is_loopback() && !matches!(ip.octets(), [_, 0, 0, 0] | [_, 255, 255, 255]);
    match ip {
        IpAddr::V4(ip) => !v6 && usable(ip),
        IpAddr::V6(ip) => v6 && ip.is_loopback(),
    }
}

/// The client and the destination that the PROXY protocol names: of one family.
fn addresses(dice: &mut Dice, world: &World, draft: &Draft) -> (SocketAddr, SocketAddr) {
    // Envoy takes no other address from the PROXY protocol.
    let unicast = |ip: &IpAddr| {
        let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        !ip.is_unspecified() && !ip.is_multicast() && !broadcast
    };
    let destination = draft.destination.unwrap_or_else(|| *dice.pick(&world.addresses));
    let destination = Some(destination).filter(unicast).unwrap_or(IpAddr::from([10, 0, 0, 1]));
    let same = |ip: &IpAddr| ip.is_ipv4() == destination.is_ipv4() && unicast(ip);
    let others: Vec<IpAddr> = world.addresses.iter().copied().filter(same).collect();
    let client = draft.remote.filter(same).unwrap_or_else(|| others.first().copied().unwrap_or(destination));
    let port = draft.port.unwrap_or_else(|| *dice.pick(&world.ports));
    (SocketAddr::new(client, 4321), SocketAddr::new(destination, port))
}

/// A server name as this kind of TLS can send it.
fn server_name(dice: &mut Dice, tls: Tls, name: Option<String>) -> Option<String> {
    let name = name?;
    match tls {
        Tls::Plain => None,
        Tls::Ended => {
            let name = name.to_ascii_lowercase();
            let plain =
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte));
            // A last dot is never sent.
            let valid = plain && !name.ends_with('.') && rustls::pki_types::DnsName::try_from(name.as_str()).is_ok();
            valid.then_some(name)
        }
        Tls::Passed => {
            let name = if dice.chance(30) { text::near(dice, &name) } else { name };
            Some(name).filter(|name| !name.is_empty())
        }
    }
}
