//! Which header fields a peer may not set, and the one identity element that we set.

use palisade_identity::{SpiffeId, VerifiedPeer};

/// The header that carries the caller's identity to the application (Envoy's format).
pub(crate) const XFCC: &str = "x-forwarded-client-cert";

/// Fields that name a caller or steer a proxy. They are removed from whatever comes in: only a verified certificate
/// makes identity (Envoy sanitises the same families; Linkerd's header would be believed by its own applications).
///
/// A name counts in every spelling that an application may read as it: CGI and its heirs (WSGI, Rack, PHP) know neither
/// case nor the difference between `-`, `_` and, in some servers, any other character that is no letter or digit.
pub(crate) fn is_identity(name: &str) -> bool {
    let name = name.as_bytes();
    let same = |part: &[u8], known: &str| part.iter().map(|byte| spelling(*byte)).eq(known.bytes());
    let family = |prefix: &str| name.get(..prefix.len()).is_some_and(|head| same(head, prefix));
    match name.first().map(u8::to_ascii_lowercase) {
        Some(b'x') => same(name, XFCC) || family("x-envoy-") || family("x-palisade-"),
        Some(b'l') => family("l5d-"),
        _ => false,
    }
}

/// Whether an application may read both names as one, as above.
pub(crate) fn read_alike(one: &[u8], other: &[u8]) -> bool {
    one.iter().map(|byte| spelling(*byte)).eq(other.iter().map(|byte| spelling(*byte)))
}

fn spelling(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// Fields of the message's framing and of this one connection: nobody but the proxy sets them, on either side.
pub(crate) fn is_framing(name: &str) -> bool {
    [
        "connection",
        "content-length",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
    .iter()
    .any(|known| name.eq_ignore_ascii_case(known))
}

/// The one element an application sees: `By=<us>;Hash=<sha256>;Subject="";URI=<peer>`.
///
/// A SPIFFE ID holds no character that needs quoting here. The subject stays empty as Istio's: identity is the URI.
pub(crate) fn xfcc_element(ours: &SpiffeId, peer: &VerifiedPeer) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(160);
    out.push_str("By=");
    out.push_str(ours.as_str());
    out.push_str(";Hash=");
    for byte in peer.certificate_sha256() {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out.push_str(";Subject=\"\";URI=");
    out.push_str(peer.id().as_str());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_families_are_recognised_in_any_spelling() {
        for name in [
            "X-Forwarded-Client-Cert",
            "X_FORWARDED-client_cert",
            "x.forwarded.client.cert",
            "x-envoy-peer-metadata",
            "X_ENVOY-internal",
            "L5D-Client-Id",
            "l5d_a",
            "x-palisade-a",
        ] {
            assert!(is_identity(name), "{name}");
        }
        for name in [
            "x-forwarded-for",
            "x-env",
            "x-forwarded-client-certs",
            "xforwarded-client-cert",
            "host",
            "",
            "l5",
            "x-request-id",
            "é",
        ] {
            assert!(!is_identity(name), "{name}");
        }
    }
}
