//! The text of the stored identity: JSON around PEM, so that an operator can look at it.

use palisade_identity::{Identity, PrivateKey, TrustBundle, TrustBundles, TrustDomain, X509Svid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use zeroize::Zeroizing;

use crate::pem;

/// The version of the format written, and the newest that is read.
pub const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    format: u32,
    certificate_chain: String,
    /// Borrowed where it can be, so that fewer copies of the key are made.
    #[serde(borrow)]
    private_key: std::borrow::Cow<'a, str>,
    /// PEM by the name of the trust domain.
    bundles: BTreeMap<String, String>,
}

/// Read before everything else: a newer format may have other fields.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// Why a stored identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DecodeIdentityError {
    /// Written by a newer agent.
    #[error("format {found} is newer than this agent, which reads up to {FORMAT}")]
    Newer {
        /// The format of the file.
        found: u32,
    },
    /// No JSON, or not with the fields of the format.
    #[error("it is damaged")]
    Damaged(#[source] serde_json::Error),
    /// A part does not hold what it should: certificates, key, or bundles.
    #[error("its {part} cannot be used")]
    Part {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The identity belongs to another trust domain than the agent.
    #[error("it is of trust domain `{}`, not `{}`", found.as_str(), expected.as_str())]
    Foreign {
        /// The stored identity's trust domain.
        found: TrustDomain,
        /// The agent's.
        expected: TrustDomain,
    },
    /// The certificate is not the entry's.
    #[error("it holds the certificate of `{found}` for entry `{entry}`, which names another ID")]
    OtherEntry {
        /// Whose certificate it is.
        found: palisade_identity::SpiffeId,
        /// The entry.
        entry: String,
    },
    /// There is no bundle for the identity's own trust domain.
    #[error("the trust bundle of its own trust domain is missing")]
    NoBundle,
}

impl DecodeIdentityError {
    pub(super) fn part<E: std::error::Error + Send + Sync + 'static>(part: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Part { part, source: Box::new(source) }
    }
}

pub(super) fn encode(identity: &Identity) -> Zeroizing<String> {
    let key = identity.svid.key().to_pem();
    let stored = Stored {
        format: FORMAT,
        certificate_chain: identity.svid.chain_pem(),
        private_key: std::borrow::Cow::Borrowed(key.as_str()),
        bundles: identity
            .bundles
            .iter()
            .map(|bundle| (bundle.trust_domain().as_str().to_owned(), bundle.to_pem()))
            .collect(),
    };
    // Strings under string keys: there is nothing here that JSON cannot hold.
    Zeroizing::new(serde_json::to_string_pretty(&stored).unwrap_or_default())
}

pub(super) fn decode(text: &str, expected: &TrustDomain) -> Result<Identity, DecodeIdentityError> {
    let version: Version = serde_json::from_str(text).map_err(DecodeIdentityError::Damaged)?;
    if version.format > FORMAT {
        return Err(DecodeIdentityError::Newer { found: version.format });
    }
    let stored: Stored<'_> = serde_json::from_str(text).map_err(DecodeIdentityError::Damaged)?;
    let chain = pem::certificates(&stored.certificate_chain).map_err(DecodeIdentityError::part("certificate chain"))?;
    let pem_key = Zeroizing::new(stored.private_key.into_owned());
    let key = PrivateKey::from_pem(pem_key.as_bytes()).map_err(DecodeIdentityError::part("private key"))?;
    let svid = X509Svid::new(chain, key).map_err(DecodeIdentityError::part("certificate"))?;
    let found = svid.id().trust_domain();
    if found != *expected {
        return Err(DecodeIdentityError::Foreign { found, expected: expected.clone() });
    }
    let bundles = bundles(&stored.bundles)?;
    if bundles.get(expected.as_str()).is_none() {
        return Err(DecodeIdentityError::NoBundle);
    }
    Ok(Identity { svid: Arc::new(svid), bundles: Arc::new(bundles) })
}

fn bundles(stored: &BTreeMap<String, String>) -> Result<TrustBundles, DecodeIdentityError> {
    let mut bundles = TrustBundles::default();
    for (name, pem) in stored {
        let domain = TrustDomain::parse(name).map_err(DecodeIdentityError::part("trust domain"))?;
        let bundle =
            TrustBundle::from_pem(domain, pem.as_bytes()).map_err(DecodeIdentityError::part("trust bundle"))?;
        bundles.insert(bundle);
    }
    Ok(bundles)
}
