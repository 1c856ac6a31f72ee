//! The rules of an AuthorizationPolicy: sources, operations and conditions with all their lists.

use super::{
    cursor::{Cx, Path, quote},
    values::{self, Form},
};
use crate::{
    Action, Condition, Operation, Origin, Rule, Source,
    catalogue::{Explanation, authorization as codes},
    yaml::{Node, Value},
};

/// One list of a source or operation.
struct List<T> {
    name: &'static str,
    form: Form,
    /// Whether the list still counts on a TCP port.
    tcp: bool,
    /// Whether a CUSTOM policy may use it.
    custom: bool,
    of: fn(&mut T) -> &mut Vec<String>,
}

/// A list and its negation.
macro_rules! lists {
    ($($name:literal $field:ident, $not:literal $not_field:ident: $form:ident tcp $tcp:literal custom $custom:literal;)*) => {
        &[$(
            List { name: $name, form: Form::$form, tcp: $tcp, custom: $custom, of: |of| &mut of.$field },
            List { name: $not, form: Form::$form, tcp: $tcp, custom: $custom, of: |of| &mut of.$not_field },
        )*]
    };
}

const SOURCE: &[List<Source>] = lists! {
    "principals" principals, "notPrincipals" not_principals: Any tcp true custom false;
    "requestPrincipals" request_principals, "notRequestPrincipals" not_request_principals: Any tcp false custom false;
    "namespaces" namespaces, "notNamespaces" not_namespaces: Any tcp true custom false;
    "serviceAccounts" service_accounts, "notServiceAccounts" not_service_accounts: Account tcp true custom false;
    "trustDomains" trust_domains, "notTrustDomains" not_trust_domains: TrustDomain tcp true custom false;
    "ipBlocks" ip_blocks, "notIpBlocks" not_ip_blocks: Ip tcp true custom true;
    "remoteIpBlocks" remote_ip_blocks, "notRemoteIpBlocks" not_remote_ip_blocks: Ip tcp true custom true;
};

const OPERATION: &[List<Operation>] = lists! {
    "hosts" hosts, "notHosts" not_hosts: Any tcp false custom true;
    "ports" ports, "notPorts" not_ports: Port tcp true custom true;
    "methods" methods, "notMethods" not_methods: Any tcp false custom true;
    "paths" paths, "notPaths" not_paths: Path tcp false custom true;
};

/// What of a rule is left on a TCP port.
#[derive(Default)]
struct Tcp {
    sources: usize,
    source_fields: bool,
    operations: usize,
    operation_without: bool,
}

/// Reads one rule.
pub(crate) fn read(cx: &mut Cx, node: &Node, path: &Path<'_>, action: Option<&Action>) -> Option<Rule> {
    let object = cx.object(node, path, &["from", "to", "when"])?;
    let custom = matches!(action, Some(Action::Custom { .. }));
    let mut tcp = Tcp::default();
    let from = match object.get("from") {
        Some(node) => sources(cx, node, &path.key("from"), custom, &mut tcp),
        None => Vec::new(),
    };
    let to = match object.get("to") {
        Some(node) => operations(cx, node, &path.key("to"), custom, &mut tcp),
        None => Vec::new(),
    };
    let when = match object.get("when") {
        Some(node) => conditions(cx, node, &path.key("when"), custom),
        None => Vec::new(),
    };
    let widens = match tcp.operations {
        0 => tcp.sources > 0 && !tcp.source_fields,
        _ => tcp.operation_without,
    };
    if widens && action == Some(&Action::Deny) {
        let message = "on a TCP port this rule denies every connection, its HTTP fields being dropped".to_owned();
        cx.report(&codes::DENY_WIDENS, node.pos, path, message);
    }
    Some(Rule { from, to, when, origin: Origin { file: cx.file.clone(), line: node.pos.line } })
}

fn sources(cx: &mut Cx, node: &Node, path: &Path<'_>, custom: bool, tcp: &mut Tcp) -> Vec<Source> {
    let items = alternatives(cx, node, path, 512);
    // A list that grows takes room for four, and most have one entry: that would be most of what a rule costs.
    let mut sources = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        if let Some((source, on_tcp)) = alternative(cx, item, &path, "source", SOURCE, custom) {
            tcp.sources += 1;
            tcp.source_fields |= on_tcp;
            accounts_alone(cx, item, &path);
            sources.push(source);
        }
    }
    sources
}

fn operations(cx: &mut Cx, node: &Node, path: &Path<'_>, custom: bool, tcp: &mut Tcp) -> Vec<Operation> {
    let items = alternatives(cx, node, path, usize::MAX);
    let mut operations = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        if let Some((operation, on_tcp)) = alternative(cx, item, &path, "operation", OPERATION, custom) {
            tcp.operations += 1;
            tcp.operation_without |= !on_tcp;
            operations.push(operation);
        }
    }
    operations
}

/// The entries of `from` or `to`, of which there has to be one.
fn alternatives<'n>(cx: &mut Cx, node: &'n Node, path: &Path<'_>, max: usize) -> &'n [Node] {
    let Some(items) = cx.list(node, path, max) else { return &[] };
    if items.is_empty() {
        cx.report(&codes::EMPTY_ALTERNATIVES, node.pos, path, "an empty list".to_owned());
    }
    items
}

/// One entry of `from` or `to`: the one field `wrapper` with its lists; and whether a list counts on a TCP port.
fn alternative<T: Default>(
    cx: &mut Cx,
    node: &Node,
    path: &Path<'_>,
    wrapper: &str,
    lists: &[List<T>],
    custom: bool,
) -> Option<(T, bool)> {
    let outer = cx.object(node, path, &[wrapper])?;
    let path = path.key(wrapper);
    let Some(inner) = outer.get(wrapper) else {
        let message = format!("`{wrapper}` is missing");
        cx.report(&codes::EMPTY_ALTERNATIVE, node.pos, &path, message);
        return None;
    };
    let names: Vec<&str> = lists.iter().map(|list| list.name).collect();
    let object = cx.object(inner, &path, &names)?;
    let (mut read, mut any, mut tcp) = (T::default(), false, false);
    for list in lists {
        let Some(node) = object.get(list.name) else { continue };
        let path = path.key(list.name);
        if custom && !list.custom && !is_empty_list(node) {
            let message = format!("`{}` in a CUSTOM policy", list.name);
            cx.report(&codes::CUSTOM_FIELD, node.pos, &path, message);
        }
        let values = texts(cx, node, &path, list.form);
        any |= !values.is_empty() || !is_empty_list(node);
        tcp |= list.tcp;
        *(list.of)(&mut read) = values;
    }
    let unknown = object.entries.iter().any(|entry| !names.contains(&entry.key.text.as_str()));
    if !any && !unknown {
        cx.report(&codes::EMPTY_ALTERNATIVE, inner.pos, &path, format!("an empty {wrapper}"));
    }
    Some((read, tcp))
}

/// The values of one list, each of the form that the list takes.
fn texts(cx: &mut Cx, node: &Node, path: &Path<'_>, form: Form) -> Vec<String> {
    let Some(items) = cx.list(node, path, form.max_items()) else { return Vec::new() };
    if items.is_empty() {
        cx.report(&codes::EMPTY_LIST, node.pos, path, "an empty list puts no constraint".to_owned());
    }
    let mut values = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        let Some(text) = cx.value(item, &path, usize::MAX) else { continue };
        if let Err((code, message)) = form.check(text) {
            cx.report(code, item.pos, &path, format!("`{}`: {message}", quote(text)));
        }
        values.push(text.to_owned());
    }
    values
}

/// `serviceAccounts` stand alone.
fn accounts_alone(cx: &mut Cx, item: &Node, path: &Path<'_>) {
    let Some(source) = item.peek("source") else { return };
    let first = |names: [&'static str; 2]| names.into_iter().find(|name| filled(source.peek(name)));
    let accounts = first(["serviceAccounts", "notServiceAccounts"]);
    let others = first(["principals", "notPrincipals"]).or_else(|| first(["namespaces", "notNamespaces"]));
    if let (Some(accounts), Some(other)) = (accounts, others)
        && let Some(node) = source.peek(accounts)
    {
        let message = format!("`{accounts}` beside `{other}`");
        cx.report(&codes::ACCOUNTS_MIXED, node.pos, &path.key("source").key(accounts), message);
    }
}

fn filled(node: Option<&Node>) -> bool {
    node.is_some_and(|node| !is_empty_list(node))
}

fn conditions(cx: &mut Cx, node: &Node, path: &Path<'_>, custom: bool) -> Vec<Condition> {
    let items = cx.list(node, path, usize::MAX).unwrap_or_default();
    let mut conditions = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        conditions.extend(condition(cx, item, &path.index(index), custom));
    }
    conditions
}

fn condition(cx: &mut Cx, node: &Node, path: &Path<'_>, custom: bool) -> Option<Condition> {
    let object = cx.object(node, path, &["key", "values", "notValues"])?;
    let key = match object.get("key") {
        Some(node) => cx.value(node, &path.key("key"), usize::MAX).map(|text| (text, node)),
        None => {
            cx.missing(node.pos, path, "key");
            None
        }
    };
    let form = key.and_then(|(text, node)| condition_form(cx, text, node, &path.key("key"), custom));
    let mut list = |field: &str| match object.get(field) {
        Some(node) => texts(cx, node, &path.key(field), form.unwrap_or(Form::Any)),
        None => Vec::new(),
    };
    let (values, not_values) = (list("values"), list("notValues"));
    if !filled(object.get("values")) && !filled(object.get("notValues")) {
        cx.report(&codes::NO_VALUES, node.pos, path, "neither `values` nor `notValues`".to_owned());
    }
    Some(Condition { key: key?.0.to_owned(), values, not_values })
}

fn condition_form(cx: &mut Cx, key: &str, node: &Node, path: &Path<'_>, custom: bool) -> Option<Form> {
    let identity = ["source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"];
    if custom && (identity.contains(&key) || key.starts_with("request.auth.")) {
        let message = format!("the key `{}` in a CUSTOM policy", quote(key));
        cx.report(&codes::CUSTOM_FIELD, node.pos, path, message);
    }
    match values::condition_key(key) {
        Ok(form) => Some(form),
        Err((code, message)) => {
            let fix = unknown_key_fix(cx, code, key);
            cx.report_fix(code, node.pos, path, message, fix);
            None
        }
    }
}

fn unknown_key_fix(cx: &Cx, code: &'static Explanation, key: &str) -> String {
    let (name, brackets) = key.split_at(key.find('[').unwrap_or(key.len()));
    if code.code == codes::BAD_KEY.code
        && !key.starts_with("destination.labels")
        && let Some(meant) = cx.suggest(name, values::key_names())
    {
        let brackets = if values::takes_name(meant) { quote(brackets) } else { String::new() };
        return format!("did you mean `{meant}{brackets}`?");
    }
    code.fix.to_owned()
}

fn is_empty_list(node: &Node) -> bool {
    matches!(&node.value, Value::Seq(items) if items.is_empty())
}
