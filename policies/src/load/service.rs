//! ServiceEntry. Source: Istio `ValidateServiceEntry`.

use std::collections::HashSet;

use super::{
    cursor::{Cx, Object, Path, quote},
    names, selector,
    values::Form,
    workload,
};
use crate::{
    AppProtocol, Location, Meta, Resolution, Selector, ServiceEntry, ServicePort, WorkloadEntry,
    catalogue::{authorization, unsupported, workloads as codes},
    yaml::Node,
};

const FIELDS: &[&str] = &[
    "hosts",
    "addresses",
    "ports",
    "location",
    "resolution",
    "endpoints",
    "workloadSelector",
    "exportTo",
    "subjectAltNames",
];

/// Reads `spec` of the document `root`.
pub(crate) fn read(cx: &mut Cx, root: &Node, meta: Option<Meta>) -> Option<ServiceEntry> {
    let path = Path::Root.key("spec");
    let Some(node) = root.peek("spec") else {
        cx.missing(root.pos, &Path::Root, "spec");
        return None;
    };
    let spec = cx.object(node, &path, FIELDS)?;
    let hosts = hosts(cx, &spec, &path);
    let addresses = addresses(cx, &spec, &path);
    let ports = ports(cx, &spec, &path);
    let location = location(cx, &spec, &path);
    let resolution = resolution(cx, &spec, &path);
    let endpoints = endpoints(cx, &spec, &path, meta.as_ref(), &ports);
    let workload_selector = workload_selector(cx, &spec, &path);
    unsupported_fields(cx, &spec, &path);
    sources(cx, &spec, &path, location, &endpoints);
    Some(ServiceEntry {
        meta: meta?,
        hosts,
        addresses,
        ports,
        endpoints,
        workload_selector,
        resolution: resolution?,
        location: location?,
    })
}

fn hosts(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) -> Vec<String> {
    let Some(node) = spec.get("hosts") else {
        cx.missing(spec.pos, path, "hosts");
        return Vec::new();
    };
    let path = path.key("hosts");
    let items = cx.list(node, &path, 256).unwrap_or_default();
    if items.is_empty() {
        cx.report(&codes::BAD_HOST, node.pos, &path, "no host is written".to_owned());
    }
    let mut hosts = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        let Some(text) = cx.value(item, &path, 256) else { continue };
        if text.strip_prefix("*.").is_some_and(names::dns_name) {
            let message = format!("the wildcard host `{}` is not supported yet", quote(text));
            cx.report_fix(&unsupported::VALUE, item.pos, &path, message, "write each host by its name".to_owned());
        } else if !names::dns_name(text) {
            cx.report(&codes::BAD_HOST, item.pos, &path, format!("`{}` is not a DNS name", quote(text)));
        }
        hosts.push(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase());
    }
    hosts
}

fn addresses(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) -> Vec<String> {
    let Some(node) = spec.get("addresses") else { return Vec::new() };
    let path = path.key("addresses");
    let mut addresses = Vec::new();
    for (index, item) in cx.list(node, &path, 256).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(text) = cx.value(item, &path, 64) else { continue };
        if text.contains('%') || Form::Ip.check(text).is_err() {
            cx.report(
                &codes::BAD_ADDRESS,
                item.pos,
                &path,
                format!("`{}` is not an IP address or prefix", quote(text)),
            );
        }
        addresses.push(text.to_owned());
    }
    addresses
}

fn ports(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) -> Vec<ServicePort> {
    let Some(node) = spec.get("ports") else { return Vec::new() };
    let path = path.key("ports");
    let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
    let mut ports = Vec::new();
    for (index, item) in cx.list(node, &path, 256).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(port) = port(cx, item, &path) else { continue };
        if !numbers.insert(port.number) {
            let message = format!("the number {} is used before", port.number);
            cx.report(&codes::DUPLICATE_PORT, item.pos, &path.key("number"), message);
        }
        if !names.insert(port.name.clone()) {
            let message = format!("the name `{}` is used before", quote(&port.name));
            cx.report(&codes::DUPLICATE_PORT, item.pos, &path.key("name"), message);
        }
        ports.push(port);
    }
    ports
}

fn port(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<ServicePort> {
    let object = cx.object(node, path, &["number", "name", "protocol", "targetPort"])?;
    let number = match object.get("number") {
        Some(node) => port_number(cx, node, &path.key("number"), 1),
        None => {
            cx.missing(object.pos, path, "number");
            None
        }
    };
    let name = match object.get("name") {
        Some(node) => port_name(cx, node, &path.key("name")),
        None => {
            cx.missing(object.pos, path, "name");
            None
        }
    };
    let protocol = match object.get("protocol") {
        Some(node) => protocol(cx, node, &path.key("protocol")),
        None => None,
    };
    // Zero is how Istio's API writes "not set".
    let target = object.get("targetPort").and_then(|node| port_number(cx, node, &path.key("targetPort"), 0));
    let (number, name) = (number?, name?);
    let protocol = protocol.unwrap_or_else(|| AppProtocol::from_port_name(&name));
    Some(ServicePort { number, name, protocol, target_port: target.filter(|port| *port > 0) })
}

fn port_number(cx: &mut Cx, node: &Node, path: &Path<'_>, min: u32) -> Option<u16> {
    cx.number(node, path, min, 65535).and_then(|number| u16::try_from(number).ok())
}

fn port_name(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<String> {
    let text = cx.value(node, path, 256)?;
    if !names::port_name(text) {
        cx.report(&codes::BAD_PORT_NAME, node.pos, path, format!("`{}` is not a port name", quote(text)));
        return None;
    }
    Some(text.to_owned())
}

fn protocol(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<AppProtocol> {
    let text = cx.text(node, path)?;
    if text.is_empty() {
        return None;
    }
    let protocol = AppProtocol::parse(text);
    if protocol.is_none() {
        if text.eq_ignore_ascii_case("udp") || text.eq_ignore_ascii_case("http_proxy") {
            cx.report(
                &unsupported::VALUE,
                node.pos,
                path,
                format!("the protocol `{}` is not supported yet", quote(text)),
            );
        } else {
            cx.report(&codes::BAD_PROTOCOL, node.pos, path, format!("unknown protocol `{}`", quote(text)));
        }
    }
    protocol
}

fn location(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) -> Option<Location> {
    let known = [("MESH_EXTERNAL", Location::External), ("MESH_INTERNAL", Location::Internal)];
    match spec.get("location") {
        Some(node) => cx.choice(node, &path.key("location"), &known),
        None => Some(Location::External),
    }
}

fn resolution(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) -> Option<Resolution> {
    let path = path.key("resolution");
    let known = [
        ("STATIC", Some(Resolution::Static)),
        ("NONE", None),
        ("DNS", None),
        ("DNS_ROUND_ROBIN", None),
        ("DYNAMIC_DNS", None),
    ];
    let (name, pos, known) = match spec.get("resolution") {
        Some(node) => (node.as_text().unwrap_or_default(), node.pos, cx.choice(node, &path, &known)?),
        None => ("NONE (the default)", spec.pos, None),
    };
    if known.is_none() {
        let fix = "write `resolution: STATIC`, and the endpoints by their addresses".to_owned();
        cx.report_fix(&unsupported::VALUE, pos, &path, format!("the resolution {name} is not supported yet"), fix);
    }
    known
}

fn endpoints(
    cx: &mut Cx,
    spec: &Object<'_>,
    path: &Path<'_>,
    meta: Option<&Meta>,
    ports: &[ServicePort],
) -> Vec<WorkloadEntry> {
    let Some(node) = spec.get("endpoints") else { return Vec::new() };
    let path = path.key("endpoints");
    let mut endpoints = Vec::new();
    for (index, item) in cx.list(node, &path, 4096).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let endpoint = workload::endpoint(cx, item, &path, meta);
        let names = endpoint.iter().flat_map(|endpoint| endpoint.ports.keys());
        for name in names.filter(|name| ports.iter().all(|port| port.name != **name)) {
            let message = format!("`{}` is not a port of this service", quote(name));
            cx.report(&codes::UNKNOWN_PORT_NAME, item.pos, &path.key("ports").key(name), message);
        }
        endpoints.extend(endpoint);
    }
    endpoints
}

fn workload_selector(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) -> Option<Selector> {
    let node = spec.get("workloadSelector")?;
    let path = path.key("workloadSelector");
    let object = cx.object(node, &path, &["labels"])?;
    let labels = match object.get("labels") {
        Some(labels) => selector::labels_of(cx, labels, &path.key("labels")),
        None => Selector::default(),
    };
    if labels.is_empty() {
        let message = "a selector without labels takes every workload of the namespace".to_owned();
        cx.report(&authorization::SELECTOR_EMPTY, node.pos, &path, message);
    }
    Some(labels)
}

/// Where endpoints come from, and that mesh workloads are not called in plaintext by an oversight.
fn sources(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>, location: Option<Location>, endpoints: &[WorkloadEntry]) {
    let selector = spec.entry("workloadSelector");
    match (spec.entry("endpoints"), selector) {
        (Some(_), Some(entry)) => {
            let message = "`workloadSelector` beside `endpoints`".to_owned();
            cx.report(&codes::ENDPOINTS_AND_SELECTOR, entry.pos, &path.key("workloadSelector"), message);
        }
        (None, None) => cx.report(&codes::NO_ENDPOINT_SOURCE, spec.pos, path, "no endpoints are written".to_owned()),
        _ => {}
    }
    let mesh = selector.is_some() || endpoints.iter().any(WorkloadEntry::mtls);
    if location == Some(Location::External) && mesh {
        let pos = spec.get("location").map_or(spec.pos, |node| node.pos);
        let message = "MESH_EXTERNAL (the default) with workloads of the mesh is not supported yet: Istio calls them in plaintext".to_owned();
        let fix = "write `location: MESH_INTERNAL`".to_owned();
        cx.report_fix(&unsupported::VALUE, pos, &path.key("location"), message, fix);
    }
}

/// `exportTo: ["*"]` is the default; anything else hides the service. `subjectAltNames` say who has to answer.
fn unsupported_fields(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) {
    if let Some(node) = spec.get("subjectAltNames") {
        let message =
            "`subjectAltNames` is not supported yet: the service accounts of the endpoints say who has to answer"
                .to_owned();
        cx.report(&unsupported::FIELD, node.pos, &path.key("subjectAltNames"), message);
    }
    let Some(node) = spec.get("exportTo") else { return };
    let path = path.key("exportTo");
    for (index, item) in cx.list(node, &path, usize::MAX).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        if cx.text(item, &path).is_some_and(|text| text != "*") {
            let message = "hiding a service from namespaces is not supported yet".to_owned();
            let fix = "write `*`, or remove the field".to_owned();
            cx.report_fix(&unsupported::VALUE, item.pos, &path, message, fix);
        }
    }
}
