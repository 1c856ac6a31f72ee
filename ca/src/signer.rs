//! What signs leaves: a key, the certificate that says so, and the certificates between it and the roots.
//!
//! A signer is verified once, when it is made: a leaf is signed with it and judged as a peer would judge it. After that its leaves
//! differ in nothing that a path depends on, so no leaf is verified again before it is let out.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use der::{Decode, Encode};
use palisade_identity::{CertificateDer, SpiffeId, TrustBundle, TrustBundles, UnixTime, VerifyError, verify_peer};
use x509_cert::ext::pkix::SubjectKeyIdentifier;

use crate::custody::{CustodyError, SigningKey, key_name};
use crate::leaf::{self, LeafSpec, Lifetime};

/// A new intermediate takes over when the present one has less than this left.
pub(crate) const INTERMEDIATE_RENEWED_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// Why a signing certificate cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The key.
    #[error("the signing key cannot be used")]
    Custody(#[from] CustodyError),
    /// Not a certificate.
    #[error("the signing certificate is malformed")]
    Malformed,
    /// The key is another certificate's.
    #[error("the private key does not belong to the signing certificate")]
    Mismatch,
    /// Peers would refuse what it signs.
    #[error("peers would refuse what the signing certificate signs")]
    Refused(#[from] VerifyError),
    /// Making a key, a certificate or a random number failed.
    #[error("cannot make a {what}: {reason}")]
    Make {
        /// What was being made.
        what: &'static str,
        /// The library's words.
        reason: String,
    },
}

/// The fields of a signing certificate that matter here.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// SubjectPublicKeyInfo, DER.
    pub(crate) key: Vec<u8>,
    /// Names, DER.
    pub(crate) subject: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    /// The subject key identifier, if the certificate has one.
    pub(crate) key_id: Option<Vec<u8>>,
    /// First and last second of validity.
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Found {
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
        let tbs = parsed.tbs_certificate();
        let key_id = tbs.get_extension::<SubjectKeyIdentifier>().ok()?.map(|(_, id)| id.0.as_bytes().to_vec());
        Some(Self {
            key: tbs.subject_public_key_info().to_der().ok()?,
            subject: tbs.subject().to_der().ok()?,
            issuer: tbs.issuer().to_der().ok()?,
            key_id,
            not_before: tbs.validity().not_before.to_unix_duration().as_secs(),
            not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
        })
    }

    /// The subject key identifier in lower-case hex; what it would be if the certificate has none.
    pub(crate) fn id(&self) -> String {
        self.key_id.as_deref().map_or_else(|| key_name(&self.key), hex)
    }
}

/// A key that signs leaves, and everything a leaf needs from it.
#[derive(Debug)]
pub(crate) struct Signer {
    key: Arc<dyn SigningKey>,
    pub(crate) found: Found,
    /// What goes out with a leaf: the signing certificate and those above it, without roots.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) chain_pem: Vec<String>,
    /// The span in which every certificate from here to a root is valid.
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Signer {
    /// `chain` begins with the signing certificate; `bundle` holds its roots, one of which may be the signing certificate
    /// itself. Dates are only looked at when something is signed.
    pub(crate) fn new(
        key: Arc<dyn SigningKey>,
        chain: &[CertificateDer<'static>],
        bundle: &TrustBundle,
    ) -> Result<Self, SignerError> {
        let read = |der: &CertificateDer<'static>| Found::read(der).ok_or(SignerError::Malformed);
        let all = chain.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let (first, last) = (all.first().ok_or(SignerError::Malformed)?, all.last().ok_or(SignerError::Malformed)?);
        if first.key != key.public_key() {
            return Err(SignerError::Mismatch);
        }
        let roots = bundle.authorities().iter().map(read).collect::<Result<Vec<_>, _>>()?;
        // Of several roots of that name the longest-lived: an older one may be in the bundle for others.
        let root = roots.iter().filter(|root| root.subject == last.issuer).max_by_key(|root| root.not_after);
        let path = || all.iter().chain(root);
        let sent: Vec<_> = chain.iter().filter(|der| !bundle.authorities().contains(der)).cloned().collect();
        let signer = Self {
            key,
            not_before: path().map(|found| found.not_before).max().unwrap_or_default(),
            not_after: path().map(|found| found.not_after).min().unwrap_or_default(),
            found: first.clone(),
            chain_pem: sent.iter().map(certificate_pem).collect(),
            chain: sent,
        };
        signer.prove(bundle)?;
        Ok(signer)
    }

    /// Signs a leaf and verifies it as a peer would, at its first second.
    fn prove(&self, bundle: &TrustBundle) -> Result<(), SignerError> {
        let name = SpiffeId::parse(&format!("{}/palisade/probe", bundle.trust_domain().id()));
        let id = name.map_err(|error| SignerError::Make { what: "name", reason: error.to_string() })?;
        let lifetime = Lifetime { not_before: self.not_before, not_after: self.not_after, shortened: false };
        let spec = LeafSpec { id: &id, dns_names: &[], addresses: &[], lifetime };
        let leaf = leaf::issue(&spec, self.key.public_key(), self)
            .map_err(|error| SignerError::Make { what: "leaf", reason: error.to_string() })?;
        let chain: Vec<_> = std::iter::once(leaf.certificate).chain(self.chain.iter().cloned()).collect();
        let begins = UnixTime::since_unix_epoch(Duration::from_secs(self.not_before));
        verify_peer(&chain, &TrustBundles::from_iter([bundle.clone()]), begins)?;
        Ok(())
    }

    pub(crate) fn key(&self) -> &Arc<dyn SigningKey> {
        &self.key
    }

    pub(crate) fn valid(&self, now: u64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// 128 random bits behind a second of 30 bits, in 20 octets, positive and of constant length (RFC 5280, 4.1.2.2). The second, which
/// the certificate tells anyway, keeps rows of one time together in the record's index.
pub(crate) fn serial(second: u64) -> Result<[u8; 20], SignerError> {
    let [a, b, c, d] = prefix(second);
    let mut bytes = [0x40 | (a & 0x3f), b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if let Some(rest) = bytes.last_chunk_mut::<16>() {
        *rest = random()?;
    }
    Ok(bytes)
}

/// The lower half of a unix time, big endian.
pub(crate) fn prefix(second: u64) -> [u8; 4] {
    let [_, _, _, _, low @ ..] = second.to_be_bytes();
    low
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], SignerError> {
    let mut bytes = [0; N];
    let refused = |_| SignerError::Make { what: "random number", reason: "the system gave none".to_owned() };
    SystemRandom::new().fill(&mut bytes).map_err(refused)?;
    Ok(bytes)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// One PEM block, lines of 64 characters as RFC 7468 wants them.
pub(crate) fn certificate_pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::with_capacity(body.len() + body.len() / 64 + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
pub(crate) mod tests;
