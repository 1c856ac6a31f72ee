//! The forms that single values of an AuthorizationPolicy may have, exactly as Istio's validation has them
//! (`pkg/config/security/security.go`), and the few that Istio lets pass although nothing works with them.

use std::net::{IpAddr, Ipv6Addr};

use crate::catalogue::{Explanation, authorization as codes};

/// A fault of a value: the code and what is wrong.
pub(crate) type Fault = (&'static Explanation, String);

/// How the values of a list are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Any text.
    Any,
    /// An IP address or prefix.
    Ip,
    /// A decimal port.
    Port,
    /// A trust domain with at most one `*` at an end.
    TrustDomain,
    /// The same, but Istio does not look for a slash.
    TrustDomainKey,
    /// A service account.
    Account,
    /// A path or path template.
    Path,
}

impl Form {
    pub(crate) fn check(self, value: &str) -> Result<(), Fault> {
        match self {
            Self::Any => Ok(()),
            Self::Ip => ip(value),
            Self::Port => port(value),
            Self::TrustDomain if value.contains('/') => {
                Err((&codes::BAD_TRUST_DOMAIN, "a trust domain holds no `/`".to_owned()))
            }
            Self::TrustDomain | Self::TrustDomainKey => wildcard(value),
            Self::Account => account(value),
            Self::Path => path(value),
        }
    }

    /// How many values the list may have.
    pub(crate) fn max_items(self) -> usize {
        if self == Self::Account { 16 } else { usize::MAX }
    }
}

/// Go's `netip.ParseAddr` (with a zone) or `netip.ParsePrefix` (without, host bits allowed).
fn ip(value: &str) -> Result<(), Fault> {
    let good = match value.split_once('/') {
        Some((address, bits)) => address.parse::<IpAddr>().is_ok_and(|address| prefix_length(bits, address)),
        None => match value.split_once('%') {
            Some((address, zone)) => address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty(),
            None => value.parse::<IpAddr>().is_ok(),
        },
    };
    if good { Ok(()) } else { Err((&codes::BAD_IP, "not an IP address or prefix".to_owned())) }
}

fn prefix_length(bits: &str, address: IpAddr) -> bool {
    let max = if address.is_ipv4() { 32 } else { 128 };
    let plain = bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    plain && bits.parse::<u8>().is_ok_and(|bits| bits <= max)
}

/// Go's `ParseUint` with base 10: leading zeros pass, signs do not.
fn port(value: &str) -> Result<(), Fault> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.trim_start_matches('0');
    if digits && (number.is_empty() || number.parse::<u16>().is_ok()) {
        Ok(())
    } else {
        Err((&codes::BAD_PORT, "not a port from 0 to 65535".to_owned()))
    }
}

fn wildcard(value: &str) -> Result<(), Fault> {
    let stars = value.bytes().filter(|byte| *byte == b'*').count();
    let at_end = value.starts_with('*') || value.ends_with('*');
    match stars {
        0 => Ok(()),
        1 if at_end => Ok(()),
        1 => Err((&codes::BAD_TRUST_DOMAIN, "`*` stands neither at the begin nor at the end".to_owned())),
        _ => Err((&codes::BAD_TRUST_DOMAIN, "more than one `*`".to_owned())),
    }
}

fn account(value: &str) -> Result<(), Fault> {
    let what = if value.contains('*') {
        "service accounts take no wildcard"
    } else if value.len() > 320 {
        "longer than 320 characters"
    } else {
        match value.split_once('/') {
            Some((_, name)) if name.contains('/') => "more than one `/`",
            Some(("", _)) => "the namespace before `/` is empty",
            Some((_, "")) => "the name after `/` is empty",
            _ => return Ok(()),
        }
    };
    Err((&codes::BAD_ACCOUNT, what.to_owned()))
}

/// The longest template that Envoy takes (`UriTemplateMatchConfig.path_template`), `{*}` being one byte to it and `{**}` two.
const MAX_TEMPLATE_BYTES: usize = 256;

/// Whether Istio takes a path for a template.
pub(crate) fn is_template(path: &str) -> bool {
    path.contains("{*}") || path.contains("{**}")
}

fn path(value: &str) -> Result<(), Fault> {
    let template = is_template(value);
    let mut open_ended = false;
    for segment in value.trim_matches('/').split('/') {
        if matches!(segment, "{*}" | "{**}") {
            if open_ended {
                return Err((&codes::BAD_TEMPLATE, format!("`{segment}` after `{{**}}`")));
            }
            open_ended = segment == "{**}";
        } else if segment.contains(['{', '}']) {
            let message = "braces other than `{*}` or `{**}` as a whole segment".to_owned();
            return Err((&codes::BAD_TEMPLATE, message));
        } else if template && !literal(segment) {
            let what = if segment.is_empty() { "is empty" } else { "holds a character that paths cannot" };
            return Err((&codes::BAD_TEMPLATE, format!("the segment `{}` {what}", super::cursor::quote(segment))));
        }
    }
    if template && !value.starts_with('/') {
        return Err((&codes::TEMPLATE_SLASH, "a template without a leading `/`".to_owned()));
    }
    // What Istio hands to Envoy is checked there, and at no place before.
    let rewritten = value.replace("{**}", "**").replace("{*}", "*").len();
    if template && rewritten > MAX_TEMPLATE_BYTES {
        let message = format!("{rewritten} bytes as Envoy reads it, at most {MAX_TEMPLATE_BYTES} are taken");
        return Err((&codes::TEMPLATE_LENGTH, message));
    }
    // Istio looks past slashes at the ends. Envoy takes one for an end and refuses a second.
    if template && (value.starts_with("//") || value.ends_with("//")) {
        return Err((&codes::BAD_TEMPLATE, "two slashes at an end: the segment between is empty".to_owned()));
    }
    Ok(())
}

/// RFC 3986's pchar without `*`.
fn literal(segment: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte);
    !segment.is_empty() && segment.bytes().all(allowed)
}

/// The keys of `when` that take values of one form, without brackets.
const KEYS: &[(&str, Form)] = &[
    ("source.ip", Form::Ip),
    ("remote.ip", Form::Ip),
    ("source.namespace", Form::Any),
    ("source.serviceAccount", Form::Account),
    ("source.principal", Form::Any),
    ("source.trustDomain", Form::TrustDomainKey),
    ("request.auth.principal", Form::Any),
    ("request.auth.audiences", Form::Any),
    ("request.auth.presenter", Form::Any),
    ("destination.ip", Form::Ip),
    ("destination.port", Form::Port),
    ("connection.sni", Form::Any),
];

/// The names that a condition's key can have, for suggestions.
pub(crate) fn key_names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(name, _)| *name).chain([HEADERS, CLAIMS, FILTERS])
}

/// Whether a name in brackets belongs to the key.
pub(crate) fn takes_name(key: &str) -> bool {
    matches!(key, HEADERS | CLAIMS)
}

const HEADERS: &str = "request.headers";
const CLAIMS: &str = "request.auth.claims";
const FILTERS: &str = "experimental.envoy.filters.";

/// The form of a condition's values, by its key.
pub(crate) fn condition_key(key: &str) -> Result<Form, Fault> {
    if let Some((_, form)) = KEYS.iter().find(|(name, _)| *name == key) {
        return Ok(*form);
    }
    let form = |good: bool| if good { Ok(Form::Any) } else { Err((&codes::KEY_FORM, bracket_message(key))) };
    let named = |prefix: &str| key.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('['));
    if let Some(rest) = named(HEADERS) {
        return form(one_bracket(rest));
    }
    if let Some(rest) = named(CLAIMS) {
        return form(nested_brackets(rest));
    }
    if let Some(rest) = key.strip_prefix(FILTERS) {
        let (filter, name) = rest.split_at(rest.find('[').unwrap_or(rest.len()));
        return form(!filter.is_empty() && one_bracket(name));
    }
    Err((&codes::BAD_KEY, unknown_key(key)))
}

fn bracket_message(key: &str) -> String {
    format!("`{}` does not have the form `a[b]`", super::cursor::quote(key))
}

fn unknown_key(key: &str) -> String {
    let key_text = super::cursor::quote(key);
    match key {
        "destination.namespace" => format!("`{key_text}` is the policy's own namespace"),
        "destination.name" | "destination.user" => format!("`{key_text}` existed in v1alpha1 only"),
        _ if key.starts_with("destination.labels") => format!("`{key_text}` is what the policy's selector is for"),
        _ => format!("unknown condition key `{key_text}`"),
    }
}

fn one_bracket(text: &str) -> bool {
    text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|name| !name.is_empty())
}

/// `[a][b]..`, no name empty.
fn nested_brackets(text: &str) -> bool {
    one_bracket(text)
        && text.get(1..text.len().saturating_sub(1)).is_some_and(|inner| inner.split("][").all(claim_name))
}

fn claim_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['[', ']'])
}
