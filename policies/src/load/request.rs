//! RequestAuthentication. Source: Istio `ValidateRequestAuthentication` and the schema of its CRD, which between them
//! an object has to pass.

mod uri;

use std::time::Duration;

use super::{
    cursor::{Cx, Object, Path, quote},
    duration, jwks, names, selector,
};
use crate::{
    ClaimToHeader, JwksSource, JwtRule, Meta, Origin, RequestAuthentication, TokenHeader,
    catalogue::request as codes,
    yaml::{Node, Value},
};

const FIELDS: &[&str] = &["selector", "targetRef", "targetRefs", "jwtRules"];

const RULE: &[&str] = &[
    "issuer",
    "audiences",
    "jwksUri",
    "jwks_uri",
    "jwks",
    "fromHeaders",
    "fromParams",
    "fromCookies",
    "outputPayloadToHeader",
    "outputClaimToHeaders",
    "forwardOriginalToken",
    "timeout",
    "spaceDelimitedClaims",
    "presence",
];

/// How many rules one resource may have, and how long a URI may be: the CRD's bounds.
const MAX_RULES: usize = 4096;
const MAX_URI: usize = 2048;

/// Reads `spec` of the document `root`.
pub(crate) fn read(cx: &mut Cx, root: &Node, meta: Option<Meta>) -> Option<RequestAuthentication> {
    let path = Path::Root.key("spec");
    let empty = Node { pos: root.pos, end: root.end, value: Value::Map(Vec::new()) };
    let spec = cx.object(root.peek("spec").unwrap_or(&empty), &path, FIELDS)?;
    let selector = selector::selector(cx, &spec, &path);
    let target_refs = selector::target_refs(cx, &spec, &path);
    let rules = match spec.get("jwtRules") {
        Some(node) => rules(cx, node, &path.key("jwtRules"))?,
        None => Vec::new(),
    };
    Some(RequestAuthentication { meta: meta?, selector, target_refs, rules })
}

fn rules(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<Vec<JwtRule>> {
    let items = cx.list(node, path, MAX_RULES)?;
    let rules = items.iter().enumerate().map(|(index, item)| rule(cx, item, &path.index(index)));
    // Every rule is read before one that failed drops the list.
    rules.collect::<Vec<_>>().into_iter().collect()
}

fn rule(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<JwtRule> {
    let object = cx.object(node, path, RULE)?;
    let issuer = optional_text(cx, &object, path, "issuer").unwrap_or_default();
    let jwks = source(cx, &object, path, &issuer);
    let audiences = values(cx, &object, path, "audiences", usize::MAX);
    let from_headers = headers(cx, &object, path);
    let from_params = values(cx, &object, path, "fromParams", usize::MAX);
    let from_cookies = values(cx, &object, path, "fromCookies", usize::MAX);
    let output_payload_to_header = payload_header(cx, &object, path);
    let output_claim_to_headers = claims(cx, &object, path);
    let forward = object.get("forwardOriginalToken");
    let forward = forward.and_then(|node| cx.boolean(node, &path.key("forwardOriginalToken")));
    let timeout = timeout(cx, &object, path).unwrap_or(JwtRule::DEFAULT_TIMEOUT);
    let space_delimited_claims = values(cx, &object, path, "spaceDelimitedClaims", 64);
    presence(cx, &object, path);
    Some(JwtRule {
        issuer,
        audiences,
        jwks,
        from_headers,
        from_params,
        from_cookies,
        output_payload_to_header,
        output_claim_to_headers,
        forward_original_token: forward.unwrap_or(false),
        timeout,
        space_delimited_claims,
        origin: Origin { file: cx.file.clone(), line: node.pos.line },
    })
}

fn optional_text(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>, field: &str) -> Option<String> {
    let node = object.get(field)?;
    cx.text(node, &path.key(field)).map(str::to_owned)
}

fn values(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>, field: &str, max: usize) -> Vec<String> {
    object.get(field).map_or_else(Vec::new, |node| cx.values(node, &path.key(field), max))
}

/// The one source of keys. An empty `jwks` counts as none, as in Istio.
fn source(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>, issuer: &str) -> JwksSource {
    let ways: Vec<_> = ["jwksUri", "jwks_uri", "jwks"].into_iter().filter_map(|name| object.entry(name)).collect();
    if let [first, second, ..] = ways.as_slice() {
        let message = format!("both `{}` and `{}` are set", first.key.text, second.key.text);
        cx.report(&codes::JWKS_TWICE, second.pos, &path.key(&second.key.text), message);
    }
    let uri = ways.iter().find(|entry| entry.key.text != "jwks");
    let nameless = object.get("issuer").is_none_or(|node| node.as_text() == Some(""));
    if nameless && uri.is_none() {
        let message = "neither `issuer` nor `jwksUri` is set".to_owned();
        cx.report(&codes::ISSUER_MISSING, object.pos, &path.key("issuer"), message);
    }
    let uri = uri.and_then(|entry| {
        let path = path.key(&entry.key.text);
        let text = cx.value(&entry.value, &path, MAX_URI)?;
        if let Err(message) = uri::check(text) {
            cx.report(&codes::BAD_JWKS_URI, entry.value.pos, &path, message);
        }
        Some(text.to_owned())
    });
    let inline = object.get("jwks").and_then(|node| {
        let path = path.key("jwks");
        let text = cx.text(node, &path).filter(|text| !text.is_empty())?;
        jwks::check(cx, text, node.pos, &path);
        Some(text.to_owned())
    });
    match (inline, uri) {
        (Some(inline), _) => JwksSource::Inline(inline),
        (None, Some(uri)) => JwksSource::Uri(uri),
        (None, None) => {
            discovery(cx, object, path, issuer);
            JwksSource::Discovery
        }
    }
}

/// Istio lets any issuer pass and then finds no keys.
fn discovery(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>, issuer: &str) {
    let asked = object.entry("jwksUri").or_else(|| object.entry("jwks_uri"));
    if let (Some(node), None, Err(_)) = (object.get("issuer"), asked, uri::check(issuer))
        && !issuer.is_empty()
    {
        let message = format!("the issuer `{}` is no URI", quote(issuer));
        cx.report(&codes::NO_DISCOVERY, node.pos, &path.key("issuer"), message);
    }
}

fn headers(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Vec<TokenHeader> {
    let Some(node) = object.get("fromHeaders") else { return Vec::new() };
    let path = path.key("fromHeaders");
    let mut headers = Vec::new();
    for (index, item) in cx.list(node, &path, usize::MAX).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(object) = cx.object(item, &path, &["name", "prefix"]) else { continue };
        let name = required(cx, &object, &path, "name");
        if let Some((name, node)) = name {
            header_name(cx, name, node, &path.key("name"));
        }
        let prefix = optional_text(cx, &object, &path, "prefix").unwrap_or_default();
        headers.extend(name.map(|(name, _)| TokenHeader { name: name.to_owned(), prefix }));
    }
    headers
}

fn required<'n>(cx: &mut Cx, object: &Object<'n>, path: &Path<'_>, field: &str) -> Option<(&'n str, &'n Node)> {
    let Some(node) = object.get(field) else {
        cx.missing(object.pos, path, field);
        return None;
    };
    Some((cx.value(node, &path.key(field), usize::MAX)?, node))
}

fn header_name(cx: &mut Cx, name: &str, node: &Node, path: &Path<'_>) {
    if !names::header_name(name) {
        let message = format!("`{}` is not the name of a header", quote(name));
        cx.report(&codes::BAD_HEADER_NAME, node.pos, path, message);
    }
}

fn payload_header(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Option<String> {
    let node = object.get("outputPayloadToHeader")?;
    let path = path.key("outputPayloadToHeader");
    let name = cx.text(node, &path).filter(|text| !text.is_empty())?;
    header_name(cx, name, node, &path);
    Some(name.to_owned())
}

fn claims(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Vec<ClaimToHeader> {
    let Some(node) = object.get("outputClaimToHeaders") else { return Vec::new() };
    let path = path.key("outputClaimToHeaders");
    let mut claims = Vec::new();
    for (index, item) in cx.list(node, &path, usize::MAX).unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        let Some(object) = cx.object(item, &path, &["header", "claim"]) else { continue };
        let header = required(cx, &object, &path, "header");
        let claim = required(cx, &object, &path, "claim");
        if let Some((name, node)) = header
            && !names::strict_header_name(name)
        {
            let message = format!("`{}` holds other characters than letters, digits, `-` and `_`", quote(name));
            cx.report(&codes::BAD_HEADER_NAME, node.pos, &path.key("header"), message);
        }
        if let (Some((header, _)), Some((claim, _))) = (header, claim) {
            claims.push(ClaimToHeader { header: header.to_owned(), claim: claim.to_owned() });
        }
    }
    claims
}

fn timeout(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) -> Option<Duration> {
    let node = object.get("timeout")?;
    let path = path.key("timeout");
    let text = cx.value(node, &path, usize::MAX)?;
    let message = match duration::parse(text) {
        None => format!("`{}` is no duration", quote(text)),
        Some(timeout) if timeout < Duration::from_millis(1) => "shorter than a millisecond".to_owned(),
        Some(timeout) if timeout.subsec_nanos() % 1_000_000 != 0 => "a part of a millisecond".to_owned(),
        Some(timeout) => return Some(timeout),
    };
    cx.report(&codes::BAD_TIMEOUT, node.pos, &path, message);
    None
}

/// In Istio's CRD and in nothing else of it.
fn presence(cx: &mut Cx, object: &Object<'_>, path: &Path<'_>) {
    let Some(node) = object.get("presence") else { return };
    let path = path.key("presence");
    if cx.choice(node, &path, &[("OPTIONAL", false), ("REQUIRED", true)]) == Some(true) {
        let message = "`REQUIRED` has no effect".to_owned();
        cx.report(&codes::PRESENCE_UNUSED, node.pos, &path, message);
    }
}
