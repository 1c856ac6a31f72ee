//! What the authority's answer must be before it replaces an identity that works.

use std::sync::Arc;

use aws_lc_rs::digest;
use palisade_identity::{
    BundleError, Identity, PrivateKey, SpiffeId, SvidError, TrustBundle, TrustBundles, TrustDomain, X509Svid,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::pem::{self, ReadPemError};

/// Most elements accepted in one answer.
const MAX_ELEMENTS: usize = 16;

/// What the agent knows before it asks.
#[derive(Debug)]
pub(crate) struct Expectation<'a> {
    /// The agent's trust domain.
    pub(crate) trust_domain: &'a TrustDomain,
    /// The ID it has had, or was told to expect.
    pub(crate) id: Option<&'a SpiffeId>,
    /// SHA-256 of the root by which the server was recognised.
    pub(crate) pinned_root: Option<[u8; 32]>,
}

/// Why an answer is not installed.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// A leaf and the roots are the least.
    #[error("it has {0} elements; a leaf and the roots are needed")]
    Shape(usize),
    /// An element is not what it should be.
    #[error("element {index} cannot be read")]
    Element {
        /// Counted from 0.
        index: usize,
        /// What is wrong with it.
        source: ReadPemError,
    },
    /// An element other than the last holds several certificates.
    #[error("element {0} holds more than one certificate")]
    Packed(usize),
    /// The leaf is no X.509-SVID, or is not for our key.
    #[error("the certificate cannot be used")]
    Svid(#[source] SvidError),
    /// The identity belongs to another trust domain.
    #[error("identity `{found}` is not of trust domain `{}`", expected.as_str())]
    Foreign {
        /// What was issued.
        found: SpiffeId,
        /// The agent's trust domain.
        expected: TrustDomain,
    },
    /// It is somebody else's identity.
    #[error("identity `{found}` was issued where `{expected}` was expected")]
    OtherId {
        /// What was issued.
        found: SpiffeId,
        /// What the agent is.
        expected: SpiffeId,
    },
    /// The last element is no list of certificate authorities.
    #[error("the roots cannot be used")]
    Bundle(#[source] BundleError),
    /// The root that vouched for the server is not among the roots it sent.
    #[error("the roots do not hold the one that the join token names")]
    Pin,
    /// Expired, not yet valid, or not signed by the roots.
    #[error("the certificate would not be accepted by a peer")]
    Unusable(#[source] SvidError),
}

/// Turns an answer (leaf, intermediates, and last all roots) into an identity, if every part of it holds.
pub(crate) fn accept(
    elements: &[String],
    key: PrivateKey,
    expect: &Expectation<'_>,
    now: UnixTime,
) -> Result<Identity, AnswerError> {
    let (roots, chain) = match elements.split_last() {
        Some((roots, chain)) if !chain.is_empty() && elements.len() <= MAX_ELEMENTS => (roots, chain),
        _ => return Err(AnswerError::Shape(elements.len())),
    };
    let roots = read(roots, chain.len())?;
    if let Some(pin) = expect.pinned_root
        && !roots.iter().any(|root| sha256(root) == pin)
    {
        return Err(AnswerError::Pin);
    }
    let mut certificates = Vec::new();
    for (index, element) in chain.iter().enumerate() {
        match <[_; 1]>::try_from(read(element, index)?) {
            Ok([certificate]) => certificates.push(certificate),
            Err(_) => return Err(AnswerError::Packed(index)),
        }
    }
    // Peers have the roots; presenting them costs bytes in every handshake.
    certificates.retain(|certificate| !roots.contains(certificate));
    let svid = X509Svid::new(certificates, key).map_err(AnswerError::Svid)?;
    check_id(svid.id(), expect)?;
    let bundle = TrustBundle::new(expect.trust_domain.clone(), roots).map_err(AnswerError::Bundle)?;
    let mut bundles = TrustBundles::default();
    bundles.insert(bundle);
    svid.usable(&bundles, now).map_err(AnswerError::Unusable)?;
    Ok(Identity { svid: Arc::new(svid), bundles: Arc::new(bundles) })
}

fn read(element: &str, index: usize) -> Result<Vec<CertificateDer<'static>>, AnswerError> {
    pem::certificates(element).map_err(|source| AnswerError::Element { index, source })
}

fn check_id(found: &SpiffeId, expect: &Expectation<'_>) -> Result<(), AnswerError> {
    if found.trust_domain() != *expect.trust_domain {
        return Err(AnswerError::Foreign { found: found.clone(), expected: expect.trust_domain.clone() });
    }
    match expect.id {
        Some(expected) if expected != found => {
            Err(AnswerError::OtherId { found: found.clone(), expected: expected.clone() })
        }
        _ => Ok(()),
    }
}

fn sha256(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, certificate.as_ref());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[cfg(test)]
mod tests;
