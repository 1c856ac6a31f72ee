//! RegistrationEntry, a resource of our own.

use std::time::Duration;

use palisade_identity::{SpiffeId, TrustDomain};

use super::cursor::{Cx, Object, Path, quote};
use crate::{
    Meta, RegistrationEntry,
    catalogue::{registration as codes, unsupported},
    registration::{
        MAX_REGISTRATION_ITEMS, MAX_REGISTRATION_TEXT, registration_dns_name, registration_id, registration_selector,
        registration_ttl,
    },
    yaml::Node,
};

const FIELDS: &[&str] =
    &["spiffeId", "parentId", "selectors", "x509TTL", "jwtTTL", "dnsNames", "federatesWith", "hint"];

/// Fields of SPIRE's entries that give more than an identity, or are not carried.
const OTHERS: &[&str] = &["admin", "downstream", "storeSvid", "expiry"];

/// Reads `spec` of the document `root`.
pub(crate) fn read(cx: &mut Cx, root: &Node, meta: Option<Meta>) -> Option<RegistrationEntry> {
    let Some(node) = root.peek("spec") else {
        cx.missing(root.pos, &Path::Root, "spec");
        return None;
    };
    let path = Path::Root.key("spec");
    let known: Vec<&str> = FIELDS.iter().chain(OTHERS).copied().collect();
    let object = cx.object(node, &path, &known)?;
    for entry in object.entries.iter().filter(|entry| OTHERS.contains(&entry.key.text.as_str())) {
        let message = format!("`{}` is not supported for a RegistrationEntry", entry.key.text);
        cx.report(&unsupported::FIELD, entry.pos, &path.key(&entry.key.text), message);
    }
    let spiffe_id = id(cx, &object, &path, "spiffeId");
    if object.get("spiffeId").is_none() {
        cx.missing(object.pos, &path, "spiffeId");
    }
    let parent_id = id(cx, &object, &path, "parentId");
    let selectors = selectors(cx, &object, &path);
    if let (None, Some(node)) = (object.get("parentId"), object.get("selectors"))
        && let Some(local) = selectors.iter().find(|text| text.starts_with("unix:") || text.starts_with("systemd:"))
    {
        let message = format!("without a `parentId` nobody can ever have `{}`", quote(local));
        cx.report(&codes::NO_AGENT, node.pos, &path.key("selectors"), message);
    }
    let (x509_ttl, jwt_ttl) = (ttl(cx, &object, &path, "x509TTL"), ttl(cx, &object, &path, "jwtTTL"));
    let (dns_names, federates_with) = (dns_names(cx, &object, &path), federates_with(cx, &object, &path));
    let hint = object.get("hint").and_then(|node| cx.value(node, &path.key("hint"), MAX_REGISTRATION_TEXT));
    Some(RegistrationEntry {
        meta: meta?,
        spiffe_id: spiffe_id?,
        parent_id,
        selectors,
        x509_ttl,
        jwt_ttl,
        dns_names,
        federates_with,
        hint: hint.unwrap_or_default().to_owned(),
    })
}

fn id(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>, field: &str) -> Option<SpiffeId> {
    let (node, path) = (object.get(field)?, path.key(field));
    let text = cx.value(node, &path, usize::MAX)?;
    let id = registration_id(text);
    if let Err(wrong) = &id {
        cx.report(&codes::BAD_ID, node.pos, &path, format!("`{}` {wrong}", quote(text)));
    }
    id.ok()
}

fn selectors(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Vec<String> {
    let Some(node) = object.get("selectors") else {
        cx.missing(object.pos, path, "selectors");
        return Vec::new();
    };
    let path = path.key("selectors");
    let Some(items) = cx.list(node, &path, MAX_REGISTRATION_ITEMS) else { return Vec::new() };
    if items.is_empty() {
        cx.report(&codes::NO_SELECTORS, node.pos, &path, "no selector is written".to_owned());
    }
    let mut selectors = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        let Some(text) = cx.value(item, &path, MAX_REGISTRATION_TEXT) else { continue };
        if let Err(wrong) = registration_selector(text) {
            cx.report(&codes::BAD_SELECTOR, item.pos, &path, format!("`{}` {wrong}", quote(text)));
        }
        selectors.push(text.to_owned());
    }
    selectors.sort_unstable();
    selectors.dedup();
    selectors
}

fn ttl(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>, field: &str) -> Option<Duration> {
    let (node, path) = (object.get(field)?, path.key(field));
    let text = cx.value(node, &path, 64)?;
    let ttl = registration_ttl(text);
    if let Err(wrong) = &ttl {
        cx.report(&codes::BAD_TTL, node.pos, &path, format!("`{}` {wrong}", quote(text)));
    }
    ttl.ok()
}

fn dns_names(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Vec<String> {
    let Some(node) = object.get("dnsNames") else { return Vec::new() };
    let path = path.key("dnsNames");
    let mut names = Vec::new();
    for (index, item) in cx.list(node, &path, MAX_REGISTRATION_ITEMS).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(text) = cx.value(item, &path, usize::MAX) else { continue };
        match registration_dns_name(text) {
            Ok(name) => names.push(name),
            Err(wrong) => cx.report(&codes::BAD_NAME, item.pos, &path, format!("`{}` {wrong}", quote(text))),
        }
    }
    names
}

/// Names of trust domains, or their IDs (`spiffe://other.example`), as SPIRE has them.
fn federates_with(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Vec<TrustDomain> {
    let Some(node) = object.get("federatesWith") else { return Vec::new() };
    let path = path.key("federatesWith");
    let mut domains = Vec::new();
    for (index, item) in cx.list(node, &path, MAX_REGISTRATION_ITEMS).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(text) = cx.value(item, &path, usize::MAX) else { continue };
        match TrustDomain::parse(text.strip_prefix("spiffe://").unwrap_or(text)) {
            Ok(domain) => domains.push(domain),
            Err(error) => {
                let message = format!("`{}` is not a trust domain: {error}", quote(text));
                cx.report(&codes::BAD_DOMAIN, item.pos, &path, message);
            }
        }
    }
    domains
}
