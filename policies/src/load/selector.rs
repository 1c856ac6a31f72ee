//! How a policy says which workloads it concerns: a selector, or references to Gateway API resources.

use super::{
    cursor::{Cx, Object, Path, quote},
    metadata::{text_map, to_map},
};
use crate::{
    Selector, TargetRef,
    catalogue::{authorization as codes, shape},
    yaml::{Node, Pos},
};

/// `selector.matchLabels`.
pub(crate) fn selector(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) -> Option<Selector> {
    let node = spec.get("selector")?;
    let path = path.key("selector");
    let object = cx.object(node, &path, &["matchLabels"])?;
    let labels_path = path.key("matchLabels");
    let labels = match object.get("matchLabels") {
        Some(labels) => labels_of(cx, labels, &labels_path),
        None => Selector::default(),
    };
    if labels.is_empty() && object.get("matchLabels").is_none_or(is_empty_map) {
        cx.report(&codes::SELECTOR_EMPTY, node.pos, &path, "a selector without labels".to_owned());
    }
    Some(labels)
}

fn is_empty_map(node: &Node) -> bool {
    matches!(&node.value, crate::yaml::Value::Map(entries) if entries.is_empty())
}

/// The pairs of a selector, which are compared as they are.
pub(crate) fn labels_of(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Selector {
    let pairs = text_map(cx, node, path, 4096);
    for (key, value, node) in &pairs {
        let at = path.key(key);
        if key.is_empty() {
            cx.report(&codes::SELECTOR_KEY_EMPTY, node.pos, &at, "an empty label key".to_owned());
        }
        if key.contains('*') || value.contains('*') {
            let message = format!("`*` in `{}: {}`", quote(key), quote(value));
            cx.report(&codes::SELECTOR_WILDCARD, node.pos, &at, message);
        }
        if value.chars().count() > 63 {
            cx.report(&shape::TOO_LONG, node.pos, &at, "longer than 63 characters".to_owned());
        }
    }
    Selector::new(to_map(&pairs))
}

/// `targetRefs`, or the one `targetRef`; and that only one way of attaching is used.
pub(crate) fn target_refs(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) -> Vec<TargetRef> {
    let ways: Vec<_> = ["selector", "targetRef", "targetRefs"]
        .into_iter()
        .filter_map(|name| spec.entry(name))
        .filter(|entry| !matches!(&entry.value.value, crate::yaml::Value::Seq(items) if items.is_empty()))
        .collect();
    if let [first, second, ..] = ways.as_slice() {
        let message = format!("both `{}` and `{}` are set", first.key.text, second.key.text);
        cx.report(&codes::SELECTOR_AND_TARGET, second.pos, &path.key(&second.key.text), message);
    }
    if let Some(target) = ways.iter().find(|entry| entry.key.text != "selector") {
        let message = "it is attached to no sidecar".to_owned();
        cx.report(&codes::TARGET_UNUSED, target.pos, &path.key(&target.key.text), message);
    }
    let mut refs = Vec::new();
    if let Some(node) = spec.get("targetRef") {
        refs.extend(target_ref(cx, node, &path.key("targetRef")));
    }
    if let Some(node) = spec.get("targetRefs") {
        let path = path.key("targetRefs");
        for (index, node) in cx.list(node, &path, 16).unwrap_or_default().iter().enumerate() {
            refs.extend(target_ref(cx, node, &path.index(index)));
        }
    }
    refs
}

/// Group and kind of what a policy can be attached to.
const TARGETS: &[(&str, &str)] = &[
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

fn target_ref(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<TargetRef> {
    let object = cx.object(node, path, &["group", "kind", "name", "namespace"])?;
    let group = match object.get("group") {
        Some(node) => cx.text(node, &path.key("group"))?,
        None => "",
    };
    let group = if group == "core" { "" } else { group };
    let kind = required(cx, &object, path, "kind");
    let name = required(cx, &object, path, "name");
    if let Some(node) = object.get("namespace")
        && cx.text(node, &path.key("namespace")).is_some_and(|text| !text.is_empty())
    {
        let message = "a reference to another namespace is not possible".to_owned();
        cx.report(&codes::TARGET_NAMESPACE, node.pos, &path.key("namespace"), message);
    }
    let (kind, kind_pos) = kind?;
    if !TARGETS.contains(&(group, kind)) {
        let message = format!("`{}/{}` cannot be the target of a policy", quote(group), quote(kind));
        cx.report(&codes::TARGET_KIND, kind_pos, &path.key("kind"), message);
    }
    Some(TargetRef { group: group.to_owned(), kind: kind.to_owned(), name: name?.0.to_owned() })
}

fn required<'n>(cx: &mut Cx, object: &Object<'n>, path: &Path<'_>, field: &str) -> Option<(&'n str, Pos)> {
    let Some(node) = object.get(field) else {
        cx.missing(object.pos, path, field);
        return None;
    };
    Some((cx.value(node, &path.key(field), 253)?, node.pos))
}
