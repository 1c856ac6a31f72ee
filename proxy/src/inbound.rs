//! Inbound ports: what a new connection is, by PeerAuthentication and its first bytes, and who carries it from there.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use palisade_authz::reason;
use palisade_identity::VerifyError;
use palisade_policies::{AppProtocol, MtlsMode};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::certs::Alpn;
use crate::config::InboundConfig;
use crate::core::Core;
use crate::endpoint::{Endpoint, EndpointKey};
use crate::handshake::Hello;
use crate::leg::Leg;
use crate::live::{CUT, Entry};
use crate::metrics::Direction;
use crate::mode::{self, Carry};
use crate::party::Party;
use crate::session::{Session, Target};
use crate::sniff::{self, First, Spoken};
use crate::stream::Stream;

/// An inbound port in service.
#[derive(Debug)]
pub(crate) struct InboundPort {
    app: Arc<Endpoint>,
    /// The application's port.
    port: u16,
    protocol: Option<AppProtocol>,
}

/// A connection before it is known how it is carried.
struct Arrival {
    core: Arc<Core>,
    port: Arc<InboundPort>,
    protocol: AppProtocol,
    party: Party,
}

impl InboundPort {
    pub(crate) fn new(core: &Core, config: &InboundConfig) -> InboundPort {
        let key = EndpointKey { address: config.forward, identity: None };
        InboundPort { app: core.endpoints.get(key), port: config.forward.port(), protocol: config.protocol }
    }
}

/// A connection that was let in, and how it is carried.
struct Carried {
    session: Session,
    leg: Leg,
    carry: Carry,
    /// What TLS settled, where it was ours.
    alpn: Option<Alpn>,
}

/// Serves an accepted connection to its end.
pub(crate) async fn serve(core: Arc<Core>, port: Arc<InboundPort>, tcp: TcpStream, from: SocketAddr) {
    // What a handshake needs is given back before the connection is carried: idle connections stay small.
    if let Some(carried) = Box::pin(arrive(core, port, tcp, from)).await {
        carried.serve().await;
    }
}

/// Finds out what the connection is. None when it was refused (and recorded) or went away.
async fn arrive(core: Arc<Core>, port: Arc<InboundPort>, tcp: TcpStream, from: SocketAddr) -> Option<Carried> {
    let local = tcp.local_addr().ok()?;
    let snapshot = core.snapshot.load_full();
    // Without a snapshot a caller with a certificate is told so by HTTP; one without is not even heard.
    let mode = snapshot.as_ref().map_or(MtlsMode::Strict, |now| now.mode(port.port));
    let declared = port.protocol.or_else(|| snapshot.as_ref().and_then(|now| now.protocol(&[port.port, local.port()])));
    let protocol = declared.unwrap_or(AppProtocol::Detect);
    let party = Party::new(&core, from, local, port.port, None);
    let arrival = Arrival { core, port, protocol, party };
    let plain = mode::plaintext(mode, protocol);
    if mode == MtlsMode::Disable {
        return arrival.plaintext(tcp, plain);
    }
    let limits = &arrival.core.limits;
    let wait = match plain {
        Carry::Tcp | Carry::Detect => limits.detect_timeout,
        _ => limits.header_timeout.min(limits.handshake_timeout),
    };
    let first = arrival.core.closing.run_until_cancelled(sniff::first(&tcp, wait)).await;
    match first.unwrap_or(First::Closed) {
        First::Tls => return arrival.tls(tcp, mode, from, local).await,
        First::Closed => {}
        First::Silent if matches!(plain, Carry::Http | Carry::Refuse(_)) => arrival.core.metrics.refused("silent"),
        First::Silent | First::Other if snapshot.is_some() => return arrival.plaintext(tcp, plain),
        First::Silent | First::Other => {
            arrival.party.unverified(&arrival.core).refuse(&arrival.core, reason::NO_SNAPSHOT);
        }
    }
    None
}

impl Arrival {
    fn plaintext(self, tcp: TcpStream, carry: Carry) -> Option<Carried> {
        let party = self.party.unverified(&self.core);
        if let Carry::Refuse(why) = carry {
            party.refuse(&self.core, why);
            Stream::Plain(tcp).reset();
            return None;
        }
        self.core.metrics.connection(Direction::Inbound, true);
        let session = session(self.core, &self.port, self.protocol, party, u64::MAX);
        Some(Carried { session, leg: Leg::new(Stream::Plain(tcp), BytesMut::new()), carry, alpn: None })
    }

    async fn tls(mut self, tcp: TcpStream, mode: MtlsMode, from: SocketAddr, local: SocketAddr) -> Option<Carried> {
        let hello = match timeout(self.core.limits.handshake_timeout, Hello::read(tcp)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
            Ok(Err(_)) | Err(_) => {
                self.party.refuse(&self.core, reason::HANDSHAKE_FAILED);
                return None;
            }
        };
        self.party = Party::new(&self.core, from, local, self.port.port, hello.sni.clone());
        match mode::tls(mode, self.protocol, hello.alpn) {
            Carry::Refuse(why) => {
                self.party.refuse(&self.core, why);
                None
            }
            Carry::PassThrough => {
                let (tcp, raw) = hello.untouched();
                let mut carried = self.plaintext(tcp, Carry::Tcp)?;
                carried.leg.rbuf = raw;
                Some(carried)
            }
            carry => self.mutual(hello, carry).await,
        }
    }

    async fn mutual(self, hello: Hello, carry: Carry) -> Option<Carried> {
        let (core, alpn) = (self.core, hello.alpn);
        let refuse = |why| {
            self.party.refuse(&core, why);
            None
        };
        let Some(epoch) = core.certs.current() else { return refuse("no-identity") };
        let stream = match timeout(core.limits.handshake_timeout, hello.finish(epoch.server(alpn)?)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let certificate = palisade_identity::tls::verify_error_in_io(&error);
                tracing::debug!(%error, code = certificate.map(|e| e.code()), "handshake failed");
                return refuse(certificate.map_or(reason::HANDSHAKE_FAILED, peer_reason));
            }
            Err(_) => return refuse(reason::HANDSHAKE_FAILED),
        };
        let identity = &epoch.identity;
        let peer = match palisade_identity::tls::peer(stream.get_ref().1, &identity.bundles, core.clock.now()) {
            Ok(peer) if peer.id().trust_domain() == identity.svid.id().trust_domain() => peer,
            Ok(_) => return refuse(reason::PEER_INVALID),
            Err(error) => return refuse(peer_reason(&error)),
        };
        core.metrics.connection(Direction::Inbound, false);
        let oldest = core.now().saturating_add(core.limits.max_connection_age.as_secs());
        let expires = peer.not_after().as_secs().min(oldest);
        let party = self.party.verified(identity.svid.id(), &peer);
        let session = session(core, &self.port, self.protocol, party, expires);
        session.core.note_peer(&session.open, peer.serial());
        let leg = Leg::new(Stream::Server(Box::new(stream)), BytesMut::new());
        Some(Carried { session, leg, carry, alpn: Some(alpn) })
    }
}

fn peer_reason(error: &VerifyError) -> &'static str {
    if matches!(error, VerifyError::Revoked { .. }) { reason::PEER_REVOKED } else { reason::PEER_INVALID }
}

fn session(core: Arc<Core>, port: &InboundPort, protocol: AppProtocol, party: Party, expires: u64) -> Session {
    let entry = Entry::new(Some(port.port), party.is_plaintext(), expires);
    let open = Arc::new(core.live.open(Arc::new(entry)));
    // Between the mode that let it in and its registration, the mode may have become STRICT.
    let strict = core.snapshot.load().as_ref().is_some_and(|now| now.mode(port.port) == MtlsMode::Strict);
    if strict && party.is_plaintext() {
        open.signal.raise(CUT);
    }
    Session { core, open, target: Target::App(port.app.clone()), protocol, party: Some(Arc::new(party)) }
}

impl Carried {
    /// Carries the connection as decided.
    async fn serve(self) {
        let Carried { session, mut leg, carry, alpn } = self;
        let (signal, limits) = (&session.open.signal, &session.core.limits);
        let spoken = match (carry, alpn) {
            (Carry::Http, Some(Alpn::IstioHttp1 | Alpn::Http1)) => Spoken::Http1,
            (Carry::Http, Some(Alpn::IstioH2 | Alpn::H2)) => Spoken::Http2,
            (Carry::Http, _) => sniff::http_version(&mut leg, signal, limits.header_timeout).await,
            (Carry::Detect, _) => sniff::spoken(&mut leg, signal, limits.detect_timeout).await,
            _ => Spoken::Other,
        };
        session.carry(leg, spoken).await;
        if let Some(party) = session.party.as_ref().filter(|_| session.open.is_revoked()) {
            party.refuse(&session.core, reason::PEER_REVOKED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, F: Future>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Idle connections hold this for as long as they are open: it must not creep.
    #[test]
    fn what_an_accepted_connection_holds_stays_small() {
        assert!(size(serve) <= 1024, "{} bytes", size(serve));
        assert!(size(crate::outbound::serve) <= 1024, "{} bytes", size(crate::outbound::serve));
    }
}
