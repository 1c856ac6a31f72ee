//! Certificate requests: a stranger's bytes become a [`Csr`], or a reason.
//!
//! All that is taken from a request is its public key, proven by the request's own signature. Subject and
//! names are never copied; a URI it asks for is only compared with the ID that attestation found, so that
//! a client which believes to be somebody else learns it here and not from its peers.

use der::asn1::{BitStringRef, ObjectIdentifier};
use der::{AnyRef, Decode, Encode, Reader, SliceReader, Tagged};
use palisade_identity::SpiffeId;
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::request::{CertReqInfo, ExtensionReq};

mod key;

pub use key::ExtraKeys;
pub(crate) use key::PublicKey;

/// The largest request read, in bytes of PEM: RSA with 8192 bits and some names fit several times.
pub(crate) const MAX_CSR_BYTES: usize = 32 * 1_024;

/// The attribute of PKCS#9 that carries extensions, and Microsoft's, which means the same: what the first may not ask, the
/// second may not either.
const EXTENSION_REQUESTS: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14"), ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.14")];
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// What a request may carry without being refused; only the first is even looked at.
const KNOWN_EXTENSIONS: [ObjectIdentifier; 4] = [
    SUBJECT_ALT_NAME,
    ObjectIdentifier::new_unwrap("2.5.29.19"),
    ObjectIdentifier::new_unwrap("2.5.29.15"),
    ObjectIdentifier::new_unwrap("2.5.29.37"),
];

/// A request whose signature is good and whose key we would sign.
#[derive(Clone, Debug)]
pub struct Csr {
    key: PublicKey,
    uri: Option<String>,
}

/// Why a request is refused. The texts go to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// Longer than a request of any accepted key can be.
    #[error("the request has {0} bytes, at most {MAX_CSR_BYTES} are read")]
    TooLong(usize),
    /// None, several, or one of another kind.
    #[error("expected exactly one PEM block, of type CERTIFICATE REQUEST")]
    NotOneBlock,
    /// Not PKCS#10 in DER, or bytes after it.
    #[error("the request is not valid PKCS#10: {0}")]
    Malformed(String),
    /// Another attribute or extension twice, so that two readers could differ.
    #[error("the request carries `{0}` twice")]
    Twice(String),
    /// An extension that no request needs.
    #[error("the request asks for extension {0}, which is never granted")]
    Extension(String),
    /// The key's kind or curve, by name where it has one, else its OID.
    #[error("keys of kind `{0}` are not accepted: use ECDSA P-256 or P-384, or RSA from 2048 bits")]
    KeyKind(String),
    /// An RSA key that is too short or too long.
    #[error("an RSA key must have 2048 to 8192 bits, not {0}")]
    RsaSize(usize),
    /// An RSA key with an exponent that is even or below 65537.
    #[error("an RSA key must have an odd public exponent of at least 65537")]
    RsaExponent,
    /// An EC point that is not in uncompressed form, or a key of the wrong length.
    #[error("the key must have its curve's length, and an EC key be an uncompressed point")]
    Point,
    /// Signed with an algorithm that is not accepted with its key.
    #[error("the request's signature algorithm is not accepted with its key")]
    SignatureAlgorithm,
    /// Whoever made the request does not hold the key.
    #[error("the request's signature does not verify")]
    Signature,
    /// A SPIFFE identity has one URI.
    #[error("the request asks for {0} URIs, an identity has one")]
    SeveralUris(usize),
    /// The ID asked for is not the ID attested.
    #[error("the request asks for another ID than `{attested}`, the one attested")]
    OtherId {
        /// What attestation found.
        attested: SpiffeId,
    },
}

impl CsrError {
    /// A stable name for metrics and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "csr-too-long",
            Self::NotOneBlock => "csr-not-one-block",
            Self::Malformed(_) => "csr-malformed",
            Self::Twice(_) => "csr-duplicate",
            Self::Extension(_) => "csr-extension",
            Self::KeyKind(_) => "csr-key-kind",
            Self::RsaSize(_) => "csr-rsa-size",
            Self::RsaExponent => "csr-rsa-exponent",
            Self::Point => "csr-point",
            Self::SignatureAlgorithm => "csr-signature-algorithm",
            Self::Signature => "csr-signature",
            Self::SeveralUris(_) => "csr-several-uris",
            Self::OtherId { .. } => "csr-other-id",
        }
    }
}

impl Csr {
    /// Reads and verifies one PEM block.
    ///
    /// # Errors
    /// [`CsrError`], for the caller to read.
    pub fn parse(pem: &str, extra: ExtraKeys) -> Result<Self, CsrError> {
        if pem.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLong(pem.len()));
        }
        Self::from_der(&only_block(pem)?, extra)
    }

    /// Reads and verifies one PKCS#10 request in DER.
    ///
    /// # Errors
    /// [`CsrError`], for the caller to read.
    pub fn from_der(der: &[u8], extra: ExtraKeys) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_BYTES {
            return Err(CsrError::TooLong(der.len()));
        }
        let Parts { signed, algorithm, signature } = split(der).map_err(malformed)?;
        let info = CertReqInfo::from_der(signed).map_err(malformed)?;
        let key = PublicKey::check(&info.public_key, extra)?;
        let uri = requested_uri(&info)?;
        key.verify(signed, algorithm, signature)?;
        Ok(Self { key, uri })
    }

    /// Refuses a request that asks for another ID than `attested`; one that asks for none is fine.
    ///
    /// # Errors
    /// [`CsrError::OtherId`].
    pub fn check_id(&self, attested: &SpiffeId) -> Result<(), CsrError> {
        match &self.uri {
            Some(uri) if uri != attested.as_str() => Err(CsrError::OtherId { attested: attested.clone() }),
            _ => Ok(()),
        }
    }

    /// SHA-256 of the key's SubjectPublicKeyInfo: the same key has the same value, whatever the request.
    #[must_use]
    pub fn key_sha256(&self) -> [u8; 32] {
        self.key.sha256()
    }

    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }
}

fn malformed(error: der::Error) -> CsrError {
    CsrError::Malformed(error.to_string())
}

fn only_block(pem: &str) -> Result<Vec<u8>, CsrError> {
    // The parser skips kinds it does not know; the count does not.
    if pem.matches("-----BEGIN ").count() != 1 {
        return Err(CsrError::NotOneBlock);
    }
    let mut blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes());
    match (blocks.next(), blocks.next()) {
        (Some(Ok((SectionKind::Csr, der))), None) => Ok(der),
        _ => Err(CsrError::NotOneBlock),
    }
}

/// The three parts of a signed structure, as they stand in the bytes.
struct Parts<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

fn split(der: &[u8]) -> Result<Parts<'_>, der::Error> {
    let mut reader = SliceReader::new(der)?;
    let parts = reader.sequence(|inner| {
        let signed = inner.tlv_bytes()?;
        let algorithm: AnyRef<'_> = inner.decode()?;
        algorithm.tag().assert_eq(der::Tag::Sequence)?;
        let signature: BitStringRef<'_> = inner.decode()?;
        let signature = signature.as_bytes().ok_or(der::ErrorKind::Value { tag: der::Tag::BitString })?;
        Ok::<_, der::Error>(Parts { signed, algorithm: algorithm.value(), signature })
    })?;
    reader.finish()?;
    Ok(parts)
}

fn requested_uri(info: &CertReqInfo) -> Result<Option<String>, CsrError> {
    let extensions = extensions(info)?;
    for extension in &extensions {
        let oid = extension.extn_id;
        if !KNOWN_EXTENSIONS.contains(&oid) {
            return Err(CsrError::Extension(oid.to_string()));
        }
        if extensions.iter().filter(|other| other.extn_id == oid).count() > 1 {
            return Err(CsrError::Twice(oid.to_string()));
        }
    }
    let Some(names) = extensions.iter().find(|extension| extension.extn_id == SUBJECT_ALT_NAME) else {
        return Ok(None);
    };
    let names = SubjectAltName::from_der(names.extn_value.as_bytes()).map_err(malformed)?;
    let mut uris = names.0.into_iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (uri, 0) => Ok(uri),
        (_, more) => Err(CsrError::SeveralUris(more.saturating_add(1))),
    }
}

fn extensions(info: &CertReqInfo) -> Result<Vec<Extension>, CsrError> {
    let mut requests = info.attributes.iter().filter(|attribute| EXTENSION_REQUESTS.contains(&attribute.oid));
    let (Some(request), second) = (requests.next(), requests.next()) else { return Ok(Vec::new()) };
    if second.is_some() || request.values.len() != 1 {
        return Err(CsrError::Twice(request.oid.to_string()));
    }
    let value = request.values.iter().next().map(Encode::to_der).transpose().map_err(malformed)?;
    let request = ExtensionReq::from_der(&value.unwrap_or_default()).map_err(malformed)?;
    Ok(request.0)
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;
