//! `metadata`, and the labels that resources and workloads carry.

use std::collections::BTreeMap;

use super::{
    cursor::{Cx, Path, quote},
    names,
};
use crate::{
    Meta, Origin,
    catalogue::shape,
    yaml::{Kind, Node, Value},
};

/// Kubernetes' object metadata; what is not read here changes nothing.
const FIELDS: &[&str] = &[
    "name",
    "namespace",
    "labels",
    "annotations",
    "creationTimestamp",
    "generateName",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// Reads `metadata` of the document `root`.
pub(crate) fn read(cx: &mut Cx, root: &Node, default_namespace: &str) -> Option<Meta> {
    let path = Path::Root.key("metadata");
    let Some(node) = root.peek("metadata") else {
        cx.missing(root.pos, &Path::Root, "metadata");
        return None;
    };
    let object = cx.object(node, &path, FIELDS)?;
    let name = match object.get("name") {
        Some(node) => name(cx, node, &path.key("name")),
        None => {
            cx.missing(object.pos, &path, "name");
            None
        }
    };
    let namespace = match object.get("namespace") {
        Some(node) if !node.is_null() && node.as_text() != Some("") => namespace(cx, node, &path.key("namespace")),
        _ => Some(default_namespace.to_owned()),
    };
    let mut pairs = |field: &str| match object.get(field) {
        Some(node) if !node.is_null() => text_map(cx, node, &path.key(field), usize::MAX),
        _ => Vec::new(),
    };
    let (labels, annotations) = (pairs("labels"), pairs("annotations"));
    check_labels(cx, &labels, &path.key("labels"));
    let created = object.get("creationTimestamp").and_then(|node| timestamp(cx, node, &path.key("creationTimestamp")));
    Some(Meta {
        name: name?,
        namespace: namespace?,
        labels: to_map(&labels),
        annotations: to_map(&annotations),
        created,
        origin: Origin { file: cx.file.clone(), line: root.pos.line },
    })
}

fn name(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<String> {
    let text = cx.value(node, path, usize::MAX)?;
    if !names::dns_subdomain(text) {
        let message = format!("`{}` is not a valid name", quote(text));
        cx.report(&shape::BAD_NAME, node.pos, path, message);
        return None;
    }
    Some(text.to_owned())
}

fn namespace(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<String> {
    let text = cx.text(node, path)?;
    if !names::dns_label(text) {
        let message = format!("`{}` is not a valid namespace", quote(text));
        cx.report(&shape::BAD_NAMESPACE, node.pos, path, message);
        return None;
    }
    Some(text.to_owned())
}

/// RFC 3339 in UTC with whole seconds, as Kubernetes writes it: only such texts sort by time.
fn timestamp(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<String> {
    let text = match &node.value {
        Value::Scalar(scalar) if scalar.kind == Kind::Null => return None,
        _ => cx.text(node, path)?,
    };
    if !is_timestamp(text) {
        let message = format!("`{}` is not a time in UTC with whole seconds", quote(text));
        cx.report(&shape::BAD_TIMESTAMP, node.pos, path, message);
        return None;
    }
    Some(text.to_owned())
}

fn is_timestamp(text: &str) -> bool {
    let shape = "0000-00-00T00:00:00Z";
    let fits = |(byte, pattern): (u8, u8)| if pattern == b'0' { byte.is_ascii_digit() } else { byte == pattern };
    let part = |range| text.get(range).and_then(|part: &str| part.parse::<u8>().ok()).unwrap_or(u8::MAX);
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(fits)
        && (1..=12).contains(&part(5..7))
        && (1..=31).contains(&part(8..10))
        && part(11..13) < 24
        && part(14..16) < 60
        && part(17..19) < 60
}

/// A pair of texts and where the value stands.
pub(crate) type Pair<'n> = (&'n str, &'n str, &'n Node);

/// A mapping from text to text.
pub(crate) fn text_map<'n>(cx: &mut Cx, node: &'n Node, path: &Path<'_>, max: usize) -> Vec<Pair<'n>> {
    let Some(entries) = cx.entries(node, path) else { return Vec::new() };
    if entries.len() > max {
        let message = format!("{} entries, at most {max} are allowed", entries.len());
        cx.report(&shape::TOO_MANY_ITEMS, node.pos, path, message);
        return Vec::new();
    }
    let pair = |entry: &'n crate::yaml::Entry| {
        let value = cx.text(&entry.value, &path.key(&entry.key.text))?;
        Some((entry.key.text.as_str(), value, &entry.value))
    };
    entries.iter().filter_map(pair).collect()
}

/// Reports labels that Kubernetes would refuse.
pub(crate) fn check_labels(cx: &mut Cx, labels: &[Pair<'_>], path: &Path<'_>) {
    for (key, value, node) in labels {
        let message = match (names::label_key(key), names::label_value(value)) {
            (true, true) => continue,
            (false, _) => format!("`{}` is not a valid label key", quote(key)),
            (true, false) => format!("`{}` is not a valid label value", quote(value)),
        };
        cx.report(&shape::BAD_LABEL, node.pos, &path.key(key), message);
    }
}

pub(crate) fn to_map(pairs: &[Pair<'_>]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value, _)| ((*key).to_owned(), (*value).to_owned())).collect()
}
