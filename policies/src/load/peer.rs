//! PeerAuthentication. Source: Istio `ValidatePeerAuthentication`.

use std::collections::BTreeMap;

use super::{
    cursor::{Cx, Object, Path, quote},
    selector,
};
use crate::{
    Meta, MtlsMode, PeerAuthentication, Selector,
    catalogue::{peer as codes, unsupported},
    yaml::{Node, Value},
};

const FIELDS: &[&str] = &["selector", "mtls", "portLevelMtls"];

/// Fields that other policies have and this one does not: somebody wants what is not there.
const REFERENCES: &[&str] = &["targetRef", "targetRefs"];

/// Reads `spec` of the document `root`.
pub(crate) fn read(cx: &mut Cx, root: &Node, meta: Option<Meta>) -> Option<PeerAuthentication> {
    let path = Path::Root.key("spec");
    let empty = Node { pos: root.pos, end: root.end, value: Value::Map(Vec::new()) };
    let node = root.peek("spec").unwrap_or(&empty);
    let spec = Object { entries: cx.entries(node, &path)?, pos: node.pos };
    for entry in spec.entries {
        let key = entry.key.text.as_str();
        if REFERENCES.contains(&key) {
            let message = format!("`{key}` is not supported for a PeerAuthentication");
            cx.report(&unsupported::FIELD, entry.pos, &path.key(key), message);
        } else if !FIELDS.contains(&key) {
            cx.unknown_field(entry, &path, FIELDS);
        }
    }
    let selector = selector::selector(cx, &spec, &path);
    let mode = spec.get("mtls").and_then(|node| mode(cx, node, &path.key("mtls")));
    let port_level = port_level(cx, &spec, &path, selector.as_ref());
    Some(PeerAuthentication { meta: meta?, selector, mode, port_level })
}

fn mode(cx: &mut Cx, node: &Node, path: &Path<'_>) -> Option<MtlsMode> {
    let object = cx.object(node, path, &["mode"])?;
    let known = [
        ("UNSET", None),
        ("DISABLE", Some(MtlsMode::Disable)),
        ("PERMISSIVE", Some(MtlsMode::Permissive)),
        ("STRICT", Some(MtlsMode::Strict)),
    ];
    cx.choice(object.get("mode")?, &path.key("mode"), &known)?
}

fn port_level(
    cx: &mut Cx,
    spec: &Object<'_>,
    path: &Path<'_>,
    selector: Option<&Selector>,
) -> BTreeMap<u16, Option<MtlsMode>> {
    let mut modes = BTreeMap::new();
    let Some(entry) = spec.entry("portLevelMtls") else { return modes };
    let path = path.key("portLevelMtls");
    let Some(ports) = cx.entries(&entry.value, &path) else { return modes };
    if ports.is_empty() {
        cx.report(&codes::PORTS_EMPTY, entry.value.pos, &path, "no port is written".to_owned());
    } else if selector.is_none_or(Selector::is_empty) {
        let message = "port modes in a policy for a whole namespace or mesh".to_owned();
        cx.report(&codes::PORTS_WITHOUT_SELECTOR, entry.pos, &path, message);
    }
    for port in ports {
        let path = path.key(&port.key.text);
        let mode = mode(cx, &port.value, &path);
        let digits = port.key.text.bytes().all(|byte| byte.is_ascii_digit());
        match port.key.text.parse::<u16>() {
            Ok(number) if number > 0 && digits => {
                modes.insert(number, mode);
            }
            _ => {
                let message = format!("`{}` is not a port from 1 to 65535", quote(&port.key.text));
                cx.report(&codes::BAD_PORT_KEY, port.pos, &path, message);
            }
        }
    }
    modes
}
