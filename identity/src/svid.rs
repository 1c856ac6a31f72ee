//! An X.509-SVID with its key: what a workload authenticates with.
//!
//! It is checked when it is made (the leaf obeys the SPIFFE rules, the key is the leaf's) and again by
//! [`usable`](X509Svid::usable) before it is pushed or installed. Envoy takes an expired certificate or a foreign one over SDS
//! without a word and then fails every handshake, so nothing leaves here unchecked.

use std::fmt;

use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;

use crate::bundle::certificates_pem;
use crate::certificate::{Authority, AuthorityError, Leaf, LeafError};
use crate::verify::check_size;
use crate::{PrivateKey, SpiffeId, TrustBundles, VerifyError, verify_peer};

/// Why a chain and a key are no usable X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SvidError {
    /// No certificate, or too many.
    #[error("the certificate chain cannot be used")]
    Chain(#[source] VerifyError),
    /// The first certificate is no X.509-SVID leaf (the leaf comes first).
    #[error("the first certificate is not an X.509-SVID")]
    Leaf(#[from] LeafError),
    /// A certificate after the leaf is no signing certificate.
    #[error("certificate {position} of the chain may not sign")]
    Authority {
        /// Position in the chain; the leaf is 1.
        position: usize,
        /// The rule it breaks.
        source: AuthorityError,
    },
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// Peers would not accept it at this moment.
    #[error("peers would refuse the certificate of `{id}`")]
    Unusable {
        /// Whose certificate it is.
        id: SpiffeId,
        /// The reason a peer would give.
        source: VerifyError,
    },
}

/// A certificate chain, leaf first, with the leaf's private key.
#[derive(Clone)]
pub struct X509Svid {
    leaf: Leaf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
}

impl X509Svid {
    /// Checks the leaf against the X.509-SVID rules, that everything after it may sign, and that `key` is the leaf's.
    ///
    /// # Errors
    /// A [`SvidError`]. Dates and trust are the business of [`usable`](Self::usable).
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, SvidError> {
        check_size(&chain).map_err(SvidError::Chain)?;
        let (end, rest) = chain.split_first().ok_or(SvidError::Chain(VerifyError::NoCertificate))?;
        let leaf = Leaf::parse(end)?;
        for (index, authority) in rest.iter().enumerate() {
            let position = index + 2;
            Authority::parse(authority).map_err(|source| SvidError::Authority { position, source })?;
        }
        if leaf.public_key != key.public_key_der() {
            return Err(SvidError::KeyMismatch);
        }
        Ok(Self { leaf, chain, key })
    }

    /// The ID that the leaf carries.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// The certificates as given, leaf first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The leaf's private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The beginning of the leaf.
    #[must_use]
    pub fn not_before(&self) -> UnixTime {
        self.leaf.window.from
    }

    /// The end of the leaf; the second itself still belongs to it.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.leaf.window.until
    }

    /// The leaf's serial number, lower-case hex without separators.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    /// The chain as PEM, leaf first.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        certificates_pem(&self.chain)
    }

    /// Whether a peer that trusts `bundles` would accept this SVID at `now`: call it before every push and installation.
    ///
    /// # Errors
    /// [`SvidError::Unusable`] with the reason that the peer would give.
    pub fn usable(&self, bundles: &TrustBundles, now: UnixTime) -> Result<(), SvidError> {
        match verify_peer(&self.chain, bundles, now) {
            Ok(_) => Ok(()),
            Err(source) => Err(SvidError::Unusable { id: self.leaf.id.clone(), source }),
        }
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("id", &self.leaf.id)
            .field("serial", &self.leaf.serial)
            .field("not_after", &self.leaf.window.until)
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}
