//! PeerAuthentication as a table: what an inbound connection becomes, by mode, port protocol and what the client began
//! with (the filter chains Istio builds; references: authorization digest, 8.2).

use palisade_policies::{AppProtocol, MtlsMode};

use crate::certs::Alpn;

/// How a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carry {
    /// HTTP requests, each decided.
    Http,
    /// Bytes, decided once.
    Tcp,
    /// HTTP if the first bytes say so, else bytes.
    Detect,
    /// TLS that is not the mesh's: terminated by the application, bytes to us, without identity.
    PassThrough,
    /// Refused, with the reason code.
    Refuse(&'static str),
}

/// What a port's protocol means for the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Http,
    Tcp,
    Auto,
}

fn port(protocol: AppProtocol) -> Port {
    match protocol {
        AppProtocol::Http | AppProtocol::Http1 | AppProtocol::Http2 | AppProtocol::Grpc => Port::Http,
        AppProtocol::Tcp => Port::Tcp,
        AppProtocol::Detect => Port::Auto,
    }
}

/// A connection that began with a ClientHello; under DISABLE nobody looks for one.
pub(crate) fn tls(mode: MtlsMode, protocol: AppProtocol, alpn: Alpn) -> Carry {
    match (mode, port(protocol)) {
        (MtlsMode::Disable, _) => plaintext(mode, protocol),
        (MtlsMode::Strict, Port::Http) => Carry::Http,
        (MtlsMode::Strict, Port::Tcp) => Carry::Tcp,
        (MtlsMode::Permissive, Port::Http) if alpn.is_mesh() => Carry::Http,
        (MtlsMode::Permissive, Port::Http) => Carry::Refuse("tls-without-mesh-alpn"),
        (MtlsMode::Permissive, Port::Tcp) if alpn.is_mesh() => Carry::Tcp,
        (_, Port::Auto) if alpn.is_mesh_http() => Carry::Http,
        (MtlsMode::Strict, Port::Auto) => Carry::Tcp,
        (MtlsMode::Permissive, Port::Auto) if alpn.is_mesh() => Carry::Tcp,
        (MtlsMode::Permissive, Port::Tcp | Port::Auto) => Carry::PassThrough,
    }
}

/// A connection that did not begin with a ClientHello.
pub(crate) fn plaintext(mode: MtlsMode, protocol: AppProtocol) -> Carry {
    match (mode, port(protocol)) {
        (MtlsMode::Strict, _) => Carry::Refuse("strict-plaintext"),
        (_, Port::Http) => Carry::Http,
        (_, Port::Tcp) => Carry::Tcp,
        (_, Port::Auto) => Carry::Detect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the digest, cell by cell.
    #[test]
    fn the_whole_table() {
        use AppProtocol::{Detect, Http, Tcp};
        use MtlsMode::{Disable, Permissive, Strict};
        for (mode, protocol, alpn, carried) in [
            (Strict, Http, Alpn::None, Carry::Http),
            (Strict, Http, Alpn::IstioH2, Carry::Http),
            (Strict, Tcp, Alpn::Istio, Carry::Tcp),
            (Strict, Tcp, Alpn::None, Carry::Tcp),
            (Strict, Detect, Alpn::IstioHttp1, Carry::Http),
            (Strict, Detect, Alpn::Istio, Carry::Tcp),
            (Strict, Detect, Alpn::H2, Carry::Tcp),
            (Permissive, Http, Alpn::IstioHttp1, Carry::Http),
            (Permissive, Http, Alpn::H2, Carry::Refuse("tls-without-mesh-alpn")),
            (Permissive, Tcp, Alpn::Istio, Carry::Tcp),
            (Permissive, Tcp, Alpn::None, Carry::PassThrough),
            (Permissive, Detect, Alpn::IstioH2, Carry::Http),
            (Permissive, Detect, Alpn::Istio, Carry::Tcp),
            (Permissive, Detect, Alpn::Http1, Carry::PassThrough),
            (Disable, Http, Alpn::IstioHttp1, Carry::Http),
            (Disable, Tcp, Alpn::None, Carry::Tcp),
            (Disable, Detect, Alpn::None, Carry::Detect),
        ] {
            assert_eq!(tls(mode, protocol, alpn), carried, "{mode:?} {protocol:?} {alpn:?}");
        }
        for protocol in [Http, Tcp, Detect] {
            assert_eq!(plaintext(Strict, protocol), Carry::Refuse("strict-plaintext"));
            assert_eq!(plaintext(Permissive, protocol), plaintext(Disable, protocol));
        }
    }
}
