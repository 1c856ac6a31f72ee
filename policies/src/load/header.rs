//! `apiVersion` and `kind`: which documents are ours, which are somebody else's, and which claim to be ours and are
//! not known.

use super::cursor::{Cx, Path, quote};
use crate::{
    PALISADE_GROUP,
    catalogue::shape,
    yaml::{Node, Value},
};

pub(super) const AUTHORIZATION_POLICY: &str = "AuthorizationPolicy";
pub(super) const PEER_AUTHENTICATION: &str = "PeerAuthentication";
pub(super) const WORKLOAD_ENTRY: &str = "WorkloadEntry";
const SERVICE_ENTRY: &str = "ServiceEntry";
pub(super) use crate::REGISTRATION_ENTRY;
pub(super) const REQUEST_AUTHENTICATION: &str = "RequestAuthentication";

const SECURITY: &str = "security.istio.io";
const NETWORKING: &str = "networking.istio.io";

const SECURITY_KINDS: &[&str] = &[AUTHORIZATION_POLICY, PEER_AUTHENTICATION, REQUEST_AUTHENTICATION];
const NETWORKING_KINDS: &[&str] = &[WORKLOAD_ENTRY, SERVICE_ENTRY];
const PALISADE_KINDS: &[&str] = &[REGISTRATION_ENTRY];

/// What a document is.
pub(super) enum Header {
    /// A resource of this kind.
    Ours(&'static str),
    /// A List of resources.
    List,
    /// A resource of another API group, or one that is not used here.
    Skipped,
    /// Reported.
    Refused,
}

/// Reads what a document is.
pub(super) fn read(cx: &mut Cx, root: &Node) -> Header {
    if !matches!(root.value, Value::Map(_)) {
        cx.wrong_type(root, &Path::Root, "a resource (a mapping)");
        return Header::Refused;
    }
    let version = text(cx, root, "apiVersion");
    let kind = text(cx, root, "kind");
    let (Some((version, version_node)), Some((kind, kind_node))) = (version, kind) else { return Header::Refused };
    let (group, number) = version.split_once('/').unwrap_or(("", version));
    let lists = kind == "List" || kind.strip_suffix("List").is_some_and(|kind| is_ours(kind) && is_known(group));
    match group {
        _ if lists => Header::List,
        SECURITY => {
            let known = version_known(cx, version_node, number, &["v1", "v1beta1"]);
            ours(cx, kind, kind_node, known, SECURITY_KINDS)
        }
        NETWORKING => networking(cx, kind, kind_node, version_node, number),
        PALISADE_GROUP => {
            let known = version_known(cx, version_node, number, &["v1"]);
            ours(cx, kind, kind_node, known, PALISADE_KINDS)
        }
        _ if group.split('.').any(|label| label == "palisade") => {
            unknown_kind(cx, kind, kind_node, &[]);
            Header::Refused
        }
        _ => Header::Skipped,
    }
}

fn is_ours(kind: &str) -> bool {
    [SECURITY_KINDS, NETWORKING_KINDS, PALISADE_KINDS].iter().any(|kinds| kinds.contains(&kind))
}

fn is_known(group: &str) -> bool {
    [SECURITY, NETWORKING, PALISADE_GROUP].contains(&group)
}

fn text<'n>(cx: &mut Cx, root: &'n Node, field: &str) -> Option<(&'n str, &'n Node)> {
    let Some(node) = root.peek(field) else {
        cx.missing(root.pos, &Path::Root, field);
        return None;
    };
    Some((cx.value(node, &Path::Root.key(field), 256)?, node))
}

fn version_known(cx: &mut Cx, node: &Node, number: &str, known: &[&str]) -> bool {
    let good = known.contains(&number);
    if !good {
        let message = format!("unknown version `{}`", quote(number));
        cx.report(&shape::UNKNOWN_VERSION, node.pos, &Path::Root.key("apiVersion"), message);
    }
    good
}

fn ours(cx: &mut Cx, kind: &str, node: &Node, version_known: bool, kinds: &'static [&'static str]) -> Header {
    match kinds.iter().find(|known| **known == kind) {
        Some(kind) if version_known => Header::Ours(kind),
        Some(_) => Header::Refused,
        None => {
            unknown_kind(cx, kind, node, kinds);
            Header::Refused
        }
    }
}

/// Other networking kinds shape traffic and are left to whoever reads them, with a word about it.
fn networking(cx: &mut Cx, kind: &str, node: &Node, version_node: &Node, number: &str) -> Header {
    match NETWORKING_KINDS.iter().find(|known| **known == kind) {
        Some(kind) if version_known(cx, version_node, number, &["v1", "v1beta1", "v1alpha3"]) => Header::Ours(kind),
        Some(_) => Header::Refused,
        None => {
            let message = format!("the kind `{}` is not used here", quote(kind));
            cx.report(&shape::SKIPPED_KIND, node.pos, &Path::Root.key("kind"), message);
            Header::Skipped
        }
    }
}

fn unknown_kind(cx: &mut Cx, kind: &str, node: &Node, known: &[&str]) {
    let fix = match cx.suggest(kind, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => shape::UNKNOWN_KIND.fix.to_owned(),
    };
    let message = format!("unknown kind `{}`", quote(kind));
    cx.report_fix(&shape::UNKNOWN_KIND, node.pos, &Path::Root.key("kind"), message, fix);
}
