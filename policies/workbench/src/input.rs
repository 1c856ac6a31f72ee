//! One line of evaluation input as a checked type, and its view for the evaluator. Every verb that decides reads
//! requests here, so that none of them can understand a line in its own way.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use palisade_authz::provider::{CheckRequest, Party};
use palisade_authz::{
    Attribute, Destination, HttpRequest, Known, Peer, Request, Semantics, head, normalize, remote_ip,
};
use palisade_policies::json::{Fields, Problem, Strict, wrong};
use palisade_policies::{MeshConfig, Workload};
use serde_json::Value;

mod codec;
mod error;
mod lines;
mod service;

pub use error::InputError;
pub(crate) use lines::{Line, Lines};
pub(crate) use service::{Service, policies, tokens};

/// A request line.
pub(crate) struct Input {
    /// Echoed in the answer.
    pub(crate) id: Value,
    pub(crate) semantics: Semantics,
    pub(crate) workload: Workload,
    /// The service that is called, if the workload is the waypoint before it.
    pub(crate) service: Option<Service>,
    pub(crate) principal: Option<String>,
    pub(crate) ip: Option<IpAddr>,
    remote_ip: Option<IpAddr>,
    pub(crate) destination_ip: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) sni: Option<String>,
    pub(crate) http: Http,
    pub(crate) claims: Option<Value>,
    metadata: Option<Value>,
}

#[derive(Default)]
pub(crate) struct Http {
    pub(crate) method: Option<String>,
    /// The raw target, without scheme and authority.
    pub(crate) target: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) scheme: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

/// What is wrong with a text that is not the JSON we read, in the words of whoever wrote it.
fn no_json(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    // A request in a file of its own may have several lines.
    let at = match error.line() {
        0 | 1 => format!("at column {}", error.column()),
        line => format!("at line {line}, column {}", error.column()),
    };
    let (message, fix) = match what {
        twice if error.is_data() => (format!("{twice}, {at}"), "keep one of them"),
        "recursion limit exceeded" => {
            (format!("nested deeper than is read, {at}"), "write the request flat: no field of it needs such depth")
        }
        "number out of range" => (format!("a number out of range, {at}"), "write it as a string"),
        _ if error.is_eof() => ("the JSON ends too early".to_owned(), "write one whole JSON object a line"),
        _ => (format!("not one JSON value, {at}"), "write one JSON object a line"),
    };
    Problem::new("", message, fix)
}

impl Input {
    pub(crate) fn parse(line: &str, semantics: Option<Semantics>) -> Result<Self, Problem> {
        let Strict(value) = serde_json::from_str(line).map_err(|error| no_json(&error))?;
        let mut top = Fields::of("", value)?;
        let id = id(top.value("id"))?;
        let semantics = protocol(&mut top, semantics)?;
        let (principal, ip, remote) = source(&mut top)?;
        let (workload, service, destination_ip, port) = destination(&mut top)?;
        let sni = connection(&mut top)?;
        let http = http(&mut top)?;
        let claims = claims(&mut top)?;
        let metadata = top.value("metadata");
        if let Some(other) = metadata.as_ref().filter(|metadata| !metadata.is_object()) {
            return Err(wrong("metadata", "an object of objects by filter name", other));
        }
        top.finish("id, protocol, source, destination, connection, http, jwt, metadata")?;
        Ok(Self {
            id,
            semantics,
            workload,
            service,
            principal,
            ip,
            remote_ip: remote.or_else(|| remote_ip(ip, &http.headers)),
            destination_ip,
            port,
            sni,
            http,
            claims,
            metadata,
        })
    }

    /// `:path` as the mesh normalises it, `None` without one.
    ///
    /// # Errors
    /// The status with which Envoy's codec refuses method, host, headers or target before any policy is asked.
    pub(crate) fn normalise(&self, mesh: &MeshConfig) -> Result<Option<Cow<'_, str>>, u16> {
        let possible = || {
            self.http.host.as_deref().is_none_or(head::host)
                && self.http.headers.iter().all(|(name, value)| head::header(name, value))
        };
        if self.semantics == Semantics::Http && !(codec::method(self.http.method.as_deref()) && possible()) {
            return Err(400);
        }
        let Some(raw) = self.http.target.as_deref().filter(|_| self.semantics == Semantics::Http) else {
            return Ok(None);
        };
        if raw == "*" && self.http.method.as_deref() == Some("OPTIONS") {
            return Err(404);
        }
        if !head::target(raw) {
            return Err(400);
        }
        normalize::path(raw, mesh.path_normalization).map(Some).map_err(|_| 400)
    }

    /// The request as the evaluator sees it, and what of it is known. `target` is the normalised one.
    pub(crate) fn view<'a>(&'a self, target: Option<&'a str>) -> (Request<'a>, Known) {
        let http = (self.semantics == Semantics::Http).then(|| HttpRequest {
            method: self.http.method.as_deref(),
            path: target.map(normalize::without_query),
            host: self.http.host.as_deref(),
            scheme: self.http.scheme.as_deref(),
            headers: &self.http.headers,
            raw_target: target,
        });
        let request = Request {
            source: Peer { principal: self.principal.as_deref(), ip: self.ip, remote_ip: self.remote_ip },
            destination: Destination { ip: self.destination_ip, port: self.port },
            sni: self.sni.as_deref(),
            http,
            claims: self.claims.as_ref(),
            metadata: self.metadata.as_ref(),
        };
        (request, self.known())
    }

    /// The request as a provider is told of it.
    pub(crate) fn to_check(&self, target: Option<&str>, time: SystemTime) -> CheckRequest {
        let party = |ip: Option<IpAddr>, port: u16, principal: Option<&String>| Party {
            address: ip.map(|ip| SocketAddr::new(ip, port)),
            principal: principal.cloned(),
        };
        let headers = self.http.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes()));
        CheckRequest {
            method: self.http.method.clone(),
            target: target.map(str::to_owned),
            host: self.http.host.clone(),
            scheme: self.http.scheme.clone(),
            protocol: "HTTP/1.1".to_owned(),
            headers: headers.collect(),
            source: party(self.ip, 0, self.principal.as_ref()),
            destination: party(self.destination_ip, self.port.unwrap_or_default(), None),
            sni: self.sni.clone(),
            time,
            tcp: self.semantics != Semantics::Http,
            ..CheckRequest::default()
        }
    }

    /// What every request has and the line does not say is unknown.
    fn known(&self) -> Known {
        let connect = self.http.method.as_deref() == Some("CONNECT");
        [
            (Attribute::SourceIp, self.ip.is_some()),
            (Attribute::RemoteIp, self.remote_ip.is_some()),
            (Attribute::DestinationIp, self.destination_ip.is_some()),
            (Attribute::DestinationPort, self.port.is_some()),
            (Attribute::Method, self.http.method.is_some()),
            (Attribute::Path, self.http.target.is_some() || connect),
            (Attribute::Host, self.http.host.is_some()),
            (Attribute::Scheme, self.http.scheme.is_some()),
        ]
        .into_iter()
        .filter(|(_, said)| !said)
        .fold(Known::ALL, |known, (attribute, _)| known.without(attribute))
    }
}

fn id(value: Option<Value>) -> Result<Value, Problem> {
    match value {
        None => Ok(Value::Null),
        Some(id @ Value::String(_)) => Ok(id),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => Ok(Value::Number(id)),
        // It would come back as another number than was written.
        Some(Value::Number(id)) => {
            Err(Problem::new("id", format!("`{id}` is no whole number of 64 bits"), "write the id as a string"))
        }
        Some(other) => Err(wrong("id", "a string", &other)),
    }
}

fn protocol(top: &mut Fields, semantics: Option<Semantics>) -> Result<Semantics, Problem> {
    let fix = "write `http`, `tcp` or `l4`";
    let written = match top.string("protocol")?.as_deref() {
        None => None,
        Some("http") => Some(Semantics::Http),
        Some("tcp") => Some(Semantics::Tcp),
        Some("l4") => Some(Semantics::L4),
        Some(other) => return Err(Problem::new("protocol", format!("`{other}` is unknown"), fix)),
    };
    semantics.or(written).ok_or_else(|| Problem::new("protocol", "missing", fix))
}

type SourceFields = (Option<String>, Option<IpAddr>, Option<IpAddr>);

fn source(top: &mut Fields) -> Result<SourceFields, Problem> {
    let Some(mut source) = top.object("source")? else {
        return Ok((None, None, None));
    };
    let principal = source.string("principal")?;
    let ip = source.parsed("ip", "10.0.0.7")?;
    let remote = source.parsed("remoteIp", "203.0.113.9")?;
    source.finish("principal, ip, remoteIp")?;
    match principal.as_deref() {
        Some("") => Err(Problem::new("source.principal", "empty", "leave it out for a plaintext caller")),
        Some(id) if id.starts_with("spiffe://") => Err(Problem::new(
            "source.principal",
            format!("`{id}` carries the scheme"),
            "write the SPIFFE ID without `spiffe://`, as policies do",
        )),
        _ => Ok((principal, ip, remote)),
    }
}

type DestinationFields = (Workload, Option<Service>, Option<IpAddr>, Option<u16>);

fn destination(top: &mut Fields) -> Result<DestinationFields, Problem> {
    let missing = || {
        Problem::new(
            "destination.namespace",
            "missing",
            "name the namespace of the workload that is called: it selects the policies",
        )
    };
    let mut destination = top.object("destination")?.ok_or_else(missing)?;
    let namespace = destination.string("namespace")?.filter(|name| !name.is_empty()).ok_or_else(missing)?;
    let name = destination.string("name")?.unwrap_or_default();
    let labels = labels(destination.value("labels"))?;
    let ip = destination.parsed("ip", "10.0.0.9")?;
    let port = destination.port("port")?;
    let workload = Workload { namespace, name, labels };
    let service = Service::read(&mut destination, &workload)?;
    destination.finish("namespace, name, labels, service, ip, port")?;
    Ok((workload, service, ip, port))
}

fn labels(value: Option<Value>) -> Result<BTreeMap<String, String>, Problem> {
    let pairs = match value {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(pairs)) => pairs,
        Some(other) => return Err(wrong("destination.labels", "an object of strings", &other)),
    };
    pairs
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(value) => Ok((key, value)),
            other => Err(wrong(&format!("destination.labels.{key}"), "a string", &other)),
        })
        .collect()
}

fn connection(top: &mut Fields) -> Result<Option<String>, Problem> {
    let Some(mut connection) = top.object("connection")? else {
        return Ok(None);
    };
    let sni = connection.string("sni")?;
    connection.finish("sni")?;
    Ok(sni)
}

fn http(top: &mut Fields) -> Result<Http, Problem> {
    let Some(mut fields) = top.object("http")? else {
        return Ok(Http::default());
    };
    let mut http = Http {
        method: fields.string("method")?,
        target: fields.string("path")?,
        host: fields.string("host")?.map(|host| sent(&host)),
        scheme: fields.string("scheme")?,
        headers: headers(fields.value("headers"))?,
    };
    fields.finish("method, path, host, scheme, headers")?;
    if let Some((host, target)) = http.target.as_deref().and_then(codec::absolute_form) {
        http.host = Some(host.to_owned());
        http.target = Some(target.to_owned());
    }
    Ok(http)
}

/// The value of a field, as the codec reads it: without outer blanks.
fn sent(value: &str) -> String {
    value.trim_matches([' ', '\t']).to_owned()
}

/// `[["name","value"],..]`.
fn headers(value: Option<Value>) -> Result<Vec<(String, String)>, Problem> {
    let items = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong("http.headers", "an array of [name, value] pairs", &other)),
    };
    let mut headers = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match item.as_array().map(Vec::as_slice) {
            Some([Value::String(name), Value::String(value)]) => {
                told_apart(index, name)?;
                headers.push((name.clone(), sent(value)));
            }
            _ => return Err(wrong(&format!("http.headers[{index}]"), "a pair of strings: [\"x-token\",\"a\"]", &item)),
        }
    }
    Ok(headers)
}

/// What the line says in a field of its own is no header: with both there would be two answers to what was sent.
fn told_apart(index: usize, name: &str) -> Result<(), Problem> {
    let field = match name.to_ascii_lowercase().as_str() {
        "host" | ":authority" => "http.host",
        ":method" => "http.method",
        ":path" => "http.path",
        ":scheme" => "http.scheme",
        _ => return Ok(()),
    };
    let message = format!("`{name}` is no header here");
    Err(Problem::new(format!("http.headers[{index}]"), message, format!("write it as `{field}`")))
}

fn claims(top: &mut Fields) -> Result<Option<Value>, Problem> {
    let Some(mut jwt) = top.object("jwt")? else {
        return Ok(None);
    };
    let claims = jwt.value("claims");
    jwt.finish("claims")?;
    match claims {
        Some(other) if !other.is_object() => Err(wrong("jwt.claims", "an object", &other)),
        claims => Ok(claims),
    }
}
