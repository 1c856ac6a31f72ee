//! The original client address of `remoteIpBlocks` and `remote.ip`, as an Istio sidecar or gateway finds it.

use std::net::IpAddr;

use crate::request::Headers;

/// The last entry of `X-Forwarded-For`, trusted from anyone (Envoy with `use_remote_address: false` and no
/// trusted hops), else the TCP peer. An entry with a port or in brackets is no address: the peer counts then.
#[must_use]
pub fn remote_ip(peer: Option<IpAddr>, headers: &dyn Headers) -> Option<IpAddr> {
    remote_ip_behind(1, peer, headers)
}

/// The client address that a gateway finds behind `trusted_hops` proxies of its operator (`numTrustedProxies`): the
/// entry of `X-Forwarded-For` at that place from the right. Without trusted hops, with fewer entries, or where that
/// entry is no address, the TCP peer.
#[must_use]
pub fn remote_ip_behind(trusted_hops: u32, peer: Option<IpAddr>, headers: &dyn Headers) -> Option<IpAddr> {
    let mut entries = 0_usize;
    each_entry(headers, &mut |_| entries += 1);
    let hops = usize::try_from(trusted_hops).unwrap_or(usize::MAX);
    let Some(wanted) = entries.checked_sub(hops).filter(|_| hops > 0) else {
        return peer;
    };
    let (mut at, mut found) = (0_usize, None);
    each_entry(headers, &mut |entry| {
        if at == wanted {
            let text = std::str::from_utf8(entry).ok();
            found = text.and_then(|text| text.trim_matches([' ', '\t']).parse().ok());
        }
        at += 1;
    });
    found.or(peer)
}

/// Envoy joins the instances of the header with commas, leaving out empty ones.
fn each_entry(headers: &dyn Headers, each: &mut dyn FnMut(&[u8])) {
    headers.for_each("x-forwarded-for", &mut |value| {
        if !value.is_empty() {
            value.split(|byte| *byte == b',').for_each(&mut *each);
        }
    });
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
