//! A key in this process's memory.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256,
};
use palisade_identity::PrivateKey;
use zeroize::Zeroizing;

use super::{CustodyError, Scheme, SigningKey};

const LEAST_RSA_BITS: usize = 2_048;

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A private key that was read or made here; wiped by the library when it is dropped.
pub(crate) struct SoftwareKey {
    pair: Pair,
    scheme: Scheme,
    public_key: Vec<u8>,
}

impl SoftwareKey {
    /// A new P-256 key, and its PKCS#8 for whoever keeps it.
    pub(crate) fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), CustodyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| CustodyError::Generate)?;
        let document = pair.to_pkcs8v1().map_err(|_| CustodyError::Generate)?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        let key = Self::from_pkcs8(&pkcs8).ok_or(CustodyError::Generate)?;
        Ok((key, pkcs8))
    }

    /// Reads an unencrypted key: PKCS#8, of a kind that signs certificates here.
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        // Also refuses what TLS could not sign with, and bytes after the key.
        let public_key = PrivateKey::from_pkcs8_der(pkcs8.to_vec()).ok()?.public_key_der();
        let curves = [
            (&ECDSA_P256_SHA256_ASN1_SIGNING, Scheme::EcdsaP256),
            (&ECDSA_P384_SHA384_ASN1_SIGNING, Scheme::EcdsaP384),
        ];
        for (algorithm, scheme) in curves {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8) {
                return Some(Self { pair: Pair::Ecdsa(pair), scheme, public_key });
            }
        }
        let pair = RsaKeyPair::from_pkcs8(pkcs8).ok().filter(|pair| pair.public_modulus_len() * 8 >= LEAST_RSA_BITS)?;
        Some(Self { pair: Pair::Rsa(pair), scheme: Scheme::Rsa, public_key })
    }

    /// Reads PEM: PKCS#8, SEC1 or PKCS#1.
    pub(crate) fn from_pem(pem: &[u8]) -> Option<Self> {
        Self::from_pkcs8(PrivateKey::from_pem(pem).ok()?.as_pkcs8_der())
    }
}

impl SigningKey for SoftwareKey {
    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn scheme(&self) -> Scheme {
        self.scheme
    }

    fn sign(&self, tbs: &[u8]) -> Result<Vec<u8>, CustodyError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => {
                pair.sign(&random, tbs).map(|signature| signature.as_ref().to_vec()).map_err(|_| CustodyError::Sign)
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, tbs, &mut signature).map_err(|_| CustodyError::Sign)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftwareKey({:?}, elided)", self.scheme)
    }
}
