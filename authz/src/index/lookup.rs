//! One attribute of the request, looked up once for all predicates that ask about it.

use std::net::IpAddr;

use serde_json::Value;

use crate::index::nets::Nets;
use crate::index::peers::{self, Accounts, Domains, Namespaces};
use crate::index::templates::Templates;
use crate::index::texts::{Gather, ROOM, Shown, Texts, fits, lowered};
use crate::index::tokens::Tokens;
use crate::predicate::{ClaimPath, HeaderKey, L4Identity, MetadataKey, PeerTest, Predicate, Predicates, Slot, Text};
use crate::request::{HttpRequest, Request};

/// All predicates about one attribute, in the form in which they are found.
#[derive(Debug)]
pub(super) enum Lookup {
    SourceIp(Nets),
    RemoteIp(Nets),
    DestinationIp(Nets),
    /// Ascending.
    DestinationPort(Vec<(u16, u32)>),
    Sni(Texts),
    Principal(Texts),
    Namespace(Namespaces),
    ServiceAccount(Accounts),
    TrustDomain(Domains),
    L4Principal(Texts),
    L4Namespace(Texts),
    L4ServiceAccount(Accounts),
    Method(Texts),
    Host(Texts),
    Path(Texts, Templates),
    Header(HeaderKey, Texts),
    Claim(ClaimPath, Texts),
    RequestPrincipal(Tokens),
    /// Of strings, and of elements of lists.
    Metadata(MetadataKey, Texts, Texts),
}

/// Whether a predicate is found by its look-up. The others have to be tested themselves.
pub(crate) fn takes(predicate: &Predicate) -> bool {
    match predicate {
        Predicate::Host(text) | Predicate::Sni(text) | Predicate::Header(HeaderKey::Joined(_), text) => fits(text),
        Predicate::PathTemplate(template) => Templates::takes(template),
        Predicate::Peer(test @ PeerTest::Namespace(_)) => Namespaces::takes(test),
        Predicate::Peer(test @ (PeerTest::ServiceAccount { .. } | PeerTest::L4ServiceAccount { .. })) => {
            Accounts::takes(test)
        }
        _ => true,
    }
}

impl Lookup {
    /// Of the predicates with these numbers, which all are about `slot`.
    pub(super) fn new(slot: &Slot, numbers: &[u32], predicates: &Predicates) -> Self {
        let known = || numbers.iter().filter_map(|id| predicates.get(*id).map(|predicate| (predicate, *id)));
        let taken = || known().filter(|(predicate, _)| takes(predicate));
        let texts = || Texts::new(taken().filter_map(|(predicate, id)| Some((text(predicate)?, id))));
        let nets = || Nets::new(taken().filter_map(|(predicate, id)| Some((net(predicate)?, id))));
        let peers = || taken().filter_map(|(predicate, id)| Some((peer(predicate)?, id)));
        let lists = |list| {
            let chosen = taken().filter(move |(predicate, _)| is_list(predicate) == list);
            Texts::new(chosen.filter_map(|(predicate, id)| Some((text(predicate)?, id))))
        };
        match slot {
            Slot::SourceIp => Self::SourceIp(nets()),
            Slot::RemoteIp => Self::RemoteIp(nets()),
            Slot::DestinationIp => Self::DestinationIp(nets()),
            Slot::DestinationPort => Self::DestinationPort(ports(taken())),
            Slot::Sni => Self::Sni(texts()),
            Slot::Principal => Self::Principal(peers::texts(peers())),
            Slot::Namespace => Self::Namespace(Namespaces::new(peers())),
            Slot::ServiceAccount => Self::ServiceAccount(Accounts::new(peers())),
            Slot::TrustDomain => Self::TrustDomain(Domains::new(peers())),
            Slot::L4Principal => Self::L4Principal(peers::texts(peers())),
            Slot::L4Namespace => Self::L4Namespace(peers::texts(peers())),
            Slot::L4ServiceAccount => Self::L4ServiceAccount(Accounts::new(peers())),
            Slot::Method => Self::Method(texts()),
            Slot::Host => Self::Host(texts()),
            Slot::Path => Self::Path(texts(), Templates::new(taken().filter_map(template))),
            Slot::Header(key) => Self::Header(key.clone(), texts()),
            Slot::Claim(path) => Self::Claim(path.clone(), texts()),
            Slot::RequestPrincipal => Self::RequestPrincipal(Tokens::new(taken().filter_map(token))),
            Slot::Metadata(key) => Self::Metadata(key.clone(), lists(false), lists(true)),
        }
    }

    /// Calls `found` with exactly those predicates of this look-up that hold; with some perhaps more than once.
    pub(super) fn find(&self, request: &Request<'_>, predicates: &Predicates, found: &mut dyn FnMut(u32)) {
        let http = request.http.as_ref();
        match self {
            Self::SourceIp(nets) => in_nets(nets, request.source.ip, found),
            Self::RemoteIp(nets) => in_nets(nets, request.source.remote_ip, found),
            Self::DestinationIp(nets) => in_nets(nets, request.destination.ip, found),
            Self::DestinationPort(ports) => port(ports, request.destination.port, found),
            Self::Sni(texts) => in_lower_case(texts, request.sni, found),
            Self::Method(texts) => in_texts(texts, http.and_then(|http| http.method), found),
            Self::Host(texts) => in_lower_case(texts, http.and_then(|http| http.host), found),
            Self::Path(texts, templates) => {
                if let Some(path) = http.and_then(|http| http.path) {
                    texts.find(path.as_bytes(), found);
                    templates.find(path, found);
                }
            }
            Self::Header(key, texts) => {
                if let Some(http) = http {
                    header(key, texts, http, found);
                }
            }
            Self::Claim(path, texts) => {
                if let Some(claims) = request.claims {
                    path.each(claims, &mut |value| texts.find(value.as_bytes(), found));
                }
            }
            Self::RequestPrincipal(tokens) => {
                let mut confirmed = confirm(request, predicates, found);
                request.claims.into_iter().for_each(|claims| tokens.find(claims, &mut confirmed));
            }
            Self::Metadata(key, strings, lists) => {
                if let Some(value) = request.metadata.and_then(|metadata| key.get(metadata)) {
                    metadata(strings, lists, value, found);
                }
            }
            _ => self.peer(request, predicates, found),
        }
    }

    /// Calls `found` with the predicates that hold for one instance of a header that is matched by instances.
    pub(super) fn find_instance(&self, value: &[u8], found: &mut dyn FnMut(u32)) {
        if let Self::Header(HeaderKey::Single(_), texts) = self {
            texts.find(value, found);
        }
    }

    fn peer(&self, request: &Request<'_>, predicates: &Predicates, found: &mut dyn FnMut(u32)) {
        let Some(peer) = request.source.principal else {
            return;
        };
        match self {
            // A line feed ends what an expression sees; no valid identity has one.
            Self::Principal(texts) if texts.only_begin() || !peer.contains('\n') => {
                texts.find(peer.as_bytes(), found);
                if peer.is_empty() {
                    texts.lines().iter().for_each(|id| found(*id));
                }
            }
            Self::Principal(texts) => {
                let mut confirmed = confirm(request, predicates, found);
                texts.find(peer.as_bytes(), &mut confirmed);
            }
            Self::Namespace(namespaces) => namespaces.find(peer, &mut confirm(request, predicates, found)),
            Self::ServiceAccount(accounts) => accounts.find(peer, &mut confirm(request, predicates, found)),
            Self::TrustDomain(domains) => domains.find(peer, &mut confirm(request, predicates, found)),
            Self::L4Principal(texts) if L4Identity::parse(peer).is_some() => texts.find(peer.as_bytes(), found),
            Self::L4Namespace(texts) => {
                let namespace = L4Identity::parse(peer).map(|identity| identity.namespace);
                in_texts(texts, namespace, found);
            }
            Self::L4ServiceAccount(accounts) => accounts.find_exactly(peer, found),
            _ => {}
        }
    }
}

/// Lets pass what holds indeed.
fn confirm<'a>(
    request: &'a Request<'_>,
    predicates: &'a Predicates,
    found: &'a mut dyn FnMut(u32),
) -> impl FnMut(u32) + 'a {
    move |id| {
        if predicates.get(id).is_some_and(|predicate| predicate.holds(request)) {
            found(id);
        }
    }
}

fn in_nets(nets: &Nets, ip: Option<IpAddr>, found: &mut dyn FnMut(u32)) {
    if let Some(ip) = ip {
        nets.find(ip, found);
    }
}

fn in_texts(texts: &Texts, value: Option<&str>, found: &mut dyn FnMut(u32)) {
    if let Some(value) = value {
        texts.find(value.as_bytes(), found);
    }
}

fn in_lower_case(texts: &Texts, value: Option<&str>, found: &mut dyn FnMut(u32)) {
    if let Some(value) = value {
        texts.presence(value.as_bytes(), found);
        lowered(value.as_bytes(), |shown| texts.find_in(shown, found));
    }
}

fn port(ports: &[(u16, u32)], wanted: Option<u16>, found: &mut dyn FnMut(u32)) {
    let at = wanted.and_then(|wanted| ports.binary_search_by_key(&wanted, |(port, _)| *port).ok());
    if let Some((_, id)) = at.and_then(|at| ports.get(at)) {
        found(*id);
    }
}

fn header(key: &HeaderKey, texts: &Texts, http: &HttpRequest<'_>, found: &mut dyn FnMut(u32)) {
    match key {
        HeaderKey::Method => in_texts(texts, http.method, found),
        HeaderKey::Authority => in_texts(texts, http.host, found),
        HeaderKey::Target => in_texts(texts, http.raw_target, found),
        HeaderKey::Scheme => in_texts(texts, http.scheme, found),
        HeaderKey::Single(name) => http.headers.for_each(name, &mut |value| texts.find(value, found)),
        HeaderKey::Joined(name) => joined(name, texts, http, found),
    }
}

/// Envoy joins the instances with commas, and leaves out empty ones.
fn joined(name: &str, texts: &Texts, http: &HttpRequest<'_>, found: &mut dyn FnMut(u32)) {
    let gather = |skip| {
        let (mut whole, mut present) = (Gather::behind(skip), false);
        http.headers.for_each(name, &mut |value| {
            present = true;
            if !value.is_empty() {
                if whole.length > 0 {
                    whole.push(b",");
                }
                whole.push(value);
            }
        });
        (whole, present)
    };
    let (head, present) = gather(0);
    if !present {
        return;
    }
    texts.presence(head.bytes(), found);
    let length = head.length;
    if length <= ROOM {
        texts.find_in(&Shown { head: head.bytes(), tail: head.bytes(), length }, found);
    } else {
        let (tail, _) = gather(length - ROOM);
        texts.find_in(&Shown { head: head.bytes(), tail: tail.bytes(), length }, found);
    }
}

fn metadata(strings: &Texts, lists: &Texts, value: &Value, found: &mut dyn FnMut(u32)) {
    match value {
        Value::String(string) => strings.find(string.as_bytes(), found),
        Value::Array(items) => {
            items.iter().filter_map(Value::as_str).for_each(|item| lists.find(item.as_bytes(), found));
        }
        _ => {}
    }
}

fn text(predicate: &Predicate) -> Option<&Text> {
    match predicate {
        Predicate::Sni(text)
        | Predicate::Method(text)
        | Predicate::Host(text)
        | Predicate::Path(text)
        | Predicate::Header(_, text)
        | Predicate::Claim(_, text)
        | Predicate::Metadata(_, text) => Some(text),
        _ => None,
    }
}

const fn is_list(predicate: &Predicate) -> bool {
    matches!(predicate, Predicate::Metadata(key, _) if key.is_list())
}

const fn net(predicate: &Predicate) -> Option<ipnet::IpNet> {
    match predicate {
        Predicate::SourceIp(net) | Predicate::RemoteIp(net) | Predicate::DestinationIp(net) => Some(*net),
        _ => None,
    }
}

const fn peer(predicate: &Predicate) -> Option<&PeerTest> {
    match predicate {
        Predicate::Peer(test) => Some(test),
        _ => None,
    }
}

fn template((predicate, id): (&Predicate, u32)) -> Option<(&crate::predicate::Template, u32)> {
    match predicate {
        Predicate::PathTemplate(template) => Some((template, id)),
        _ => None,
    }
}

fn token((predicate, id): (&Predicate, u32)) -> Option<((&Text, &Text), u32)> {
    match predicate {
        Predicate::RequestPrincipal { issuer, subject } => Some(((issuer, subject), id)),
        _ => None,
    }
}

fn ports<'a>(items: impl Iterator<Item = (&'a Predicate, u32)>) -> Vec<(u16, u32)> {
    let port = |(predicate, id): (&Predicate, u32)| match predicate {
        Predicate::DestinationPort(port) => Some((*port, id)),
        _ => None,
    };
    let mut ports: Vec<_> = items.filter_map(port).collect();
    ports.sort_unstable();
    ports
}
