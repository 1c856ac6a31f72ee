//! Private keys.
//!
//! A key is checked when it comes in (it parses, and the TLS stack can sign with it), so that a wrong one fails where it is read
//! and not in a handshake. The bytes are wiped when the last owner lets go, and no `Debug` or error ever shows them.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    RsaKeyPair,
};
use der::Decode;
use der::asn1::AnyRef;
use der::pem::LineEnding;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use zeroize::Zeroizing;

const MAX_BYTES: usize = 64 * 1024;

/// Why something is no usable private key. Never shows a byte of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not PKCS#8, damaged, or an algorithm or size that TLS cannot sign with (RSA under 2048 bits, P-224 and the like).
    #[error("not a usable private key: want PKCS#8 with P-256, P-384, P-521, Ed25519 or RSA of 2048 bits or more")]
    Rejected,
    /// More than 64 KiB.
    #[error("a private key has at most 64 KiB, this input has {0} bytes")]
    TooLarge(usize),
    /// The text is not PEM, or is cut off.
    #[error("the PEM text is damaged or cut off")]
    Pem,
    /// The PEM text holds no private key.
    #[error("the PEM text holds no private key")]
    Missing,
    /// The PEM text holds more than one private key, and picking one would be a guess.
    #[error("the PEM text holds more than one private key")]
    Several,
    /// The key is encrypted with a passphrase.
    #[error("the private key is encrypted; decrypt it first (`openssl pkcs8 -in FILE -out FILE`)")]
    Encrypted,
    /// The random number generator failed.
    #[error("no key could be generated")]
    Generate,
}

/// A private key, PKCS#8. Cheap to clone: the clones share one copy of the secret, wiped with the last of them.
#[derive(Clone)]
pub struct PrivateKey {
    pkcs8: Arc<Zeroizing<Vec<u8>>>,
    signer: Arc<dyn SigningKey>,
}

impl PrivateKey {
    /// Takes an unencrypted PKCS#8 DER key (RFC 5958).
    ///
    /// # Errors
    /// [`KeyError::Rejected`] or [`KeyError::TooLarge`].
    pub fn from_pkcs8_der(der: Vec<u8>) -> Result<Self, KeyError> {
        let pkcs8 = Zeroizing::new(der);
        if pkcs8.len() > MAX_BYTES {
            return Err(KeyError::TooLarge(pkcs8.len()));
        }
        // The crypto library reads one key and does not mind what follows; bytes that nobody reads are no key.
        AnyRef::from_der(&pkcs8).map_err(|_| KeyError::Rejected)?;
        let borrowed = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_slice()));
        let signer = any_supported_type(&borrowed).map_err(|_| KeyError::Rejected)?;
        Ok(Self { pkcs8: Arc::new(pkcs8), signer })
    }

    /// Reads the one private key of a PEM text: PKCS#8 (`PRIVATE KEY`), or SEC1 (`EC PRIVATE KEY`) and PKCS#1 (`RSA PRIVATE KEY`),
    /// which are converted. Certificates and parameters beside it are passed over.
    ///
    /// # Errors
    /// Any [`KeyError`] but `Generate`.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        if text.len() > MAX_BYTES {
            return Err(KeyError::TooLarge(text.len()));
        }
        let mut found = None;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let (kind, der) = section.map_err(|_| KeyError::Pem)?;
            let der = Zeroizing::new(der);
            if let Some(pkcs8) = to_pkcs8(kind, der)?
                && found.replace(pkcs8).is_some()
            {
                return Err(KeyError::Several);
            }
        }
        match found {
            Some(pkcs8) => Self::from_pkcs8_der(pkcs8),
            None if contains(text, b"ENCRYPTED PRIVATE KEY") => Err(KeyError::Encrypted),
            None => Err(KeyError::Missing),
        }
    }

    /// Makes a new P-256 key.
    ///
    /// # Errors
    /// [`KeyError::Generate`] if the system's random numbers fail.
    pub fn generate_p256() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| KeyError::Generate)?;
        let document = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
        Self::from_pkcs8_der(document.as_ref().to_vec())
    }

    /// The key as unencrypted PKCS#8 DER. A secret: keep copies in [`Zeroizing`].
    #[must_use]
    pub fn as_pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key as PEM, `PRIVATE KEY`.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        // Encoding only fails on a length overflow, which MAX_BYTES rules out.
        Zeroizing::new(der::pem::encode_string("PRIVATE KEY", LineEnding::LF, &self.pkcs8).unwrap_or_default())
    }

    /// The SubjectPublicKeyInfo DER of the public half.
    #[must_use]
    pub fn public_key_der(&self) -> Vec<u8> {
        self.signer.public_key().map(|spki| spki.to_vec()).unwrap_or_default()
    }

    pub(crate) fn signer(&self) -> Arc<dyn SigningKey> {
        Arc::clone(&self.signer)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?}, redacted)", self.signer.algorithm())
    }
}

fn to_pkcs8(kind: SectionKind, mut der: Zeroizing<Vec<u8>>) -> Result<Option<Vec<u8>>, KeyError> {
    match kind {
        SectionKind::PrivateKey => Ok(Some(std::mem::take(&mut *der))),
        SectionKind::EcPrivateKey => sec1_to_pkcs8(&der).map(Some),
        SectionKind::RsaPrivateKey => pkcs1_to_pkcs8(&der).map(Some),
        _ => Ok(None),
    }
}

fn sec1_to_pkcs8(der: &[u8]) -> Result<Vec<u8>, KeyError> {
    [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING]
        .into_iter()
        .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok())
        .and_then(|pair| Some(pair.to_pkcs8v1().ok()?.as_ref().to_vec()))
        .ok_or(KeyError::Rejected)
}

fn pkcs1_to_pkcs8(der: &[u8]) -> Result<Vec<u8>, KeyError> {
    let pair = RsaKeyPair::from_der(der).map_err(|_| KeyError::Rejected)?;
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Rejected)?;
    Ok(pkcs8.as_ref().to_vec())
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests;
