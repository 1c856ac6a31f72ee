//! Which header fields a peer may not set, and the one identity element that we set.

use palisade_identity::{SpiffeId, VerifiedPeer};

/// The header that carries the caller's identity to the application (Envoy's format).
pub(crate) const XFCC: &str = "x-forwarded-client-cert";

/// Fields that name a caller or steer a proxy. They are removed from whatever comes in: only a verified certificate
/// makes identity (Envoy sanitises the same families; Linkerd's header would be believed by its own applications).
pub(crate) fn is_identity(name: &str) -> bool {
    let Some(first) = name.as_bytes().first() else { return false };
    match first.to_ascii_lowercase() {
        b'x' => name.eq_ignore_ascii_case(XFCC) || starts_with(name, "x-envoy-") || starts_with(name, "x-palisade-"),
        b'l' => starts_with(name, "l5d-"),
        _ => false,
    }
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
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
    fn identity_families_are_recognised_in_any_case() {
        for name in
            ["X-Forwarded-Client-Cert", "x-envoy-peer-metadata", "X-ENVOY-internal", "L5D-Client-Id", "x-palisade-a"]
        {
            assert!(is_identity(name), "{name}");
        }
        for name in ["x-forwarded-for", "x-env", "host", "", "l5", "x-request-id", "é"] {
            assert!(!is_identity(name), "{name}");
        }
    }
}
