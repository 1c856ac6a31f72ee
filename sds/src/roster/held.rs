//! A certificate made for an entry.

use std::sync::Arc;

use palisade_identity::{UnixTime, X509Svid};
use rustls_pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;

use super::Entry;

/// A certificate with what decides when it is replaced.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) svid: Arc<X509Svid>,
    /// The entry as it was when the certificate was asked for.
    pub(crate) made_for: Arc<Entry>,
    /// When to renew it.
    pub(crate) due: UnixTime,
    /// Key identifiers of the authorities in its chain.
    pub(crate) issuers: Vec<String>,
    /// The epoch of taints in which it was asked for.
    pub(crate) epoch: u64,
}

/// The key identifiers (lower-case hex) of the authorities that signed the certificates of a chain.
pub(crate) fn issuers(chain: &[CertificateDer<'_>]) -> Vec<String> {
    chain.iter().filter_map(issuer).collect()
}

fn issuer(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let (_, extension) = certificate.tbs_certificate().get_extension::<AuthorityKeyIdentifier>().ok()??;
    let key = extension.key_identifier?;
    Some(key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
}
