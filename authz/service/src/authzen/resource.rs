//! The resource: a workload of the registry, or a URL behind which there is one.

use std::net::IpAddr;
use std::sync::Arc;

use palisade_authz::{head, normalize};
use palisade_policies::json::{Fields, Problem};
use palisade_policies::{PathNormalization, WorkloadEntry};
use serde_json::Value;

use crate::source::PolicySnapshot;
use crate::workload::{LookupError, by_name};

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Place {
    /// The workload, or why it is not one.
    pub(super) entry: Result<Arc<WorkloadEntry>, LookupError>,
    pub(super) ip: Option<IpAddr>,
    pub(super) port: Option<u16>,
    pub(super) host: Option<String>,
    pub(super) scheme: Option<String>,
    /// Path and query, normalised.
    pub(super) target: Option<String>,
    /// Path and query as sent.
    pub(super) raw: Option<String>,
    /// The service that was asked for.
    pub(super) service: Option<String>,
    /// The field that makes it HTTP, if any.
    pub(super) http: Option<&'static str>,
}

pub(super) fn read(value: Value, snapshot: &PolicySnapshot) -> Result<Place, Problem> {
    let mut fields = Fields::of("resource", value)?;
    let kind = fields.required("type", "write `workload` or `http`")?;
    let id = fields.required("id", "name the workload as `namespace/name`, or write a URL with type `http`")?;
    let properties = fields.object_or_empty("properties")?;
    let place = match kind.as_str() {
        "workload" => workload(&id, properties, snapshot)?,
        "http" => url(&id, properties, snapshot)?,
        other => {
            let fix = "write `workload` (id `namespace/name`) or `http` (id is the URL)";
            return Err(Problem::new("resource.type", format!("`{other}` is unknown"), fix));
        }
    };
    // The address of a workload is what the registry says, unless the caller knows better.
    let registered = place.entry.as_ref().ok().and_then(|entry| entry.ip());
    Ok(Place { ip: place.ip.or(registered).map(|ip| ip.to_canonical()), ..place })
}

fn workload(id: &str, mut properties: Fields, snapshot: &PolicySnapshot) -> Result<Place, Problem> {
    let entry = match by_name(snapshot, id) {
        Err(error @ LookupError::Name(_)) => {
            return Err(Problem::new("resource.id", error.to_string(), "write it as `namespace/name`"));
        }
        found => found,
    };
    let (host, scheme) = (properties.string("host")?, properties.string("scheme")?);
    if let Some(scheme) = scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
        let message = format!("`{scheme}` is unknown");
        return Err(Problem::new("resource.properties.scheme", message, "write `http` or `https`"));
    }
    if let Some(host) = host.as_deref().filter(|host| !head::host(host)) {
        let message = format!("`{}` is no host", host.escape_debug());
        return Err(Problem::new("resource.properties.host", message, "write it as it stands in the request"));
    }
    let raw = properties.string("path")?;
    let target = raw.as_deref().map(|raw| normalised("resource.properties.path", raw, snapshot)).transpose()?;
    let (ip, port) = (properties.parsed("ip", "10.0.0.9")?, properties.port("port")?);
    properties.finish("host, scheme, path, ip, port")?;
    let http = [
        ("resource.properties.path", raw.is_some()),
        ("resource.properties.host", host.is_some()),
        ("resource.properties.scheme", scheme.is_some()),
    ];
    let http = http.into_iter().find_map(|(field, given)| given.then_some(field));
    Ok(Place { entry, ip, port, host, scheme, target, raw, service: None, http })
}

fn url(id: &str, mut properties: Fields, snapshot: &PolicySnapshot) -> Result<Place, Problem> {
    let Url { scheme, authority, name, port: number, raw } = Url::parse(id)?;
    let target = normalised("resource.id", &raw, snapshot)?;
    let named = properties.string("workload")?;
    let (mut ip, mut port) = (properties.parsed("ip", "10.0.0.9")?, properties.port("port")?);
    properties.finish("workload, ip, port")?;
    let entry = match named {
        Some(named) => match by_name(snapshot, &named) {
            Err(error @ LookupError::Name(_)) => {
                let fix = "write it as `namespace/name`";
                return Err(Problem::new("resource.properties.workload", error.to_string(), fix));
            }
            found => found,
        },
        None => behind(snapshot, &name, number).map(|(entry, address)| {
            ip = ip.or(Some(address.ip()));
            port = port.or(Some(address.port()));
            entry
        }),
    };
    let (target, raw, service) = (Some(target), Some(raw), Some(name));
    let (host, scheme) = (Some(authority), Some(scheme));
    Ok(Place { entry, ip, port, host, scheme, target, raw, service, http: Some("resource.id") })
}

/// The parts of a URL that a request consists of.
struct Url {
    scheme: String,
    /// As it stands in the request: with its port, if one is written.
    authority: String,
    /// The host in lower case.
    name: String,
    port: u16,
    /// Path and query.
    raw: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, Problem> {
        let refuse = |message: String| {
            Problem::new("resource.id", message, "write a URL such as `http://cart.shop:8080/v1/cart?x=1`")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refuse(format!("`{text}` is no URL")))?;
        let scheme = scheme.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            other => return Err(refuse(format!("scheme `{other}` is unknown"))),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let (name, port) = authority(host).ok_or_else(|| refuse(format!("`{host}` is no host")))?;
        let raw = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let name = name.to_ascii_lowercase();
        Ok(Self { scheme, authority: host.to_owned(), name, port: port.unwrap_or(default), raw })
    }
}

/// Host and port of an authority; user information has no place in one.
fn authority(text: &str) -> Option<(&str, Option<u16>)> {
    if text.is_empty() || text.contains('@') || !head::host(text) {
        return None;
    }
    let end = text.rfind(']').map_or(0, |bracket| bracket + 1);
    match text.get(end..)?.rsplit_once(':') {
        None => Some((text, None)),
        Some((before, port)) => {
            let host = text.get(..end + before.len()).filter(|host| !host.is_empty())?;
            Some((host, Some(port.parse().ok()?)))
        }
    }
}

/// The one workload behind a service's port, and where it listens.
fn behind(
    snapshot: &PolicySnapshot,
    host: &str,
    port: u16,
) -> Result<(Arc<WorkloadEntry>, std::net::SocketAddr), LookupError> {
    let what = || format!("is behind service `{host}` on port {port}");
    let route = snapshot.registry().service(host, port).ok_or_else(|| LookupError::Unknown(what()))?;
    let [endpoint] = route.endpoints.as_slice() else {
        return Err(match route.endpoints.len() {
            0 => LookupError::Unknown(what()),
            count => LookupError::Ambiguous { count, what: format!("are behind service `{host}` on port {port}") },
        });
    };
    let (namespace, name) = &endpoint.workload;
    let entry = snapshot.registry().workload(namespace, name).cloned();
    entry.map(|entry| (entry, endpoint.address)).ok_or_else(|| LookupError::Unknown(what()))
}

fn normalised(field: &'static str, raw: &str, snapshot: &PolicySnapshot) -> Result<String, Problem> {
    let mode: PathNormalization = snapshot.mesh().path_normalization;
    if !head::target(raw) {
        let message = "does not begin with `/`, or holds white space, control characters or what is not ASCII";
        return Err(Problem::new(field, message, "write the path as it stands in the request line"));
    }
    let path =
        normalize::path(raw, mode).map_err(|error| Problem::new(field, error.to_string(), "write another path"))?;
    Ok(path.into_owned())
}
