//! AuthorizationPolicy: what holds for the whole policy. Source: Istio `ValidateAuthorizationPolicy`.

use super::{
    cursor::{Cx, Object, Path, quote},
    rules, selector,
};
use crate::{
    Action, AuthorizationPolicy, Meta,
    catalogue::authorization as codes,
    yaml::{Node, Value},
};

const FIELDS: &[&str] = &["selector", "targetRef", "targetRefs", "action", "provider", "rules"];

/// The annotation that makes a policy report instead of enforce.
const DRY_RUN: &str = "istio.io/dry-run";

/// Reads `spec` of the document `root`.
pub(crate) fn read(cx: &mut Cx, root: &Node, meta: Option<Meta>) -> Option<AuthorizationPolicy> {
    let path = Path::Root.key("spec");
    let empty = Node { pos: root.pos, end: root.end, value: Value::Map(Vec::new()) };
    let spec = cx.object(root.peek("spec").unwrap_or(&empty), &path, FIELDS)?;
    let selector = selector::selector(cx, &spec, &path);
    let target_refs = selector::target_refs(cx, &spec, &path);
    let action = action(cx, &spec, &path);
    let rules = rules(cx, &spec, &path, action.as_ref());
    let dry_run = dry_run(cx, root, action.as_ref());
    Some(AuthorizationPolicy { meta: meta?, selector, target_refs, action: action?, dry_run, rules: rules? })
}

fn action(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) -> Option<Action> {
    let provider = provider(cx, spec, path);
    let Some(node) = spec.get("action") else {
        provider_without_custom(cx, spec, path, "ALLOW");
        return Some(Action::Allow);
    };
    let known = [("ALLOW", 0), ("DENY", 1), ("AUDIT", 2), ("CUSTOM", 3)];
    let action = match cx.choice(node, &path.key("action"), &known)? {
        0 => Action::Allow,
        1 => Action::Deny,
        2 => Action::Audit,
        _ => {
            if spec.get("provider").is_none() && spec.get("rules").is_some() {
                let message = "`provider.name` is required for CUSTOM".to_owned();
                cx.report(&codes::PROVIDER_MISSING, node.pos, &path.key("provider"), message);
            }
            return Some(Action::Custom { provider: provider.unwrap_or_default() });
        }
    };
    provider_without_custom(cx, spec, path, action.as_str());
    Some(action)
}

fn provider(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>) -> Option<String> {
    let path = path.key("provider");
    let node = spec.get("provider")?;
    let object = cx.object(node, &path, &["name"])?;
    let Some(name) = object.get("name") else {
        cx.report(&codes::PROVIDER_MISSING, node.pos, &path.key("name"), "`provider.name` is missing".to_owned());
        return None;
    };
    let text = cx.text(name, &path.key("name"))?;
    if text.is_empty() {
        cx.report(&codes::PROVIDER_MISSING, name.pos, &path.key("name"), "`provider.name` is empty".to_owned());
        return None;
    }
    Some(text.to_owned())
}

fn provider_without_custom(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>, action: &str) {
    if let Some(entry) = spec.entry("provider") {
        let message = format!("`provider` beside the action {action}");
        cx.report(&codes::PROVIDER_WITHOUT_CUSTOM, entry.pos, &path.key("provider"), message);
    }
}

fn rules(cx: &mut Cx, spec: &Object<'_>, path: &Path<'_>, action: Option<&Action>) -> Option<Vec<crate::Rule>> {
    let path_rules = path.key("rules");
    let node = spec.get("rules");
    let items = match node {
        Some(node) => cx.list(node, &path_rules, 512)?,
        None => &[],
    };
    if items.is_empty()
        && let Some(action @ (Action::Deny | Action::Custom { .. })) = action
    {
        let pos = node.map_or(spec.pos, |node| node.pos);
        let message = format!("a {} policy without rules never matches", action.as_str());
        cx.report(&codes::NO_RULES, pos, &path_rules, message);
    }
    let rules = items.iter().enumerate().map(|(index, item)| rules::read(cx, item, &path_rules.index(index), action));
    // Every rule is read before one that failed drops the list.
    rules.collect::<Vec<_>>().into_iter().collect()
}

fn dry_run(cx: &mut Cx, root: &Node, action: Option<&Action>) -> bool {
    let Some(node) = annotation(root) else { return false };
    // A value that is no text has been reported with the annotations.
    let Some(text) = node.as_text() else { return false };
    let metadata = Path::Root.key("metadata");
    let annotations = metadata.key("annotations");
    let path = annotations.key(DRY_RUN);
    if matches!(action, Some(Action::Audit | Action::Custom { .. })) {
        cx.report(&codes::DRY_RUN_PLACE, node.pos, &path, "only ALLOW and DENY have a dry run".to_owned());
    }
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => {
            cx.report(&codes::DRY_RUN_VALUE, node.pos, &path, format!("`{}` is no boolean", quote(text)));
            false
        }
    }
}

fn annotation(root: &Node) -> Option<&Node> {
    root.peek("metadata")?.peek("annotations")?.peek(DRY_RUN)
}

/// Reports the annotation on a resource that has no dry run.
pub(crate) fn refuse_dry_run(cx: &mut Cx, root: &Node, kind: &str) {
    if let Some(node) = annotation(root) {
        let metadata = Path::Root.key("metadata");
        let annotations = metadata.key("annotations");
        let message = format!("a {kind} has no dry run");
        cx.report(&codes::DRY_RUN_PLACE, node.pos, &annotations.key(DRY_RUN), message);
    }
}
