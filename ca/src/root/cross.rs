//! A second way to the leaves of a signer: its key, under its own name, certified by another root.
//!
//! Written byte by byte like a leaf, because the subject must be the very bytes that leaves name as their issuer, and a signer that
//! was plugged in may have any name (several organisational units, domain components) and any kind of key.

use palisade_identity::CertificateDer;

use super::Root;
use crate::encode::{bit_string, date, sequence, tlv, unsigned};
use crate::leaf::{AUTHORITY_KEY_ID, SUBJECT_ALT_NAME, SUBJECT_KEY_ID, VERSION};
use crate::signer::{Found, Signer, SignerError, serial};

/// basicConstraints, critical: cA=true, pathLenConstraint=0.
const BASIC_CONSTRAINTS: &[u8] = &[
    0x30, 0x12, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x08, 0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01,
    0x00,
];
/// keyUsage, critical: keyCertSign and cRLSign.
const KEY_USAGE: &[u8] =
    &[0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x01, 0x06];

impl Root {
    /// A certificate below `self`, within `self`'s dates, for `signer`'s key of whatever kind: whoever trusts `self` accepts what
    /// `signer` signs.
    pub(crate) fn certify(&self, signer: &Signer, now: u64) -> Result<CertificateDer<'static>, SignerError> {
        let own = Found::read(&self.certificate).ok_or(SignerError::Malformed)?;
        let ((not_before, not_after), key) = (self.span(now), &self.issuer.key().key);
        let (number, algorithm) = (unsigned(&serial(not_before)?), key.scheme().identifier());
        let validity = sequence(&[&date(not_before), &date(not_after)]);
        let extensions = tlv(0xa3, &sequence(&[BASIC_CONSTRAINTS, KEY_USAGE, &self.name(), &key_ids(&own, signer)]));
        let subject = [&signer.found.subject[..], &signer.found.key].concat();
        let signed = sequence(&[VERSION, &number, algorithm, &own.subject, &validity, &subject, &extensions]);
        let signature = bit_string(&key.sign(&signed)?);
        Ok(sequence(&[&signed, algorithm, &signature]).into())
    }

    /// subjectAltName: the trust domain, as in every signing certificate made here.
    fn name(&self) -> Vec<u8> {
        let names = tlv(0x30, &tlv(0x86, self.domain.id().as_str().as_bytes()));
        sequence(&[SUBJECT_ALT_NAME, &tlv(0x04, &names)])
    }
}

/// subjectKeyIdentifier as leaves name it, if they do, and authorityKeyIdentifier.
fn key_ids(own: &Found, signer: &Signer) -> Vec<u8> {
    let subject = signer.found.key_id.iter().flat_map(|id| sequence(&[SUBJECT_KEY_ID, &tlv(0x04, &tlv(0x04, id))]));
    let issuer = own.key_id.iter().flat_map(|id| {
        let id = sequence(&[&tlv(0x80, id)]);
        sequence(&[AUTHORITY_KEY_ID, &tlv(0x04, &id)])
    });
    subject.chain(issuer).collect()
}
