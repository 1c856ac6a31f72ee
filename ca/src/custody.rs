//! Who holds the private keys: everybody else has a public key and asks for signatures.
//!
//! [`Custody`] makes and finds keys by name, a [`SigningKey`] signs; neither has a way to hand a private key out, so what
//! keeps them (a file now, a device or a service another day) is nobody else's business. A key's name is derived from its
//! public half, and so a certificate says by itself which key it needs.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use crate::directory::DirectoryError;
use crate::signer::{hex, sha256};

pub(crate) mod file;
pub(crate) mod passphrase;
pub(crate) mod software;

pub use file::Passphrase;

/// How a key signs: its kind and the digest that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// RSA, PKCS#1 v1.5 with SHA-256.
    Rsa,
}

impl Scheme {
    /// The AlgorithmIdentifier of its signatures, DER (RFC 5758, RFC 4055).
    #[must_use]
    pub fn identifier(self) -> &'static [u8] {
        match self {
            Self::EcdsaP256 => &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
            Self::EcdsaP384 => &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
            Self::Rsa => &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00],
        }
    }
}

/// A key that signs and stays where it is.
pub trait SigningKey: Debug + Send + Sync {
    /// The SubjectPublicKeyInfo, DER.
    fn public_key(&self) -> &[u8];

    /// How it signs.
    fn scheme(&self) -> Scheme;

    /// The signature over `tbs`, as it stands in a certificate.
    ///
    /// # Errors
    /// [`CustodyError::Sign`].
    fn sign(&self, tbs: &[u8]) -> Result<Vec<u8>, CustodyError>;
}

/// Keeps the keys that were made here.
pub trait Custody: Debug + Send + Sync {
    /// Makes a P-256 key. It is durable under its [`key_name`] when this returns.
    ///
    /// # Errors
    /// [`CustodyError`].
    fn generate(&self) -> Result<Arc<dyn SigningKey>, CustodyError>;

    /// The key of this name, `None` if there is none.
    ///
    /// # Errors
    /// [`CustodyError`], naming where the key is kept and what to do.
    fn find(&self, name: &str) -> Result<Option<Arc<dyn SigningKey>>, CustodyError>;

    /// Destroys the key of this name, if there is one.
    ///
    /// # Errors
    /// [`CustodyError`].
    fn destroy(&self, name: &str) -> Result<(), CustodyError>;
}

/// The name of the key whose SubjectPublicKeyInfo this is: 160 bits of its SHA-256, lower-case hex (RFC 7093, 2, method 4).
#[must_use]
pub fn key_name(public_key: &[u8]) -> String {
    hex(sha256(public_key).get(..20).unwrap_or_default())
}

/// Why a key cannot be made, found or used. No variant holds a byte of one.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The directory or a file in it.
    #[error("the key cannot be kept")]
    Directory(#[from] DirectoryError),
    /// The file is no key that can sign here.
    #[error("`{}` does not hold one P-256, P-384 or RSA (from 2048 bits) private key: restore it from a backup", .0.display())]
    Damaged(PathBuf),
    /// The file is another key than its name says.
    #[error("the key in `{}` is not the one that its name says: restore it from a backup", .0.display())]
    Misnamed(PathBuf),
    /// The file needs a passphrase and none is configured.
    #[error("the key in `{}` is encrypted: name the file with its passphrase (`--ca-passphrase-file`)", .0.display())]
    PassphraseMissing(PathBuf),
    /// The passphrase does not open the file.
    #[error("the passphrase does not open `{}`: check the file with the passphrase, or restore the key from a backup", .0.display())]
    PassphraseWrong(PathBuf),
    /// Making a key failed.
    #[error("no key could be made")]
    Generate,
    /// Signing failed.
    #[error("the key did not sign")]
    Sign,
}
