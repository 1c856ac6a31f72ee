//! WorkloadEntry, and the endpoints of a ServiceEntry, which have the same fields. Source: Istio
//! `validateWorkloadEntry`.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_identity::{SpiffeId, TrustDomain};

use super::{
    cursor::{Cx, Object, Path, quote},
    metadata::{check_labels, text_map, to_map},
    names,
};
use crate::{
    Meta, Origin, TLS_MODE_LABEL, WorkloadEntry,
    catalogue::{unsupported, workloads as codes},
    yaml::Node,
};

const FIELDS: &[&str] = &["address", "ports", "labels", "network", "locality", "weight", "serviceAccount"];

/// Reads `spec` of the document `root`.
pub(crate) fn read(cx: &mut Cx, root: &Node, meta: Option<Meta>) -> Option<WorkloadEntry> {
    let Some(node) = root.peek("spec") else {
        cx.missing(root.pos, &Path::Root, "spec");
        return None;
    };
    let entry = endpoint(cx, node, &Path::Root.key("spec"), meta.as_ref());
    Some(WorkloadEntry { meta: meta?, ..entry? })
}

/// Reads one endpoint; its name and namespace are those of `meta`, its line its own.
pub(crate) fn endpoint(cx: &mut Cx, node: &Node, path: &Path<'_>, meta: Option<&Meta>) -> Option<WorkloadEntry> {
    let object = cx.object(node, path, FIELDS)?;
    let ports = ports(cx, &object, path);
    let address = address(cx, &object, path);
    let labels = labels(cx, &object, path);
    unsupported_fields(cx, &object, path);
    let weight = object.get("weight").and_then(|node| cx.number(node, &path.key("weight"), 0, u32::MAX));
    let account = object.get("serviceAccount").and_then(|node| cx.text(node, &path.key("serviceAccount")));
    let account = account.filter(|text| !text.is_empty());
    check_account(cx, &object, path, account, meta);
    Some(WorkloadEntry {
        meta: endpoint_meta(cx, node, meta?),
        address: address?,
        ports,
        labels,
        service_account: account.unwrap_or("default").to_owned(),
        service_account_given: account.is_some(),
        weight: weight.unwrap_or(0),
    })
}

fn endpoint_meta(cx: &Cx, node: &Node, meta: &Meta) -> Meta {
    Meta { origin: Origin { file: cx.file.clone(), line: node.pos.line }, ..meta.clone() }
}

fn address(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Option<String> {
    let Some(node) = object.get("address") else {
        cx.missing(object.pos, path, "address");
        return None;
    };
    let ports_path = path.key("ports");
    let path = path.key("address");
    let text = cx.value(node, &path, 256)?;
    if text.parse::<IpAddr>().is_ok() {
        return Some(text.to_owned());
    }
    if text.starts_with("unix://") {
        if let Some(ports) = object.get("ports") {
            cx.report(&codes::UNIX_PORTS, ports.pos, &ports_path, "ports beside a Unix socket".to_owned());
        }
        let message = format!("the Unix socket address `{}` is not supported yet", quote(text));
        cx.report_fix(&unsupported::VALUE, node.pos, &path, message, "write an IP address".to_owned());
    } else if names::dns_name(text) && !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let message = format!("`{}` is a name, and names as addresses are not supported yet", quote(text));
        cx.report_fix(&unsupported::VALUE, node.pos, &path, message, "write an IP address".to_owned());
    } else {
        cx.report(&codes::BAD_ADDRESS, node.pos, &path, format!("`{}` is not an IP address", quote(text)));
    }
    None
}

fn ports(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> BTreeMap<String, u16> {
    let mut ports = BTreeMap::new();
    let Some(node) = object.get("ports") else { return ports };
    let path = path.key("ports");
    for entry in cx.entries(node, &path).unwrap_or_default() {
        let path = path.key(&entry.key.text);
        if !names::port_name(&entry.key.text) {
            let message = format!("`{}` is not a port name", quote(&entry.key.text));
            cx.report(&codes::BAD_PORT_NAME, entry.pos, &path, message);
        }
        let number = cx.number(&entry.value, &path, 1, 65535).and_then(|number| u16::try_from(number).ok());
        ports.extend(number.map(|number| (entry.key.text.clone(), number)));
    }
    ports
}

fn labels(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> BTreeMap<String, String> {
    let Some(node) = object.get("labels") else { return BTreeMap::new() };
    let path = path.key("labels");
    let pairs = text_map(cx, node, &path, 256);
    check_labels(cx, &pairs, &path);
    for (key, value, node) in &pairs {
        if *key == TLS_MODE_LABEL && !["istio", "disabled"].contains(value) {
            let message = format!("`{}` is neither `istio` nor `disabled`", quote(value));
            cx.report(&codes::BAD_TLS_MODE, node.pos, &path.key(key), message);
        }
    }
    to_map(&pairs)
}

/// `locality` orders endpoints by nearness and changes nothing about who may be reached; another network is reached
/// through a gateway, which is another connection.
fn unsupported_fields(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) {
    if let Some(node) = object.get("locality") {
        cx.text(node, &path.key("locality"));
    }
    if let Some(node) = object.get("network")
        && cx.text(node, &path.key("network")).is_some_and(|text| !text.is_empty())
    {
        let message = "`network` is not supported yet: no gateway to other networks is used".to_owned();
        cx.report(&unsupported::FIELD, node.pos, &path.key("network"), message);
    }
}

/// The account becomes part of the SPIFFE ID that callers verify.
fn check_account(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>, account: Option<&str>, meta: Option<&Meta>) {
    let (Some(account), Some(node)) = (account, object.get("serviceAccount")) else { return };
    let Ok(domain) = TrustDomain::parse("cluster.local") else { return };
    let namespace = meta.map_or("default", |meta| meta.namespace.as_str());
    if account.contains('/') || SpiffeId::workload(&domain, namespace, account).is_err() {
        let message = format!("`{}` is not the name of a service account", quote(account));
        cx.report(&codes::BAD_ACCOUNT_NAME, node.pos, &path.key("serviceAccount"), message);
    }
}
