//! Names as Kubernetes accepts them.

/// A DNS-1123 label: lower case letters, digits and `-`, 1 to 63 characters, no `-` at an end.
pub(crate) fn dns_label(text: &str) -> bool {
    text.len() <= 63 && dns_word(text)
}

/// A DNS-1123 subdomain: labels (of any length) with dots between them, at most 253 characters.
pub(crate) fn dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(dns_word)
}

fn dns_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A DNS name of a service: labels of at most 63 letters, digits, `-` and `_`, at most 255 characters in all.
pub(crate) fn dns_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with(['-', '_'])
            && !label.ends_with(['-', '_'])
    };
    text.len() <= 255 && text.split('.').all(label)
}

/// A label's key: `name` or `prefix/name`.
pub(crate) fn label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => dns_subdomain(prefix) && label_word(name),
        None => label_word(text),
    }
}

/// A label's value: empty, or a word.
pub(crate) fn label_value(text: &str) -> bool {
    text.is_empty() || label_word(text)
}

fn label_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let end = |text: Option<u8>| text.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(inner) && end(text.bytes().next()) && end(text.bytes().last())
}

/// The name of a header field: a token of RFC 9110.
pub(crate) fn header_name(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

/// The name of a header field as Istio takes it where it writes one itself: `[-_A-Za-z0-9]+`.
pub(crate) fn strict_header_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A fully qualified name as Istio takes it for a service: labels of letters, digits and `-`, the last one not a
/// number; a dot at the end is possible.
pub(crate) fn fqdn(text: &str) -> bool {
    let plain = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 255 && plain.split('.').all(label) && !plain.rsplit('.').next().is_some_and(number)
}

/// A port's name: letters, digits and `-`, 1 to 63 characters, no `-` at an end.
pub(crate) fn port_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_kubernetes_does() {
        for good in ["a", "a-b", "0", &"a".repeat(63)] {
            assert!(dns_label(good) && dns_subdomain(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a b", "ä"] {
            assert!(!dns_label(bad) && !dns_subdomain(bad), "{bad}");
        }
        assert!(!dns_label(&"a".repeat(64)) && !dns_label("a.b") && dns_subdomain("a.b"));
        assert!(!dns_subdomain("a..b") && !dns_subdomain(&"a.".repeat(127)) && !dns_subdomain(&"a".repeat(254)));
    }

    #[test]
    fn labels_ports_and_hosts() {
        assert!(label_key("app.kubernetes.io/name") && label_key("x") && label_value("") && label_value("V1.2_x"));
        assert!(!label_key("") && !label_key("/x") && !label_key("a/b/c") && !label_value("-x") && !label_key("x/"));
        assert!(port_name("http-web") && !port_name("http_web") && !port_name("") && !port_name("-x"));
        assert!(
            dns_name("Pay_ments.shop.") && !dns_name("*.shop") && !dns_name("") && !dns_name("a..b") && !dns_name(".")
        );
    }
}
