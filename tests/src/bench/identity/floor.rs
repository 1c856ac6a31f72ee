//! What the cryptography of one issuance costs by itself: verify a P-256 request, sign a P-256 leaf.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};

const ROUNDS: u32 = 4_000;
/// About the size of a request or of a leaf before its signature.
const MESSAGE: [u8; 400] = [0x5a; 400];

/// Microseconds for both.
///
/// # Errors
/// When the library refuses, which it does not.
pub(super) fn measure() -> Result<f64> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).ok().context("no key")?;
    let sign = || key.sign(&random, &MESSAGE).ok().context("no signature");
    let (signature, public) = (sign()?, UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref()));
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        public.verify(black_box(&MESSAGE), signature.as_ref()).ok().context("no verification")?;
        black_box(sign()?);
    }
    Ok(begin.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS))
}
