//! Which addresses the key fetcher may reach. A `jwksUri` is written by whoever may write policies in one namespace
//! and is fetched from inside the mesh: without a guard it reads metadata services and private back ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Public addresses, and those that the operator allows.
pub(super) struct Guard {
    allow: Vec<IpNet>,
}

impl Guard {
    pub(super) fn new(allow: &[IpNet]) -> Self {
        Self { allow: allow.to_vec() }
    }

    /// An IPv4 address inside an IPv6 one counts as what it is.
    pub(super) fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow.iter().any(|net| net.contains(&address)) || is_public(address)
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The IANA registry of special IPv4 addresses, without those that are globally reachable.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let refused = match address.octets() {
        // This host, private, loopback, multicast and what is above it.
        [0 | 10 | 127 | 224..=255, ..] => true,
        // Carrier-grade NAT.
        [100, 64..=127, ..] => true,
        // The wire server of Azure hosts: globally routed by number, and the metadata of this machine in fact.
        [168, 63, 129, 16] => true,
        // Link-local, with the metadata services.
        [169, 254, ..] => true,
        [172, 16..=31, ..] => true,
        // Protocol assignments, documentation, 6to4 relays, private.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [192, 168, ..] => true,
        // Benchmarks, documentation.
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        _ => false,
    };
    !refused
}

/// Only global unicast is public; of that, tunnels count as the IPv4 address inside.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let inside = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // NAT64 (RFC 6052) and 6to4.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => inside(high, low),
        // Protocol assignments (Teredo, ORCHID, benchmarks) and documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(guard: &Guard, address: &str) -> bool {
        guard.admits(address.parse().unwrap())
    }

    #[test]
    fn private_and_special_addresses_are_refused() {
        let guard = Guard::new(&[]);
        for address in "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.9.9.9 168.63.129.16 ::ffff:168.63.129.16 64:ff9b::a83f:8110 \
            169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 \
            198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 \
            :: ::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:10.0.0.1 ::7f00:1 fc00::1 fd12:3456::1 fe80::1 \
            fec0::1 ff02::1 ff0e::1 100::1 64:ff9b::a00:1 64:ff9b::7f00:1 64:ff9b:1::808:808 2002:7f00:1:: \
            2002:a9fe:a9fe:: 2001::1 2001:1ff::1 2001:db8::1 3fff::1 4000::1 5f00::1"
            .split_whitespace()
        {
            assert!(!admits(&guard, address), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_admitted() {
        let guard = Guard::new(&[]);
        for address in "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
            169.253.255.255 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 \
            223.255.255.255 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808:: 2001:200::1 2001:4860:4860::8888 \
            2606:4700::1111 3ffe::1"
            .split_whitespace()
        {
            assert!(admits(&guard, address), "{address}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_admitted() {
        let guard = Guard::new(&["10.1.0.0/16".parse().unwrap(), "fd00:1::/32".parse().unwrap()]);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "fd00:1::9", "8.8.8.8"] {
            assert!(admits(&guard, address), "{address}");
        }
        for address in ["10.2.0.1", "fd00:2::1", "127.0.0.1", "64:ff9b::a01:203"] {
            assert!(!admits(&guard, address), "{address}");
        }
    }
}
