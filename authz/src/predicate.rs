//! One test on one attribute, compiled from one value of a policy.
//!
//! Predicates are interned per set and know nothing of rules: that is what lets a set look an attribute up
//! once, however many rules ask for it. A missing attribute makes a predicate false (section 0, idea 2:
//! negation is built by the clause around it), an unknown one makes it [`Tri::Unknown`].

use std::net::IpAddr;

use ipnet::IpNet;

use crate::request::{Attribute, Known, Request};

mod claims;
mod header;
mod peer;
mod table;
mod template;
mod text;

pub(crate) use claims::{ClaimPath, MetadataKey};
pub(crate) use header::HeaderKey;
pub use header::is_joined_header;
pub(crate) use peer::{L4Identity, PeerTest};
pub(crate) use table::{Interner, Predicates};
pub(crate) use template::{Segment, Template, in_class};
pub(crate) use text::Text;

/// Kleene's three values; `and` is the minimum, `or` the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tri {
    No,
    Unknown,
    Yes,
}

impl Tri {
    pub(crate) const fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Tri {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

/// A test on one attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Predicate {
    SourceIp(IpNet),
    RemoteIp(IpNet),
    DestinationIp(IpNet),
    DestinationPort(u16),
    /// Envoy lower-cases what the client sent, never the policy.
    Sni(Text),
    Peer(PeerTest),
    Method(Text),
    /// Compared without regard to ASCII case.
    Host(Text),
    Path(Text),
    PathTemplate(Template),
    Header(HeaderKey, Text),
    Claim(ClaimPath, Text),
    RequestPrincipal {
        issuer: Text,
        subject: Text,
    },
    Metadata(MetadataKey, Text),
}

/// What is looked up once, however many predicates ask about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    SourceIp,
    RemoteIp,
    DestinationIp,
    DestinationPort,
    Sni,
    Principal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    L4Principal,
    L4Namespace,
    L4ServiceAccount,
    Method,
    Host,
    Path,
    Header(HeaderKey),
    Claim(ClaimPath),
    RequestPrincipal,
    /// Of strings and of lists alike.
    Metadata(MetadataKey),
}

impl Slot {
    /// The attribute that decides it.
    pub(crate) const fn attribute(&self) -> Attribute {
        match self {
            Self::SourceIp => Attribute::SourceIp,
            Self::RemoteIp => Attribute::RemoteIp,
            Self::DestinationIp => Attribute::DestinationIp,
            Self::DestinationPort => Attribute::DestinationPort,
            Self::Sni => Attribute::Sni,
            Self::Principal
            | Self::Namespace
            | Self::ServiceAccount
            | Self::TrustDomain
            | Self::L4Principal
            | Self::L4Namespace
            | Self::L4ServiceAccount => Attribute::SourcePrincipal,
            Self::Method => Attribute::Method,
            Self::Host => Attribute::Host,
            Self::Path => Attribute::Path,
            Self::Header(key) => key.attribute(),
            Self::Claim(_) | Self::RequestPrincipal => Attribute::Claims,
            Self::Metadata(_) => Attribute::Metadata,
        }
    }
}

impl Predicate {
    /// Where it is looked up.
    pub(crate) fn slot(&self) -> Slot {
        match self {
            Self::SourceIp(_) => Slot::SourceIp,
            Self::RemoteIp(_) => Slot::RemoteIp,
            Self::DestinationIp(_) => Slot::DestinationIp,
            Self::DestinationPort(_) => Slot::DestinationPort,
            Self::Sni(_) => Slot::Sni,
            Self::Peer(PeerTest::Principal(_)) => Slot::Principal,
            Self::Peer(PeerTest::Namespace(_)) => Slot::Namespace,
            Self::Peer(PeerTest::ServiceAccount { .. }) => Slot::ServiceAccount,
            Self::Peer(PeerTest::TrustDomain(_) | PeerTest::TrustDomainGlob(..)) => Slot::TrustDomain,
            Self::Peer(PeerTest::L4Principal(_)) => Slot::L4Principal,
            Self::Peer(PeerTest::L4Namespace(_)) => Slot::L4Namespace,
            Self::Peer(PeerTest::L4ServiceAccount { .. }) => Slot::L4ServiceAccount,
            Self::Method(_) => Slot::Method,
            Self::Host(_) => Slot::Host,
            Self::Path(_) | Self::PathTemplate(_) => Slot::Path,
            Self::Header(key, _) => Slot::Header(key.clone()),
            Self::Claim(path, _) => Slot::Claim(path.clone()),
            Self::RequestPrincipal { .. } => Slot::RequestPrincipal,
            Self::Metadata(key, _) => Slot::Metadata(key.place()),
        }
    }

    /// The attribute that decides it.
    pub(crate) fn attribute(&self) -> Attribute {
        match self {
            Self::SourceIp(_) => Attribute::SourceIp,
            Self::RemoteIp(_) => Attribute::RemoteIp,
            Self::DestinationIp(_) => Attribute::DestinationIp,
            Self::DestinationPort(_) => Attribute::DestinationPort,
            Self::Sni(_) => Attribute::Sni,
            Self::Peer(_) => Attribute::SourcePrincipal,
            Self::Method(_) => Attribute::Method,
            Self::Host(_) => Attribute::Host,
            Self::Path(_) | Self::PathTemplate(_) => Attribute::Path,
            Self::Header(key, _) => key.attribute(),
            Self::Claim(..) | Self::RequestPrincipal { .. } => Attribute::Claims,
            Self::Metadata(..) => Attribute::Metadata,
        }
    }

    pub(crate) fn test(&self, request: &Request<'_>, known: Known) -> Tri {
        if known.has(self.attribute()) { Tri::from(self.holds(request)) } else { Tri::Unknown }
    }

    pub(crate) fn holds(&self, request: &Request<'_>) -> bool {
        let http = request.http.as_ref();
        match self {
            Self::SourceIp(net) => contains(net, request.source.ip),
            Self::RemoteIp(net) => contains(net, request.source.remote_ip),
            Self::DestinationIp(net) => contains(net, request.destination.ip),
            Self::DestinationPort(port) => request.destination.port == Some(*port),
            Self::Sni(text) => request.sni.is_some_and(|sni| text.matches_lowered(sni)),
            Self::Peer(test) => request.source.principal.is_some_and(|peer| test.matches(peer)),
            Self::Method(text) => {
                http.and_then(|http| http.method).is_some_and(|method| text.matches(method.as_bytes()))
            }
            Self::Host(text) => http.and_then(|http| http.host).is_some_and(|host| text.matches_ignoring_case(host)),
            Self::Path(text) => http.and_then(|http| http.path).is_some_and(|path| text.matches(path.as_bytes())),
            Self::PathTemplate(template) => http.and_then(|http| http.path).is_some_and(|path| template.matches(path)),
            Self::Header(key, text) => http.is_some_and(|http| key.matches(text, http)),
            Self::Claim(path, text) => request.claims.is_some_and(|claims| path.matches(text, claims)),
            Self::RequestPrincipal { issuer, subject } => {
                request.claims.is_some_and(|claims| claims::principal_matches(issuer, subject, claims))
            }
            Self::Metadata(key, text) => request.metadata.is_some_and(|metadata| key.matches(text, metadata)),
        }
    }
}

/// No bridging of address families: `::/0` misses IPv4, `::ffff:0:0/96` misses it too.
fn contains(net: &IpNet, ip: Option<IpAddr>) -> bool {
    ip.is_some_and(|ip| net.contains(&ip))
}
