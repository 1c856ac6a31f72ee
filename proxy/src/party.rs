//! An inbound connection as policy and audit see it: who calls, what is called, and over what. Made once a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::Method;
use http::uri::{Authority, PathAndQuery};
use palisade_authz::gate::{self, BodySource, Judgement, Standing};
use palisade_authz::provider::{self, CheckRequest};
use palisade_authz::{
    Decision, DecisionRecord, Denial, Destination, DestinationFacts, Headers, HttpFacts, HttpRequest, Peer, Permit,
    Request, RequestFacts, SourceFacts, normalize, remote_ip,
};
use palisade_identity::{SpiffeId, VerifiedPeer};

use crate::callers::Caller;
use crate::core::Core;
use crate::edits::Changes;
use crate::grant::Terms;
use crate::headers::xfcc_element;
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
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub(crate) version: &'static str,
    pub(crate) headers: &'a dyn Headers,
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

    /// Judges an HTTP request on one snapshot; may wait for a provider, or for the keys of a token.
    pub(crate) async fn judge(
        &self,
        snapshot: &ProxySnapshot,
        ask: &Ask<'_>,
        body: &mut dyn BodySource,
        now: SystemTime,
    ) -> Judgement {
        let check = || self.check(Some(ask), now);
        snapshot.http.judge(&gate::Ask::new(self.http_request(ask), &check), body, now).await
    }

    /// Judges an HTTP request by what is known of it already: at once, and asking nobody.
    pub(crate) fn judge_again(&self, snapshot: &ProxySnapshot, ask: &Ask<'_>, terms: Option<&Terms>) -> Decision {
        match terms {
            Some(terms) => snapshot.http.judge_again(&self.http_request(ask), &terms.standing),
            None => snapshot.http.decide(&self.http_request(ask)),
        }
    }

    /// Judges an opaque connection on one snapshot; may wait for a provider.
    pub(crate) async fn judge_tcp(
        &self,
        snapshot: &ProxySnapshot,
        now: SystemTime,
    ) -> Result<(Permit, Standing), Denial> {
        let check = || self.check(None, now);
        snapshot.tcp.judge_connection(&self.tcp_request(), &check).await
    }

    /// Judges an opaque connection by what is known of it already: at once, and asking nobody.
    pub(crate) fn judge_tcp_again(&self, snapshot: &ProxySnapshot, standing: &Standing) -> Decision {
        snapshot.tcp.judge_again(&self.tcp_request(), standing)
    }

    fn http_request<'a>(&'a self, ask: &Ask<'a>) -> Request<'a> {
        Request {
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
        }
    }

    fn tcp_request(&self) -> Request<'_> {
        Request {
            source: self.source(Some(self.source_ip)),
            destination: self.destination,
            sni: self.sni.as_deref(),
            ..Request::default()
        }
    }

    /// What a provider is told of a request, or of an opaque connection.
    fn check(&self, ask: Option<&Ask<'_>>, time: SystemTime) -> CheckRequest {
        let address = |ip: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(ip?, port?));
        let (source, destination) = (&self.source_facts, &self.destination_facts);
        let mut headers = Vec::new();
        if let Some(ask) = ask {
            ask.headers.visit(&mut |name, value| {
                if !name.eq_ignore_ascii_case("host") {
                    headers.push((name.to_ascii_lowercase(), value.to_vec()));
                }
            });
        }
        CheckRequest {
            method: ask.map(|ask| ask.method.to_owned()),
            target: ask.and_then(|ask| ask.target).map(str::to_owned),
            host: ask.and_then(|ask| ask.host).map(str::to_owned),
            scheme: ask.map(|ask| ask.scheme.to_owned()),
            protocol: ask.map(|ask| ask.version.to_owned()).unwrap_or_default(),
            headers,
            source: provider::Party { address: address(source.ip, source.port), principal: source.principal.clone() },
            destination: provider::Party {
                address: address(destination.ip, destination.port),
                principal: destination.principal.clone(),
            },
            sni: self.sni.as_deref().map(str::to_owned),
            time,
            tcp: ask.is_none(),
            ..CheckRequest::default()
        }
    }

    /// What the record of an HTTP request says: the request as the policies saw it, changes included.
    pub(crate) fn http_facts(
        &self,
        snapshot: &ProxySnapshot,
        ask: &Ask<'_>,
        changes: Option<&Changes>,
        went: Went,
    ) -> RequestFacts {
        let mut headers = Vec::new();
        for name in &snapshot.recorded {
            if !changes.is_some_and(|changes| changes.replaces(name.as_bytes())) {
                ask.headers.for_each(name, &mut |value| headers.push((name.clone(), value.to_vec())));
            }
            let added = changes.into_iter().flat_map(Changes::fields).filter(|(added, _)| added == name.as_str());
            headers.extend(added.map(|(_, value)| (name.clone(), value.as_bytes().to_vec())));
        }
        let method = changes.and_then(|changes| changes.method.as_ref()).map(Method::as_str);
        let host = changes.and_then(|changes| changes.host.as_ref()).map(Authority::as_str);
        let target = changes.and_then(|changes| changes.target.as_ref()).map(PathAndQuery::as_str);
        let http = HttpFacts {
            method: method.unwrap_or(ask.method).to_owned(),
            host: host.or(ask.host).map(str::to_owned),
            path: target.or(ask.target).map(|target| normalize::without_query(target).to_owned()),
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
