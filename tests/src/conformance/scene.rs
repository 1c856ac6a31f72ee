//! What is decided: a workload with its policies, and the requests that come to it.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use palisade_policies::{AuthorizationPolicy, MeshConfig, RequestAuthentication};
use serde_json::{Map, Value, json};

use super::translate::{Chain, Identity};

/// The namespace of the workload.
pub(super) const NAMESPACE: &str = "foo";
/// The filter whose metadata requests carry, and its key.
pub(super) const METADATA: (&str, &str) = ("envoy.filters.x", "k");

/// One workload: everything that one listener of the oracle is made of.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) chain: Chain,
    pub(super) mesh: MeshConfig,
    pub(super) policies: Vec<Arc<AuthorizationPolicy>>,
    pub(super) authentications: Vec<Arc<RequestAuthentication>>,
    pub(super) door: Door,
    /// `use_remote_address` with this many trusted proxies, as at a gateway; `None` is a sidecar.
    pub(super) trusted_hops: Option<u32>,
}

/// How requests reach a workload.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) place: Place,
    pub(super) tls: Tls,
    pub(super) identity: Identity,
}

/// Where the oracle listens.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Anywhere in the address family; the PROXY protocol says what the destination is.
    Proxied { v6: bool },
    /// Here: destination address and port are the real ones.
    At(Arc<Reserved>),
}

/// TLS on the way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    Plain,
    /// Ended here; a client certificate is asked for, not required.
    Ended,
    /// Passed on as it is, the server name read from the first message: TCP only.
    Passed,
}

/// An address that nobody else gets: bound, never listened on. Envoy binds it a second time.
#[derive(Debug)]
pub(super) struct Reserved {
    _socket: socket2::Socket,
    pub(super) address: SocketAddr,
}

impl Reserved {
    /// A port of the kernel's choice on `ip`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(super) fn on(ip: IpAddr) -> std::io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address((ip, 0).into()), socket2::Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::new(ip, 0).into())?;
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| std::io::Error::other("no socket address"))?;
        Ok(Self { _socket: socket, address })
    }

    /// Whether this machine has IPv6 on loopback.
    pub(super) fn has_v6() -> bool {
        TcpListener::bind("[::1]:0").is_ok()
    }
}

/// One connection and what it carries.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The TCP peer.
    pub(super) source: IpAddr,
    /// What the PROXY protocol says: the client and the destination.
    pub(super) proxied: Option<(SocketAddr, SocketAddr)>,
    /// The caller's SPIFFE ID without the scheme: of the connection where TLS is ended here.
    pub(super) principal: Option<String>,
    pub(super) sni: Option<String>,
    /// `experimental.envoy.filters.x[k]` of a connection: a text.
    pub(super) metadata: Option<Value>,
    /// The requests; on TCP one without a head.
    pub(super) asks: Vec<Ask>,
}

/// One request.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    /// The caller's SPIFFE ID where the filter state carries it.
    pub(super) principal: Option<String>,
    pub(super) method: String,
    /// As sent; `None` for CONNECT.
    pub(super) target: Option<String>,
    pub(super) host: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// Claims of the token in `x-jwt`, of a scene that trusts them.
    pub(super) claims: Option<Value>,
    pub(super) metadata: Option<Value>,
}

/// The header that carries the token of [`Ask::claims`].
pub(super) const TOKEN: &str = "x-jwt";

impl Scene {
    /// The address and the port that the workload thinks it is called at.
    pub(super) fn destination(&self, call: &Call) -> Option<SocketAddr> {
        match &self.door.place {
            Place::At(reserved) => Some(reserved.address),
            Place::Proxied { .. } => call.proxied.map(|(_, destination)| destination),
        }
    }

    /// The client as the connection gives it, before forwarding headers are read.
    pub(super) fn client(call: &Call) -> IpAddr {
        call.proxied.map_or(call.source, |(client, _)| client.ip())
    }

    /// Whether claims are given by the request and not read from tokens.
    pub(super) fn trusts_claims(&self) -> bool {
        self.authentications.iter().any(|policy| policy.meta.name == TRUSTED)
    }
}

impl Scene {
    /// Whether tokens are verified by rules of the scene's own.
    pub(super) fn verifies_tokens(&self) -> bool {
        !self.authentications.is_empty() && !self.trusts_claims()
    }

    /// What of the final `:path` both sides agree on: when a token is taken out of the query Envoy writes the rest of it
    /// anew, sorted and decoded; the engine leaves it as it is.
    pub(super) fn comparable<'a>(&self, target: &'a str) -> &'a str {
        let cut = target.split_once('?').map_or(target, |(path, _)| path);
        if self.verifies_tokens() { cut } else { target }
    }
}

/// The name of the RequestAuthentication that stands for claims given with the request.
pub(super) const TRUSTED: &str = "trusted-claims";

/// One line of `palisade policy eval`.
pub(super) fn input_line(scene: &Scene, call: &Call, ask: &Ask, remote_ip: Option<IpAddr>) -> Value {
    let destination = scene.destination(call);
    let mut line = Map::new();
    line.insert("protocol".to_owned(), json!(if scene.chain == Chain::Http { "http" } else { "tcp" }));
    let principal = principal(scene, call, ask);
    let mut source = json!({ "ip": call.source });
    let fields = [("principal", principal.map(Value::from)), ("remoteIp", remote_ip.map(|ip| json!(ip)))];
    add(&mut source, fields);
    line.insert("source".to_owned(), source);
    let mut called = json!({ "namespace": NAMESPACE });
    let parts = [("ip", destination.map(|at| json!(at.ip()))), ("port", destination.map(|at| json!(at.port())))];
    add(&mut called, parts);
    line.insert("destination".to_owned(), called);
    if let Some(sni) = &call.sni {
        line.insert("connection".to_owned(), json!({ "sni": sni }));
    }
    if scene.chain == Chain::Http {
        let headers: Vec<Value> = ask.headers.iter().map(|(name, value)| json!([name, text(value)])).collect();
        let mut http = json!({ "method": ask.method, "host": ask.host, "headers": headers });
        add(&mut http, [("path", ask.target.as_deref().map(Value::from))]);
        line.insert("http".to_owned(), http);
    }
    if let Some(claims) = &ask.claims {
        line.insert("jwt".to_owned(), json!({ "claims": claims }));
    }
    if let Some(value) = metadata(call, ask) {
        line.insert("metadata".to_owned(), json!({ METADATA.0: { METADATA.1: value } }));
    }
    Value::Object(line)
}

fn add<const N: usize>(object: &mut Value, fields: [(&str, Option<Value>); N]) {
    for (name, value) in fields {
        if let Some(value) = value {
            object[name] = value;
        }
    }
}

/// Bytes as text: what is not UTF-8 as Latin-1, as Envoy writes it, too.
pub(super) fn text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// The caller's identity, wherever it comes from.
pub(super) fn principal<'a>(scene: &Scene, call: &'a Call, ask: &'a Ask) -> Option<&'a str> {
    match (scene.chain, scene.door.identity) {
        (Chain::Http, Identity::FilterState) => ask.principal.as_deref(),
        _ => call.principal.as_deref(),
    }
}

/// The metadata of the request, or of the connection where there is no HTTP.
pub(super) fn metadata<'a>(call: &'a Call, ask: &'a Ask) -> Option<&'a Value> {
    ask.metadata.as_ref().or(call.metadata.as_ref())
}
