//! Which public keys are signed, and how a request proves that its maker holds one.
//!
//! What is refused is refused by name: an operator who sees `secp256k1` in a log knows which program to look at.

use der::asn1::UintRef;
use der::{Encode, Reader, SliceReader};
use rcgen::{PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::aws_lc_rs as algorithms;
use x509_cert::spki::{ObjectIdentifier, SubjectPublicKeyInfoOwned};

use super::{CsrError, malformed};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Kinds of keys and curves that others make, by name.
const NAMES: &[(&str, &str)] = &[
    ("1.3.101.112", "Ed25519"),
    ("1.3.101.113", "Ed448"),
    ("1.3.101.110", "X25519"),
    ("1.2.840.10040.4.1", "DSA"),
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.10045.3.1.1", "P-192"),
    ("1.3.132.0.33", "P-224"),
    ("1.3.132.0.35", "P-521"),
    ("1.3.132.0.10", "secp256k1"),
    ("1.3.36.3.3.2.8.1.1.7", "brainpoolP256r1"),
    ("1.3.36.3.3.2.8.1.1.11", "brainpoolP384r1"),
];

/// Keys that are signed beside P-256, P-384 and RSA, because an operator wants them. Not every peer takes them: Envoy
/// refuses Ed25519.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtraKeys {
    /// Ed25519 (RFC 8410).
    pub ed25519: bool,
    /// ECDSA on P-521.
    pub p521: bool,
}

/// Every way a request may be signed; each fits one kind of key.
static ACCEPTED: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// A public key of an accepted kind and size.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    encoding: &'static SignatureAlgorithm,
    algorithm: Vec<u8>,
    bits: Vec<u8>,
    sha256: [u8; 32],
}

impl PublicKey {
    pub(super) fn check(info: &SubjectPublicKeyInfoOwned, extra: ExtraKeys) -> Result<Self, CsrError> {
        let bits = info.subject_public_key.as_bytes().ok_or(CsrError::Point)?.to_vec();
        let encoding = encoding(info, &bits, extra)?;
        let spki = info.to_der().map_err(malformed)?;
        let algorithm = contents(&info.algorithm.to_der().map_err(malformed)?)?;
        Ok(Self { encoding, algorithm, bits, sha256: crate::signer::sha256(&spki) })
    }

    pub(super) fn verify(&self, signed: &[u8], algorithm: &[u8], signature: &[u8]) -> Result<(), CsrError> {
        let fits = |candidate: &&&dyn SignatureVerificationAlgorithm| {
            *candidate.public_key_alg_id() == *self.algorithm && *candidate.signature_alg_id() == *algorithm
        };
        let accepted = ACCEPTED.iter().find(fits).ok_or(CsrError::SignatureAlgorithm)?;
        accepted.verify_signature(&self.bits, signed, signature).map_err(|_| CsrError::Signature)
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        self.sha256
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.encoding
    }
}

/// The kind of a key, if it is one that is signed.
fn encoding(
    info: &SubjectPublicKeyInfoOwned,
    bits: &[u8],
    extra: ExtraKeys,
) -> Result<&'static SignatureAlgorithm, CsrError> {
    let (oid, parameters) = (info.algorithm.oid, info.algorithm.parameters.as_ref());
    if oid == RSA && parameters.is_some_and(|parameters| parameters.is_null()) {
        check_rsa(bits)?;
        return Ok(&rcgen::PKCS_RSA_SHA256);
    }
    if oid == ED25519 && parameters.is_none() && extra.ed25519 {
        return if bits.len() == 32 { Ok(&rcgen::PKCS_ED25519) } else { Err(CsrError::Point) };
    }
    if oid != EC {
        return Err(CsrError::KeyKind(name(oid)));
    }
    let curve = parameters.and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
    let (encoding, point) = match curve {
        Some(P256) => (&rcgen::PKCS_ECDSA_P256_SHA256, 65),
        Some(P384) => (&rcgen::PKCS_ECDSA_P384_SHA384, 97),
        Some(P521) if extra.p521 => (&rcgen::PKCS_ECDSA_P521_SHA512, 133),
        Some(curve) => return Err(CsrError::KeyKind(name(curve))),
        None => return Err(CsrError::KeyKind("EC without a named curve".to_owned())),
    };
    if bits.len() == point && bits.first() == Some(&4) { Ok(encoding) } else { Err(CsrError::Point) }
}

fn name(oid: ObjectIdentifier) -> String {
    let text = oid.to_string();
    NAMES.iter().find(|(known, _)| *known == text).map_or(text, |(_, name)| (*name).to_owned())
}

/// RSAPublicKey (RFC 8017, A.1.1): a modulus that is neither weak nor a burden, and a sane exponent.
fn check_rsa(key: &[u8]) -> Result<(), CsrError> {
    let (modulus, exponent) = rsa_numbers(key).map_err(malformed)?;
    let leading = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = (modulus.len() * 8).saturating_sub(leading);
    if !(2_048..=8_192).contains(&bits) {
        return Err(CsrError::RsaSize(bits));
    }
    let odd = exponent.last().is_some_and(|byte| byte & 1 == 1);
    // 65537 is the least number of three bytes that is odd and allowed.
    let large = exponent.len() > 3 || (exponent.len() == 3 && exponent != [1, 0, 0]);
    if odd && large { Ok(()) } else { Err(CsrError::RsaExponent) }
}

fn rsa_numbers(key: &[u8]) -> Result<(&[u8], &[u8]), der::Error> {
    let mut reader = SliceReader::new(key)?;
    let numbers = reader.sequence(|inner| {
        let modulus: UintRef<'_> = inner.decode()?;
        let exponent: UintRef<'_> = inner.decode()?;
        Ok::<_, der::Error>((modulus.as_bytes(), exponent.as_bytes()))
    })?;
    reader.finish()?;
    Ok(numbers)
}

/// What stands inside a SEQUENCE: the form in which rustls compares algorithm identifiers.
fn contents(sequence: &[u8]) -> Result<Vec<u8>, CsrError> {
    let any = <der::AnyRef<'_> as der::Decode<'_>>::from_der(sequence).map_err(malformed)?;
    Ok(any.value().to_vec())
}
