//! The PROXY protocol, version 2: how a connection says where it comes from and where it went.

use std::net::{IpAddr, SocketAddr};

/// The type of the field that carries the caller's SPIFFE ID, scheme included.
pub(super) const PEER: u8 = 0xE0;
/// The type of the field that carries the connection's metadata.
pub(super) const METADATA: u8 = 0xE1;

/// The header of a connection from `client` to `destination`, which are of one address family.
pub(super) fn header(client: SocketAddr, destination: SocketAddr, fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut addresses = Vec::new();
    for ip in [client.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => addresses.extend(ip.octets()),
            IpAddr::V6(ip) => addresses.extend(ip.octets()),
        }
    }
    for port in [client.port(), destination.port()] {
        addresses.extend(port.to_be_bytes());
    }
    for (kind, value) in fields {
        addresses.push(*kind);
        addresses.extend(length(value.len()));
        addresses.extend(*value);
    }
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.push(0x21);
    header.push(if client.is_ipv4() { 0x11 } else { 0x21 });
    header.extend(length(addresses.len()));
    header.extend(addresses);
    header
}

fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}
