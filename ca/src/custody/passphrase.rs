//! Keys under a passphrase: encrypted PKCS#8 as `openssl pkcs8 -topk8` writes it (PBES2 of RFC 8018: PBKDF2 with
//! HMAC-SHA-256, AES-256-CBC), done with the crypto library that is here already.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey};
use aws_lc_rs::cipher::{PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{AnyRef, Reader, SliceReader, Tag, Tagged};
use zeroize::Zeroizing;

use crate::encode::{sequence, tlv, unsigned};
use crate::signer::random;

/// What a guess costs whoever has the file: OWASP's advice for this function.
const ITERATIONS: u32 = 600_000;
/// A file asking for more is meant to keep us busy.
const MOST_ITERATIONS: u32 = 10_000_000;
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");
const PBKDF2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.12");
const HMAC_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.2.9");
const AES_256_CBC: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.1.42");

/// How a file is encrypted.
struct Parameters {
    salt: Vec<u8>,
    iterations: NonZeroU32,
    iv: [u8; 16],
}

impl Parameters {
    fn key(&self, passphrase: &[u8]) -> Option<UnboundCipherKey> {
        let mut key = Zeroizing::new([0; 32]);
        pbkdf2::derive(PBKDF2_HMAC_SHA256, self.iterations, &self.salt, passphrase, key.as_mut_slice());
        UnboundCipherKey::new(&AES_256, key.as_slice()).ok()
    }

    fn to_der(&self) -> Vec<u8> {
        let oid = |oid: ObjectIdentifier| tlv(0x06, oid.as_bytes());
        let function = sequence(&[&oid(HMAC_SHA256), &tlv(0x05, &[])]);
        let derive = [tlv(0x04, &self.salt), unsigned(&self.iterations.get().to_be_bytes()), function].concat();
        let derive = sequence(&[&oid(PBKDF2), &sequence(&[&derive])]);
        let cipher = sequence(&[&oid(AES_256_CBC), &tlv(0x04, &self.iv)]);
        sequence(&[&oid(PBES2), &sequence(&[&derive, &cipher])])
    }

    fn read(algorithm: AnyRef<'_>) -> der::Result<Self> {
        let mut reader = SliceReader::new(algorithm.value())?;
        expect(&mut reader, PBES2)?;
        reader.sequence(|parameters| {
            let (salt, iterations) = parameters.sequence(|derive| {
                expect(derive, PBKDF2)?;
                derive.sequence(|parts| {
                    let salt = parts.decode::<&OctetStringRef>()?.as_bytes().to_vec();
                    let iterations: u32 = parts.decode()?;
                    parts.sequence(|function| {
                        expect(function, HMAC_SHA256)?;
                        function.decode::<der::asn1::Null>().map(drop)
                    })?;
                    Ok::<_, der::Error>((salt, iterations))
                })
            })?;
            let iv = parameters.sequence(|cipher| {
                expect(cipher, AES_256_CBC)?;
                let iv = cipher.decode::<&OctetStringRef>()?.as_bytes();
                <[u8; 16]>::try_from(iv).map_err(|_| der::Error::from(Tag::OctetString.value_error()))
            })?;
            let refused = || der::Error::from(Tag::Integer.value_error());
            let iterations = NonZeroU32::new(iterations).filter(|n| n.get() <= MOST_ITERATIONS).ok_or_else(refused)?;
            Ok::<_, der::Error>(Self { salt, iterations, iv })
        })
    }
}

fn expect<'a>(reader: &mut impl Reader<'a>, wanted: ObjectIdentifier) -> der::Result<()> {
    let found: ObjectIdentifier = reader.decode()?;
    if found == wanted { Ok(()) } else { Err(Tag::ObjectIdentifier.value_error().into()) }
}

/// An EncryptedPrivateKeyInfo of this PKCS#8; `None` if the library refuses or has no randomness.
pub(crate) fn encrypt(pkcs8: &[u8], passphrase: &[u8]) -> Option<Vec<u8>> {
    let iterations = NonZeroU32::new(ITERATIONS)?;
    let parameters = Parameters { salt: random::<16>().ok()?.to_vec(), iterations, iv: random::<16>().ok()? };
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(parameters.key(passphrase)?).ok()?;
    let mut sealed = pkcs8.to_vec();
    let context = EncryptionContext::Iv128(FixedLength::from(parameters.iv));
    key.less_safe_encrypt(&mut sealed, context).ok()?;
    Some(sequence(&[&parameters.to_der(), &tlv(0x04, &sealed)]))
}

/// The PKCS#8 in an EncryptedPrivateKeyInfo; `None` for a wrong passphrase, and for other ways of encrypting.
pub(crate) fn decrypt(encrypted: &[u8], passphrase: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (parameters, mut sealed) = read(encrypted).ok()?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(parameters.key(passphrase)?).ok()?;
    let context = DecryptionContext::Iv128(FixedLength::from(parameters.iv));
    let plain = key.decrypt(&mut sealed, context).ok()?;
    Some(Zeroizing::new(plain.to_vec()))
}

fn read(encrypted: &[u8]) -> der::Result<(Parameters, Zeroizing<Vec<u8>>)> {
    let mut reader = SliceReader::new(encrypted)?;
    let parts = reader.sequence(|info| {
        let algorithm: AnyRef<'_> = info.decode()?;
        algorithm.tag().assert_eq(Tag::Sequence)?;
        let sealed = Zeroizing::new(info.decode::<&OctetStringRef>()?.as_bytes().to_vec());
        Ok::<_, der::Error>((Parameters::read(algorithm)?, sealed))
    })?;
    reader.finish()?;
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_passphrase_only() {
        let sealed = encrypt(b"a key", b"correct horse").unwrap();
        assert_eq!(**decrypt(&sealed, b"correct horse").unwrap(), *b"a key");
        // A wrong key makes good padding once in 256 times, but not this plaintext.
        assert!(decrypt(&sealed, b"battery staple").is_none_or(|plain| **plain != *b"a key"));
        assert_ne!(sealed, encrypt(b"a key", b"correct horse").unwrap(), "salted");
        for cut in 0..sealed.len() {
            assert!(read(&sealed[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn what_openssl_sealed_opens() {
        // openssl pkcs8 -topk8 -passout pass:correct
        let (label, sealed) = der::pem::decode_vec(include_bytes!("testdata/openssl-encrypted.pem")).unwrap();
        assert_eq!(label, "ENCRYPTED PRIVATE KEY");
        let plain = decrypt(&sealed, b"correct").unwrap();
        assert!(super::super::software::SoftwareKey::from_pkcs8(&plain).is_some());
    }
}
