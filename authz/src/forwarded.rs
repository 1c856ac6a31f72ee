//! The original client address of `remoteIpBlocks` and `remote.ip`, as an Istio sidecar finds it.

use std::net::IpAddr;

use crate::request::Headers;

/// The last entry of `X-Forwarded-For`, trusted from anyone (Envoy with `use_remote_address: false` and no
/// trusted hops), else the TCP peer. An entry with a port or in brackets is no address: the peer counts then.
#[must_use]
pub fn remote_ip(peer: Option<IpAddr>, headers: &dyn Headers) -> Option<IpAddr> {
    let mut last = None;
    headers.for_each("x-forwarded-for", &mut |value| {
        last = value
            .rsplit(|byte| *byte == b',')
            .next()
            .and_then(|entry| std::str::from_utf8(entry).ok())
            .map(|entry| entry.trim_matches([' ', '\t']).parse::<IpAddr>().ok());
    });
    last.flatten().or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::NoHeaders;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn last_entry_counts_and_garbage_falls_back_to_the_peer() {
        let peer = Some(ip("10.0.0.1"));
        for (value, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4, 5.6.7.8", "5.6.7.8"),
            ("1.2.3.4:80", "10.0.0.1"),
            ("[::1]", "10.0.0.1"),
            ("2001:DB8::0:1", "2001:db8::1"),
            ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
            ("", "10.0.0.1"),
            ("nonsense", "10.0.0.1"),
        ] {
            let headers = vec![("X-Forwarded-For", value)];
            assert_eq!(remote_ip(peer, &headers), Some(ip(expected)), "{value}");
        }
        assert_eq!(remote_ip(peer, &NoHeaders), peer);
        assert_eq!(remote_ip(None, &NoHeaders), None);
    }
}
