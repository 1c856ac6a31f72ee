//! An inbound connection as policy and audit see it: who calls, what is called, and over what. Made once a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use palisade_authz::{
    Decision, DecisionRecord, Destination, DestinationFacts, Headers, HttpFacts, HttpRequest, Peer, Request,
    RequestFacts, SourceFacts, normalize, remote_ip,
};
use palisade_identity::{SpiffeId, VerifiedPeer};

use crate::callers::Caller;
use crate::core::Core;
use crate::headers::{is_credential, xfcc_element};
use crate::snapshot::ProxySnapshot;

/// The two sides of one inbound connection.
#[derive(Debug)]
pub(crate) struct Party {
    peer: Option<SpiffeId>,
    /// The element that the application gets; none in plaintext.
    pub(crate) xfcc: Option<String>,
    source_ip: IpAddr,
    destination: Destination,
    /// The application's port.
    pub(crate) port: u16,
    sni: Option<Arc<str>>,
    transport: &'static str,
    /// The scheme of HTTP/1.1 requests.
    pub(crate) scheme: &'static str,
    source_facts: Arc<SourceFacts>,
    destination_facts: Arc<DestinationFacts>,
    /// Where plaintext requests are counted.
    caller: Option<Arc<Caller>>,
}

/// An HTTP request as decided: everything in its final form.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    /// Normalised path with query; none for CONNECT.
    pub(crate) target: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) scheme: &'a str,
    pub(crate) headers: &'a (dyn Headers + Sync),
}

/// What a record says about how it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Went {
    pub(crate) status: u16,
    pub(crate) began: Instant,
}

/// An IPv4 address stays one when it arrives on an IPv6 socket: policies are written for it.
pub(crate) fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

impl Party {
    /// A connection from `from` to `local`, for the application's `port`.
    pub(crate) fn new(core: &Core, from: SocketAddr, local: SocketAddr, port: u16, sni: Option<Arc<str>>) -> Party {
        let source_ip = canonical(from.ip());
        let destination_ip = canonical(local.ip());
        let ours = core.certs.current().map(|epoch| epoch.principal.to_string());
        Party {
            peer: None,
            xfcc: None,
            source_ip,
            destination: Destination { ip: Some(destination_ip), port: Some(port) },
            port,
            sni,
            transport: "plaintext",
            scheme: "http",
            source_facts: Arc::new(SourceFacts {
                ip: Some(source_ip),
                port: Some(from.port()),
                ..SourceFacts::default()
            }),
            destination_facts: Arc::new(DestinationFacts {
                principal: ours,
                namespace: core.workload.namespace.clone(),
                workload: core.workload.name.clone(),
                ip: Some(destination_ip),
                port: Some(port),
                service: None,
            }),
            caller: None,
        }
    }

    /// With the caller that the handshake verified.
    pub(crate) fn verified(mut self, ours: &SpiffeId, peer: &VerifiedPeer) -> Party {
        self.xfcc = Some(xfcc_element(ours, peer));
        let mut facts = (*self.source_facts).clone();
        facts.principal = Some(peer.id().principal().to_owned());
        self.source_facts = Arc::new(facts);
        self.peer = Some(peer.id().clone());
        (self.transport, self.scheme) = ("mtls", "https");
        self
    }

    /// Without identity: noted as a plaintext caller, with the workload known at that address as a hint.
    pub(crate) fn unverified(mut self, core: &Core) -> Party {
        let snapshot = core.snapshot.load();
        let hint = snapshot.as_ref().and_then(|snapshot| snapshot.hint(self.source_ip));
        let mut facts = (*self.source_facts).clone();
        facts.hint.clone_from(&hint);
        self.source_facts = Arc::new(facts);
        self.caller = core.callers.connection(self.source_ip, self.port, hint, core.now());
        self
    }

    /// No certificate was verified.
    pub(crate) fn is_plaintext(&self) -> bool {
        self.peer.is_none()
    }

    /// Counts a request of a plaintext caller.
    pub(crate) fn count_request(&self) {
        if let Some(caller) = &self.caller {
            caller.requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Decides an HTTP request on one snapshot.
    pub(crate) fn decide_http(&self, snapshot: &ProxySnapshot, ask: &Ask<'_>) -> Decision {
        snapshot.http.decide(&Request {
            source: self.source(remote_ip(Some(self.source_ip), ask.headers)),
            destination: self.destination,
            sni: self.sni.as_deref(),
            http: Some(HttpRequest {
                method: Some(ask.method),
                path: ask.target.map(normalize::without_query),
                host: ask.host,
                scheme: Some(ask.scheme),
                headers: ask.headers,
                raw_target: ask.target,
            }),
            ..Request::default()
        })
    }

    /// Decides an opaque connection on one snapshot.
    pub(crate) fn decide_tcp(&self, snapshot: &ProxySnapshot) -> Decision {
        snapshot.tcp.decide(&Request {
            source: self.source(Some(self.source_ip)),
            destination: self.destination,
            sni: self.sni.as_deref(),
            ..Request::default()
        })
    }

    /// What the record of an HTTP request says.
    pub(crate) fn http_facts(&self, snapshot: &ProxySnapshot, ask: &Ask<'_>, went: Went) -> RequestFacts {
        let mut headers = Vec::new();
        for name in snapshot.http.headers_read().iter().filter(|name| !is_credential(name)) {
            ask.headers.for_each(name, &mut |value| headers.push((name.clone(), value.to_vec())));
        }
        let http = HttpFacts {
            method: ask.method.to_owned(),
            host: ask.host.map(str::to_owned),
            path: ask.target.map(|target| normalize::without_query(target).to_owned()),
            scheme: Some(ask.scheme.to_owned()),
            headers,
        };
        self.facts(&snapshot.revision, "http", Some(http), went)
    }

    /// What the record of an opaque connection says.
    pub(crate) fn tcp_facts(&self, snapshot: &ProxySnapshot, went: Went) -> RequestFacts {
        self.facts(&snapshot.revision, "tcp", None, went)
    }

    /// Records a connection refused before any decision.
    pub(crate) fn refuse(&self, core: &Core, reason: &'static str) {
        core.metrics.refused(reason);
        let revision = core.snapshot.load().as_ref().map_or_else(|| "".into(), |snapshot| snapshot.revision.clone());
        let facts = self.facts(&revision, "tcp", None, Went { status: 0, began: Instant::now() });
        tracing::debug!(reason, source = %self.source_ip, port = self.port, "connection refused");
        core.sink.record(DecisionRecord::connection_refused(reason, facts));
    }

    fn source(&self, remote_ip: Option<IpAddr>) -> Peer<'_> {
        Peer { principal: self.peer.as_ref().map(SpiffeId::principal), ip: Some(self.source_ip), remote_ip }
    }

    fn facts(&self, revision: &Arc<str>, protocol: &'static str, http: Option<HttpFacts>, went: Went) -> RequestFacts {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        RequestFacts {
            time_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            revision: revision.clone(),
            source: self.source_facts.clone(),
            destination: self.destination_facts.clone(),
            http,
            protocol,
            transport: self.transport,
            sni: self.sni.clone(),
            status: went.status,
            duration: went.began.elapsed(),
        }
    }
}
