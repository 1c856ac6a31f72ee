//! Roots that are made here, and the intermediates below them.
//!
//! The subject is derived from the key: two roots never share a name (some verifiers pick an issuer by name and stop), and a
//! certificate can be checked against its key.

use std::sync::Arc;
use std::time::Duration;

use palisade_identity::{CertificateDer, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};
use time::OffsetDateTime;
use x509_cert::spki::SubjectPublicKeyInfoRef;

mod cross;

use crate::custody::{Scheme, SigningKey};
use crate::signer::{Found, INTERMEDIATE_RENEWED_BEFORE, SignerError, hex, serial, sha256};

/// Signing certificates begin this long before they are made, so that no leaf begins before its signer
/// and a peer whose clock lags still accepts them.
const BACKDATE: Duration = Duration::from_secs(3_600);
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// Which of the two signing certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The trust anchor: signs intermediates only.
    Root,
    /// Signs leaves.
    Intermediate,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Root => "Palisade root",
            Self::Intermediate => "Palisade intermediate",
        }
    }

    fn path_length(self) -> u8 {
        match self {
            Self::Root => 1,
            Self::Intermediate => 0,
        }
    }
}

/// A custody's key in the form the certificate library asks for.
#[derive(Debug)]
struct Borrowed {
    key: Arc<dyn SigningKey>,
    bits: Vec<u8>,
}

impl Borrowed {
    fn new(key: Arc<dyn SigningKey>) -> Result<Self, SignerError> {
        use der::Decode;
        let spki = SubjectPublicKeyInfoRef::from_der(key.public_key()).map_err(make("key"))?;
        let bits = spki.subject_public_key.as_bytes().ok_or(SignerError::Malformed)?.to_vec();
        match key.scheme() {
            Scheme::EcdsaP256 => Ok(Self { key, bits }),
            _ => Err(SignerError::Mismatch),
        }
    }
}

impl PublicKeyData for Borrowed {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Borrowed {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// A root with its key: it makes intermediates.
#[derive(Debug)]
pub(crate) struct Root {
    issuer: Issuer<'static, Borrowed>,
    domain: TrustDomain,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Root {
    /// A new self-signed root for `key`, which must be of kind P-256.
    pub(crate) fn make(
        key: Arc<dyn SigningKey>,
        domain: &TrustDomain,
        now: u64,
        lifetime: Duration,
    ) -> Result<Self, SignerError> {
        let dates = (now.saturating_sub(BACKDATE.as_secs()), now.saturating_add(lifetime.as_secs()));
        let key = Borrowed::new(key)?;
        let params = params(Kind::Root, domain, &key, dates)?;
        let certificate = params.self_signed(&key).map_err(make("root certificate"))?.der().clone();
        let (not_before, not_after) = dates;
        Ok(Self { issuer: Issuer::new(params, key), domain: domain.clone(), certificate, not_before, not_after })
    }

    /// A root that was made before.
    pub(crate) fn open(
        key: Arc<dyn SigningKey>,
        certificate: CertificateDer<'static>,
        domain: &TrustDomain,
    ) -> Result<Self, SignerError> {
        let found = Found::read(&certificate).ok_or(SignerError::Malformed)?;
        if found.key != key.public_key() {
            return Err(SignerError::Mismatch);
        }
        let (not_before, not_after) = (found.not_before, found.not_after);
        let key = Borrowed::new(key)?;
        let params = params(Kind::Root, domain, &key, (not_before, not_after))?;
        Ok(Self { issuer: Issuer::new(params, key), domain: domain.clone(), certificate, not_before, not_after })
    }

    /// A certificate below `self`, within `self`'s dates, by which `key` may sign leaves.
    pub(crate) fn intermediate(
        &self,
        key: Arc<dyn SigningKey>,
        now: u64,
    ) -> Result<CertificateDer<'static>, SignerError> {
        let key = Borrowed::new(key)?;
        let params = params(Kind::Intermediate, &self.domain, &key, self.span(now))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make("intermediate certificate"))?;
        Ok(certificate.der().clone())
    }

    /// The dates of what is certified now.
    fn span(&self, now: u64) -> (u64, u64) {
        let not_before = now.saturating_sub(BACKDATE.as_secs()).max(self.not_before);
        (not_before, now.saturating_add(INTERMEDIATE_LIFETIME.as_secs()).min(self.not_after))
    }

    /// Whether it is time for another intermediate: this one is not of this root, is not valid, or has little left of which
    /// another would have more.
    pub(crate) fn replaces(&self, intermediate: &Found, now: u64) -> bool {
        let root = Found::read(&self.certificate);
        if root.is_none_or(|root| root.subject != intermediate.issuer) || now < intermediate.not_before {
            return true;
        }
        let life = intermediate.not_after.saturating_sub(intermediate.not_before);
        let least = INTERMEDIATE_RENEWED_BEFORE.as_secs().min(life / 3);
        intermediate.not_after.saturating_sub(now) < least && intermediate.not_after < self.not_after
    }

    pub(crate) fn domain(&self) -> &TrustDomain {
        &self.domain
    }
}

fn params(
    kind: Kind,
    domain: &TrustDomain,
    key: &Borrowed,
    (not_before, not_after): (u64, u64),
) -> Result<CertificateParams, SignerError> {
    let mut params = CertificateParams::default();
    let digest = sha256(key.key.public_key());
    let name = format!("{} {}", kind.label(), hex(digest.get(..8).unwrap_or_default()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // "A signing certificate SHOULD itself be an SVID", of the trust domain it signs for and without a path
    // (X509-SVID, section 3.1).
    let uri = domain.id().as_str().to_owned();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(make("URI name"))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(kind.path_length()));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&serial(not_before)?));
    params.not_before = date(not_before)?;
    params.not_after = date(not_after)?;
    Ok(params)
}

fn date(seconds: u64) -> Result<OffsetDateTime, SignerError> {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| make("date")(error))
}

fn make<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> SignerError {
    move |error| SignerError::Make { what, reason: error.to_string() }
}
