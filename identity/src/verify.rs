//! Who a peer is: a presented chain becomes a [`VerifiedPeer`], or a [`VerifyError`] with a stable reason.
//!
//! There is one way to make a `VerifiedPeer`, so holding one proves that every rule was checked. The bundle is chosen by the
//! trust domain of the ID that the certificate claims, and no other root is ever tried: a root of domain B cannot vouch
//! for an ID of domain A.

use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use webpki::EndEntityCert;

use crate::bundle::sha256;
use crate::certificate::{AuthorityError, Leaf, LeafError};
use crate::memo::{self, Window};
use crate::path::Anchors;
use crate::{MAX_CHAIN_BYTES, MAX_CHAIN_CERTIFICATES, SpiffeId, TrustBundles, TrustDomain};

/// Where to look for the cause when a peer is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The peer's certificate is wrong for everybody: its issuer or its configuration must change.
    Peer,
    /// The certificate may be fine, but this side does not trust its issuer or did not expect its ID: compare the bundles and
    /// the expected IDs of both sides.
    Trust,
    /// The certificate is outside its dates: renewal has stopped, or a clock is wrong.
    Time,
}

/// Why a peer's certificate chain is not accepted. [`code`](Self::code) is the stable name for audit records and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The peer presented no certificate.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// More than [`MAX_CHAIN_CERTIFICATES`] certificates or [`MAX_CHAIN_BYTES`] bytes.
    #[error("the certificate chain is too large: {certificates} certificates, {bytes} bytes")]
    ChainTooLarge {
        /// How many certificates were presented.
        certificates: usize,
        /// Their size in all.
        bytes: usize,
    },
    /// The leaf breaks a rule of X.509-SVID.
    #[error("the peer's certificate is not an X.509-SVID")]
    Leaf(#[from] LeafError),
    /// There is no bundle for the ID's trust domain.
    #[error("trust domain `{0}` is not trusted here")]
    UnknownTrustDomain(TrustDomain),
    /// The leaf is past its end.
    #[error("the certificate of `{id}` expired at {}", rfc3339(*not_after))]
    Expired {
        /// The ID it carries.
        id: SpiffeId,
        /// Its end.
        not_after: UnixTime,
    },
    /// The leaf has not begun.
    #[error("the certificate of `{id}` is not valid before {}", rfc3339(*not_before))]
    NotYetValid {
        /// The ID it carries.
        id: SpiffeId,
        /// Its beginning.
        not_before: UnixTime,
    },
    /// No path leads from the leaf to an authority of the ID's own trust domain.
    #[error("no path leads to an authority of the ID's own trust domain")]
    UnknownAuthority,
    /// The issuer's name fits but a signature does not: another key under the same name.
    #[error("a signature in the chain does not verify")]
    Signature,
    /// An intermediate or root on the path is outside its dates.
    #[error("an authority in the chain is expired or not yet valid")]
    AuthorityDates,
    /// An intermediate on the path is no signing certificate.
    #[error("an intermediate certificate may not sign")]
    Intermediate(#[source] AuthorityError),
    /// Path validation failed in another way: path length, name constraints, an unsupported algorithm and the like.
    #[error("the certificate chain is not valid")]
    Path(#[source] webpki::Error),
    /// The peer is who it says, but not whom this side wanted.
    #[error("peer `{0}` is not the one expected")]
    UnexpectedPeer(SpiffeId),
    /// The certificate is among those that [`TrustBundles::with_denied`] names.
    #[error("the certificate {serial} of `{id}` is revoked")]
    Revoked {
        /// The ID it carries.
        id: SpiffeId,
        /// Its serial number, lower-case hex.
        serial: String,
    },
    /// At first contact: the chain does not hold the root whose hash was given.
    #[error("the certificate chain does not lead to the root that was pinned")]
    RootNotPinned,
}

impl VerifyError {
    /// A stable, lower-case name of the reason. Codes are never renamed; new ones may come.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::ChainTooLarge { .. } => "chain-too-large",
            Self::Leaf(error) => error.code(),
            Self::UnknownTrustDomain(_) => "unknown-trust-domain",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::UnknownAuthority => "unknown-authority",
            Self::Signature => "bad-signature",
            Self::AuthorityDates => "authority-dates",
            Self::Intermediate(_) => "bad-intermediate",
            Self::Path(_) => "bad-path",
            Self::UnexpectedPeer(_) => "unexpected-peer",
            Self::Revoked { .. } => "revoked",
            Self::RootNotPinned => "root-not-pinned",
        }
    }

    /// Where to look for the cause.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::UnknownTrustDomain(_) | Self::UnknownAuthority | Self::UnexpectedPeer(_) | Self::RootNotPinned => {
                Fault::Trust
            }
            Self::Expired { .. } | Self::NotYetValid { .. } | Self::AuthorityDates => Fault::Time,
            _ => Fault::Peer,
        }
    }
}

/// A peer whose certificate chain has passed every check at the moment of its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    id: SpiffeId,
    dns_names: Vec<String>,
    not_after: UnixTime,
    serial: String,
    certificate_sha256: [u8; 32],
    subject: String,
}

impl VerifiedPeer {
    /// The peer's SPIFFE ID. It always has a path.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The DNS names that the leaf carries besides.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The end of the leaf: a connection should not live longer.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// The leaf's serial number, lower-case hex without separators.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// SHA-256 of the leaf's DER.
    #[must_use]
    pub fn certificate_sha256(&self) -> &[u8; 32] {
        &self.certificate_sha256
    }

    /// The leaf's subject in the notation of RFC 2253 and 4514, most specific part first; often empty.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    #[cfg(test)]
    pub(crate) fn for_memo_tests(id: SpiffeId) -> Self {
        let (serial, subject) = (String::new(), String::new());
        let dns_names = Vec::new();
        Self { id, dns_names, not_after: UnixTime::now(), serial, certificate_sha256: [0; 32], subject }
    }
}

/// Verifies a chain, leaf first, as X.509-SVID section 5 and RFC 5280 demand, against the bundle of the ID's own trust domain.
///
/// The order of intermediates does not matter, and those that are not needed are passed over. A root in the chain is no anchor.
/// An accepted chain is remembered with `bundles`, so asking again (after a handshake, or for the peer's next connection) costs a
/// hash instead of signatures.
///
/// # Errors
/// A [`VerifyError`]; the first rule broken, the leaf's own before its path's, and [`VerifyError::Revoked`] last: nobody but the
/// holder of a good certificate learns that it is revoked.
pub fn verify_peer(
    chain: &[CertificateDer<'_>],
    bundles: &TrustBundles,
    now: UnixTime,
) -> Result<VerifiedPeer, VerifyError> {
    check_size(chain)?;
    let hash = memo::hash(chain);
    if let Some(peer) = bundles.memo().get(&hash, now) {
        return admitted(peer, bundles);
    }
    let (peer, window) = verify(chain, bundles, now)?;
    bundles.memo().put(hash, peer.clone(), window);
    admitted(peer, bundles)
}

/// Revocation is asked each time, and never remembered: it changes while everything else about a chain stays.
fn admitted(peer: VerifiedPeer, bundles: &TrustBundles) -> Result<VerifiedPeer, VerifyError> {
    if bundles.denies(peer.serial()) {
        return Err(VerifyError::Revoked { id: peer.id, serial: peer.serial });
    }
    Ok(peer)
}

/// Who it is, and in which span of time the same chain gives the same answer.
fn verify(
    chain: &[CertificateDer<'_>],
    bundles: &TrustBundles,
    now: UnixTime,
) -> Result<(VerifiedPeer, Window), VerifyError> {
    let (end, intermediates) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
    let leaf = Leaf::parse(end)?;
    let unknown = || VerifyError::UnknownTrustDomain(leaf.id.trust_domain());
    let bundle = bundles.get(leaf.id.trust_domain_name()).ok_or_else(unknown)?;
    check_dates(&leaf, now)?;
    let end_entity = EndEntityCert::try_from(end).map_err(LeafError::Unsupported)?;
    let anchors = Anchors { anchors: bundle.anchors(), rules: bundle.rules() };
    let path_window = anchors.verify(&end_entity, intermediates, now)?;
    let window = path_window.intersect(leaf.window);
    let peer = VerifiedPeer {
        id: leaf.id,
        dns_names: leaf.dns_names,
        not_after: leaf.window.until,
        serial: leaf.serial,
        certificate_sha256: sha256(end),
        subject: leaf.subject,
    };
    Ok((peer, window))
}

pub(crate) fn check_size(chain: &[CertificateDer<'_>]) -> Result<(), VerifyError> {
    let (certificates, bytes) = (chain.len(), chain.iter().map(|der| der.len()).sum());
    if certificates > MAX_CHAIN_CERTIFICATES || bytes > MAX_CHAIN_BYTES {
        return Err(VerifyError::ChainTooLarge { certificates, bytes });
    }
    Ok(())
}

fn check_dates(leaf: &Leaf, now: UnixTime) -> Result<(), VerifyError> {
    let (id, Window { from, until }) = (leaf.id.clone(), leaf.window);
    if now < from {
        return Err(VerifyError::NotYetValid { id, not_before: from });
    }
    if now > until {
        return Err(VerifyError::Expired { id, not_after: until });
    }
    Ok(())
}

/// A time for people: `2026-01-31T12:00:00Z`.
fn rfc3339(time: UnixTime) -> String {
    let seconds = time.as_secs();
    der::DateTime::from_unix_duration(std::time::Duration::from_secs(seconds))
        .map_or_else(|_| format!("second {seconds} of Unix time"), |time| time.to_string())
}
