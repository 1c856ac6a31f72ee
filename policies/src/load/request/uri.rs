//! The URIs from which keys are fetched.

use std::net::Ipv6Addr;

/// Whether a text is an absolute `http` or `https` URI with a host, or what is wrong with it. The message does not
/// repeat the text where it can hold a password.
pub(super) fn check(text: &str) -> Result<(), String> {
    let Some((scheme, rest)) = text.split_once("://") else { return Err("a URI without a scheme".to_owned()) };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err("the scheme is neither `http` nor `https`".to_owned());
    }
    if !rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`')) {
        return Err("a character that URIs do not have".to_owned());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("a user name in the URI".to_owned());
    }
    let (host, port) = host_and_port(authority).ok_or("a host that is not valid")?;
    if host.is_empty() {
        return Err("a URI without a host".to_owned());
    }
    match port {
        None | Some("") => Ok(()),
        Some(port) if !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(()),
        Some(_) => Err("the port is not a number from 1 to 65535".to_owned()),
    }
}

fn host_and_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
        return host.parse::<Ipv6Addr>().ok().map(|_| (host, port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    host.bytes().all(known).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_uris_with_a_host_pass() {
        for good in [
            "https://example.com/.well-known/jwks.json",
            "HTTP://a",
            "http://10.0.0.7:8080/x?y=z#f",
            "https://[2001:db8::1]:443/",
            "http://my_jwks.ns:",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "hTPp\\\u{8}lah",
            "ftp://x",
            "https:///path",
            "https://a:0",
            "https://a:65536",
            "https://a:+1",
            "https://a:b",
            "https://user:secret@a/",
            "https://a b/",
            "https://ä/",
            "https://[::1",
            "https://[x]/",
            "https://[::1]x/",
            "https://a:1:2/",
            "://a",
        ] {
            let wrong = check(bad).unwrap_err();
            assert!(!wrong.contains("secret"), "{wrong}");
        }
    }
}
