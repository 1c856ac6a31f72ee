//! Signing certificates and their keys: made, kept as one file each, read back.
//!
//! Key and certificate share a file, so no crash can leave a key with somebody else's certificate. The
//! subject is derived from the key: two roots never share a name (some verifiers pick an issuer by
//! name and stop), and what a file holds can be checked against itself.

use std::path::PathBuf;

use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use der::Decode;
use palisade_identity::TrustDomain;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::time::Duration;
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// Signing certificates begin this long before they are made, so that no leaf begins before its signer
/// and a peer whose clock lags still accepts them.
const BACKDATE: Duration = Duration::from_secs(3_600);
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
/// A new intermediate takes over when the present one has less than this left.
pub(crate) const INTERMEDIATE_RENEWED_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// Which of the two signing certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The trust anchor: signs intermediates only.
    Root,
    /// Signs leaves.
    Intermediate,
}

impl Kind {
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Root => "root.pem",
            Self::Intermediate => "intermediate.pem",
        }
    }

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

/// Why a signing certificate cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The file does not hold one key and one certificate.
    #[error("`{}` does not hold one PRIVATE KEY and one CERTIFICATE: restore it from a backup", .0.display())]
    Layout(PathBuf),
    /// The key is not one that can sign here.
    #[error("the key in `{}` is not a P-256 key in PKCS#8: restore the file from a backup", .0.display())]
    Key(PathBuf),
    /// Key and certificate do not belong together.
    #[error("key and certificate in `{}` do not belong together: restore the file from a backup", .0.display())]
    Mismatch(PathBuf),
    /// Not a certificate, or not one that was made here for this trust domain.
    #[error("the certificate in `{}` was not made here for trust domain `{domain}`: restore the file from a backup", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The trust domain configured.
        domain: TrustDomain,
    },
    /// There is an intermediate, so there was a root.
    #[error("`{}` is missing beside an intermediate it has signed: restore it from a backup, or name an empty directory to begin anew", .0.display())]
    RootMissing(PathBuf),
    /// A root outside its dates: it can never be renewed in silence.
    #[error("the root in `{}` is not valid now (from {not_before} to {not_after}, unix seconds): check the clock", .path.display())]
    Dates {
        /// The file.
        path: PathBuf,
        /// Its beginning.
        not_before: u64,
        /// Its end.
        not_after: u64,
    },
    /// Making a key, a certificate or a random number failed.
    #[error("cannot make a {what}: {reason}")]
    Make {
        /// What was being made.
        what: &'static str,
        /// The library's words.
        reason: String,
    },
}

/// A signing key with its certificate.
#[derive(Debug)]
pub(crate) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// First and last second of validity.
    pub(crate) not_before: u64,
    pub(crate) not_after: u64,
}

impl Signer {
    /// A new self-signed root.
    pub(crate) fn root(domain: &TrustDomain, now: u64) -> Result<Self, SignerError> {
        let key = generate()?;
        let dates = (now.saturating_sub(BACKDATE.as_secs()), now.saturating_add(ROOT_LIFETIME.as_secs()));
        let params = params(Kind::Root, domain, &key, dates)?;
        let certificate = params.self_signed(&key).map_err(make("root certificate"))?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), certificate, not_before: dates.0, not_after: dates.1 })
    }

    /// A new intermediate below `self`, within `self`'s dates.
    pub(crate) fn intermediate(&self, domain: &TrustDomain, now: u64) -> Result<Self, SignerError> {
        let key = generate()?;
        let not_before = now.saturating_sub(BACKDATE.as_secs()).max(self.not_before);
        let not_after = now.saturating_add(INTERMEDIATE_LIFETIME.as_secs()).min(self.not_after);
        let params = params(Kind::Intermediate, domain, &key, (not_before, not_after))?;
        let certificate = self.sign(&params, &key)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate, not_before, not_after })
    }

    /// Signs what `params` describe for `key`.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, SignerError> {
        Ok(params.signed_by(key, &self.issuer).map_err(make("certificate"))?.der().clone())
    }

    /// Whether `self` signed `other`, by its name: names are derived from keys.
    pub(crate) fn signed(&self, other: &Self) -> bool {
        let issuer = Found::read(&other.certificate).map(|found| found.issuer);
        issuer.is_some() && issuer == Found::read(&self.certificate).map(|found| found.subject)
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Whether it is time for a successor: little is left, or this one is not valid at all.
    pub(crate) fn due(&self, now: u64) -> bool {
        now < self.not_before || self.not_after.saturating_sub(now) < INTERMEDIATE_RENEWED_BEFORE.as_secs()
    }

    pub(crate) fn valid(&self, now: u64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Key and certificate in PEM.
    pub(crate) fn to_file(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(self.issuer.key().serialize_pem());
        text.push_str(&certificate_pem(&self.certificate));
        text
    }

    /// Reads what [`to_file`](Self::to_file) wrote.
    pub(crate) fn from_file(text: &[u8], kind: Kind, domain: &TrustDomain, path: PathBuf) -> Result<Self, SignerError> {
        let Some((key, certificate)) = key_and_certificate(text) else {
            return Err(SignerError::Layout(path));
        };
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.as_slice()));
        let Some(key) = key.ok().filter(|key| key.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256)) else {
            return Err(SignerError::Key(path));
        };
        let foreign = |path| SignerError::Foreign { path, domain: domain.clone() };
        let Some(found) = Found::read(&certificate) else { return Err(foreign(path)) };
        if found.key != key.subject_public_key_info() {
            return Err(SignerError::Mismatch(path));
        }
        if found.subject != format!("CN={}", name(kind, &key)) || !found.speaks_for(domain) {
            return Err(foreign(path));
        }
        let params = params(kind, domain, &key, (found.not_before, found.not_after))?;
        let (not_before, not_after) = (found.not_before, found.not_after);
        Ok(Self { issuer: Issuer::new(params, key), certificate, not_before, not_after })
    }
}

/// The fields of a stored certificate that must fit its key and our configuration.
struct Found {
    key: Vec<u8>,
    subject: String,
    issuer: String,
    uris: Vec<String>,
    not_before: u64,
    not_after: u64,
}

impl Found {
    fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        use der::Encode;
        use x509_cert::ext::pkix::{SubjectAltName, name::GeneralName};
        let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
        let tbs = parsed.tbs_certificate();
        let (_, names) = tbs.get_extension::<SubjectAltName>().ok()??;
        let uri = |name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
            _ => None,
        };
        Some(Self {
            key: tbs.subject_public_key_info().to_der().ok()?,
            subject: tbs.subject().to_string(),
            issuer: tbs.issuer().to_string(),
            uris: names.0.into_iter().filter_map(uri).collect(),
            not_before: tbs.validity().not_before.to_unix_duration().as_secs(),
            not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
        })
    }

    fn speaks_for(&self, domain: &TrustDomain) -> bool {
        matches!(self.uris.as_slice(), [uri] if uri == domain.id().as_str())
    }
}

fn key_and_certificate(text: &[u8]) -> Option<(Zeroizing<Vec<u8>>, CertificateDer<'static>)> {
    let (mut key, mut certificate) = (None, None);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        match section.ok()? {
            (SectionKind::PrivateKey, der) if key.is_none() => key = Some(Zeroizing::new(der)),
            (SectionKind::Certificate, der) if certificate.is_none() => certificate = Some(der.into()),
            _ => return None,
        }
    }
    Some((key?, certificate?))
}

fn name(kind: Kind, key: &KeyPair) -> String {
    let digest = sha256(&key.subject_public_key_info());
    format!("{} {}", kind.label(), hex(digest.get(..8).unwrap_or_default()))
}

fn params(
    kind: Kind,
    domain: &TrustDomain,
    key: &KeyPair,
    (not_before, not_after): (u64, u64),
) -> Result<CertificateParams, SignerError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name(kind, key));
    // "A signing certificate SHOULD itself be an SVID", of the trust domain it signs for and without a path
    // (X509-SVID, section 3.1).
    let uri = domain.id().as_str().to_owned();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(make("URI name"))?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(kind.path_length()));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    params.not_before = date(not_before)?;
    params.not_after = date(not_after)?;
    Ok(params)
}

fn generate() -> Result<KeyPair, SignerError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make("key"))
}

/// 158 random bits in 20 octets, positive and of constant length (RFC 5280, 4.1.2.2).
pub(crate) fn serial() -> Result<SerialNumber, SignerError> {
    let mut bytes = random::<20>()?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], SignerError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|error| make("random number")(error))?;
    Ok(bytes)
}

pub(crate) fn date(seconds: u64) -> Result<OffsetDateTime, SignerError> {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| make("date")(error))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

fn make<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> SignerError {
    move |error| SignerError::Make { what, reason: error.to_string() }
}

#[cfg(test)]
mod tests;
