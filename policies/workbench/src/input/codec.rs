//! What Envoy's HTTP/1 codec reads of a request line: method and absolute-form target.

use std::net::Ipv6Addr;

use palisade_authz::HTTP1_METHODS;

/// Whether the method is one that it knows; one that is not said may be.
pub(super) fn method(method: Option<&str>) -> bool {
    method.is_none_or(|method| HTTP1_METHODS.contains(&method))
}

/// Host and path of an absolute-form target, which replaces the Host header. User information is no part of the host. `None`
/// for every other target, and for one whose authority Envoy refuses: it has no leading slash, so it is answered 400.
pub(super) fn absolute_form(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let (user, host) = authority.split_once('@').unwrap_or(("", authority));
    let path = if path.is_empty() { "/" } else { path };
    (user.bytes().all(is_user) && is_host(host)).then_some((host, path))
}

fn is_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()%;:&=+$,".contains(&byte)
}

/// A name of letters, digits, dots and hyphens or an IPv6 address in brackets, and a port. Stricter than what passes as a Host.
fn is_host(text: &str) -> bool {
    let (literal, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, port)) => (ip.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at_checked(text.find(':').unwrap_or(text.len())).unwrap_or((text, ""));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
            (!name.is_empty() && name.bytes().all(plain), port)
        }
    };
    literal && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_port(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_in_their_letter_case() {
        assert!(method(None) && method(Some("UNSUBSCRIBE")));
        for unknown in ["get", "Get", "", "G T", "FOO", "M-SEARCH"] {
            assert!(!method(Some(unknown)), "{unknown:?}");
        }
    }

    /// Each row sent to Envoy 1.40: the host and path that its filters saw.
    #[test]
    fn absolute_forms_that_are_taken() {
        for (target, host, path) in [
            ("HTTP://X/y", "X", "/y"),
            ("hTTps://x", "x", "/"),
            ("http://u@x/y", "x", "/y"),
            ("http://u:p:q@x/", "x", "/"),
            ("http://@x/y", "x", "/y"),
            ("http://u%@x/", "x", "/"),
            ("http://u!$&'()*+,;=-._~@x/", "x", "/"),
            ("http://u@[::1]:8/y", "[::1]:8", "/y"),
            ("http://[::FFFF:1.2.3.4]/", "[::FFFF:1.2.3.4]", "/"),
            ("http://u/@x/", "u", "/@x/"),
            ("http://x:00000000080/", "x:00000000080", "/"),
            ("http://x:65535/", "x:65535", "/"),
            ("http://.../", "...", "/"),
            ("http://-/", "-", "/"),
        ] {
            assert_eq!(absolute_form(target), Some((host, path)), "{target}");
        }
    }

    /// Each row sent to Envoy 1.40: 400.
    #[test]
    fn absolute_forms_that_are_refused() {
        let users = "@ u@ u@:80 a@b@x x@ x\\@y u\\@x u\"@x u<@x u[@x [::1]@x \u{e4}@x";
        let names =
            ":80 \u{e4} x%20 x_y x~y x!y x* x,y x;y x\\y x\u{0} ::1 [] [::1 [::1]x [1] [zz] [.] [v1.a] [::1%25eth0]";
        let ports = "x: x:a x:1a x:-1 x:+1 x:65536 x:4294967376 x:1:2 x:\u{663} [::1]:";
        for authority in [users, names, ports].iter().flat_map(|row| row.split(' ')).chain(["", "x y"]) {
            assert_eq!(absolute_form(&format!("http://{authority}/y")), None, "{authority:?}");
        }
        for target in ["ftp://x/y", "ws://x/y", "http:/x", "x:80", "//x/y", "/http://x/"] {
            assert_eq!(absolute_form(target), None, "{target}");
        }
    }
}
