//! What Envoy's HTTP/1 codec takes of a request head beside its target: the rest is answered 400 before any policy is
//! asked, so an answer made of policies would be one that nobody ever gets.

use palisade_authz::HTTP1_METHODS;

/// Whether the method is one that it knows; one that is not said may be.
pub(super) fn method(method: Option<&str>) -> bool {
    method.is_none_or(|method| HTTP1_METHODS.contains(&method))
}

/// Whether a header can be sent (RFC 9110, 5.1 and 5.5).
pub(super) fn header(name: &str, value: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token) && value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_is_not_taken() {
        for (name, value, taken) in [
            ("x-a", "b c", true),
            ("x_a", "b\tc", true),
            ("X-A", "\u{e4}", true),
            ("a", "", true),
            ("", "x", false),
            ("b d", "x", false),
            (":method", "GET", false),
            ("\u{e4}", "x", false),
            ("a", "x\ny", false),
            ("a", "x\u{0}", false),
            ("a", "x\u{7f}", false),
        ] {
            assert_eq!(header(name, value), taken, "{name:?}: {value:?}");
        }
        assert!(method(None) && method(Some("UNSUBSCRIBE")));
        for unknown in ["get", "Get", "", "G T", "FOO", "M-SEARCH"] {
            assert!(!method(Some(unknown)), "{unknown:?}");
        }
    }
}
