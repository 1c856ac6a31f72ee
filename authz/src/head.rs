//! What the head of a request can say at all. Envoy's HTTP/1 codec answers the rest 400 before a filter sees it, so an answer
//! made of policies would be one that nobody ever gets.

/// Whether a header can be sent: `name` a token, `value` without control characters but tabs (RFC 9110, 5.1 and 5.5).
#[must_use]
pub fn header(name: &str, value: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token) && value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
}

/// Whether a Host or `:authority` can be sent. Envoy looks at each byte and at no more: an empty one, user information and a port
/// that is none pass. Source: each byte sent to Envoy 1.40.
///
/// ```
/// use palisade_authz::head::host;
/// assert!(host("cart.shop:8080") && !host("cart shop"));
/// ```
#[must_use]
pub fn host(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=@[]_~".contains(&byte))
}

/// Whether a target in origin form can be sent: a slash, then visible ASCII.
#[must_use]
pub fn target(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_cannot_be_sent() {
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
    }

    /// The bytes that Envoy 1.40 refuses, and no others.
    #[test]
    fn hosts_that_cannot_be_sent() {
        for byte in 0..=0x7f_u8 {
            let refused = byte <= b' ' || byte == 0x7f || b"\"#/<>?\\^`{|}".contains(&byte);
            let name = format!("a{}b", char::from(byte));
            assert_eq!(host(&name), !refused, "{name:?}");
        }
        assert!(host("") && !host("\u{e4}"));
    }

    #[test]
    fn targets_that_cannot_be_sent() {
        assert!(target("/") && target("//x?#[^`{|}\"<>\\"));
        for refused in ["", "*", "x", "?", "/ ", "/\u{0}", "/\u{7f}", "/\u{e4}", "/?\u{e4}"] {
            assert!(!target(refused), "{refused:?}");
        }
    }
}
