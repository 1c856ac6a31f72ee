//! One value of a policy as Envoy's matcher.

use std::net::IpAddr;

use serde_json::{Value, json};

/// What has no matcher: the value is no address, or the field needs HTTP where there is none.
#[derive(Debug)]
pub(super) struct Unfit;

/// The text form that most fields share: `*`, `*suffix`, `prefix*`, exact.
pub(super) fn text(value: &str) -> Value {
    prefixed(value, "")
}

/// The same with something that stands before every value.
pub(super) fn prefixed(value: &str, lead: &str) -> Value {
    if value == "*" {
        return regex(".+");
    }
    if let Some(suffix) = value.strip_prefix('*') {
        return if lead.is_empty() {
            json!({ "suffix": suffix })
        } else {
            regex(&format!("{lead}.*{}", quoted(suffix)))
        };
    }
    match value.strip_suffix('*') {
        Some(prefix) => json!({ "prefix": format!("{lead}{prefix}") }),
        None => json!({ "exact": format!("{lead}{value}") }),
    }
}

pub(super) fn regex(pattern: &str) -> Value {
    json!({ "safeRegex": { "regex": pattern } })
}

/// A header and its value; `*` asks for the header alone.
pub(super) fn header(name: &str, value: &str, ignore_case: bool) -> Value {
    if value == "*" {
        return json!({ "name": name, "presentMatch": true });
    }
    let mut matcher = match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(suffix), _) => json!({ "suffix": suffix }),
        (None, Some(prefix)) => json!({ "prefix": prefix }),
        (None, None) => json!({ "exact": value }),
    };
    if ignore_case {
        matcher["ignoreCase"] = Value::Bool(true);
    }
    json!({ "name": name, "stringMatch": matcher })
}

/// A path, or a path template.
pub(super) fn path(value: &str) -> Value {
    if !value.contains("{*}") && !value.contains("{**}") {
        return json!({ "urlPath": { "path": text(value) } });
    }
    json!({ "uriTemplate": { "name": "uri-template", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
        "pathTemplate": value.replace("{**}", "**").replace("{*}", "*"),
    } } })
}

/// An address or a prefix; `None` for anything else.
#[must_use]
pub fn cidr(value: &str) -> Option<Value> {
    let (address, length) = match value.split_once('/') {
        // Go's parser of prefixes takes no zone and no length with a leading zero.
        Some((address, length)) => {
            let plain = length.bytes().all(|byte| byte.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
            (address, Some(length.parse::<u8>().ok().filter(|_| plain)?))
        }
        None => (value, None),
    };
    let zone = address.split_once('%').filter(|(ip, zone)| length.is_none() && ip.contains(':') && !zone.is_empty());
    let bare = zone.map_or(address, |(ip, _)| ip);
    let parsed: IpAddr = bare.parse().ok()?;
    let most = if parsed.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(most);
    (length <= most).then(|| json!({ "addressPrefix": address, "prefixLen": length }))
}

/// A decimal port.
pub(super) fn port(value: &str) -> Result<u16, Unfit> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or(Unfit)
}

/// The namespaces of the peers: `*` anywhere.
pub(super) fn namespace(value: &str) -> Value {
    let parts: Vec<String> = value.split('*').map(quoted).collect();
    regex(&format!(".*/ns/{}/.*", parts.join(".*")))
}

/// A service account, in the policy's own namespace if it names none.
pub(super) fn service_account(value: &str, own: &str) -> Value {
    let (namespace, account) = value.split_once('/').unwrap_or((own, value));
    regex(&format!("spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?", quoted(namespace), quoted(account)))
}

/// A trust domain.
pub(super) fn trust_domain(value: &str) -> Value {
    match value.split_once('*') {
        _ if value == "*" => json!({ "prefix": "spiffe://" }),
        None => json!({ "prefix": format!("spiffe://{value}/") }),
        Some((before, after)) => regex(&format!("spiffe://{}[^/]*{}/.*", quoted(before), quoted(after))),
    }
}

/// `issuer/subject`: the two claims by themselves.
pub(super) fn request_principal(value: &str) -> (Value, Value) {
    let exact = |text: &str| json!({ "exact": text });
    let present = || regex(".+");
    let split = value.rsplit_once('/');
    let (issuer, subject) = split.unwrap_or((value, ""));
    if value == "*" {
        return (present(), present());
    }
    if let Some(rest) = value.strip_prefix('*') {
        let Some((_, subject)) = split else { return (present(), json!({ "suffix": rest })) };
        let issuer =
            if issuer == "*" { present() } else { json!({ "suffix": issuer.strip_prefix('*').unwrap_or(issuer) }) };
        return (issuer, exact(subject));
    }
    match (value.strip_suffix('*'), split) {
        (Some(prefix), None) => (json!({ "prefix": prefix }), present()),
        (Some(_), Some(_)) if subject == "*" => (exact(issuer), present()),
        (Some(_), Some(_)) => (exact(issuer), json!({ "prefix": subject.strip_suffix('*').unwrap_or(subject) })),
        (None, _) => (exact(issuer), exact(subject)),
    }
}

/// Escapes what has a meaning in a regular expression, as Go's `regexp.QuoteMeta` does.
fn quoted(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            result.push('\\');
        }
        result.push(character);
    }
    result
}
