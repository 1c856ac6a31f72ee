//! What SPIFFE demands of a single certificate, leaf or authority, before any path is built.
//!
//! rustls-webpki builds and verifies paths but ignores keyUsage, knows nothing of SPIFFE and asks EKU only for one usage, so the
//! rules of X.509-SVID are checked here on the parsed fields. Both parsers must accept a certificate, which keeps an
//! encoding that only one of them understands out.

use der::Decode;
use der::asn1::ObjectIdentifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};
use x509_cert::time::Validity;

use crate::memo::Window;
use crate::{IdError, SpiffeId};

/// Why a certificate is no X.509-SVID leaf (X509-SVID, sections 2 to 4; RFC 5280).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LeafError {
    /// Not a DER certificate, or an extension that does not decode or stands twice.
    #[error("the certificate is malformed")]
    Malformed(#[source] der::Error),
    /// A certificate that path validation cannot handle: an unknown critical extension, not version 3 and the like.
    #[error("the certificate is not supported")]
    Unsupported(#[source] webpki::Error),
    /// NotAfter lies before NotBefore.
    #[error("the certificate ends before it begins")]
    Validity,
    /// The subjectAltName extension is missing or holds no URI.
    #[error("the certificate has no URI SAN, so it names no SPIFFE ID")]
    NoUriSan,
    /// More than one URI SAN, whichever of them are SPIFFE IDs.
    #[error("the certificate has {0} URI SANs, a SPIFFE ID is the only one")]
    SeveralUriSans(usize),
    /// The one URI SAN is not a SPIFFE ID.
    #[error("the URI SAN is not a SPIFFE ID")]
    Id(#[source] IdError),
    /// The ID has no path: it names a signing authority, which must never authenticate as a peer.
    #[error("the SPIFFE ID has no path, so it names a trust domain and no workload")]
    NoPath,
    /// basicConstraints say `cA=true`.
    #[error("the certificate is a certificate authority's")]
    IsAuthority,
    /// No keyUsage extension.
    #[error("keyUsage is missing")]
    KeyUsageMissing,
    /// keyUsage is there but not critical.
    #[error("keyUsage is not critical")]
    KeyUsageNotCritical,
    /// keyUsage lacks digitalSignature.
    #[error("keyUsage lacks digitalSignature")]
    NoDigitalSignature,
    /// keyUsage has keyCertSign or cRLSign.
    #[error("keyUsage allows to sign certificates or revocation lists")]
    MaySign,
    /// extendedKeyUsage is there without both serverAuth and clientAuth.
    #[error("extendedKeyUsage lacks serverAuth or clientAuth")]
    ExtendedKeyUsage,
    /// The subject is empty and the subjectAltName extension is not critical (RFC 5280, 4.2.1.6).
    #[error("the subject is empty and the subjectAltName not critical")]
    SanNotCritical,
}

impl LeafError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Unsupported(_) => "unsupported",
            Self::Validity => "bad-validity",
            Self::NoUriSan => "no-uri-san",
            Self::SeveralUriSans(_) => "several-uri-sans",
            Self::Id(_) => "bad-spiffe-id",
            Self::NoPath => "no-path",
            Self::IsAuthority => "leaf-is-authority",
            Self::KeyUsageMissing => "key-usage-missing",
            Self::KeyUsageNotCritical => "key-usage-not-critical",
            Self::NoDigitalSignature => "no-digital-signature",
            Self::MaySign => "leaf-may-sign",
            Self::ExtendedKeyUsage => "extended-key-usage",
            Self::SanNotCritical => "san-not-critical",
        }
    }
}

/// Why a certificate is no SPIFFE signing certificate (X509-SVID, sections 2 to 4).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// Not a DER certificate, or an extension that does not decode or stands twice.
    #[error("the certificate is malformed")]
    Malformed(#[source] der::Error),
    /// A certificate that path validation cannot handle.
    #[error("the certificate is not supported")]
    Unsupported(#[source] webpki::Error),
    /// NotAfter lies before NotBefore.
    #[error("the certificate ends before it begins")]
    Validity,
    /// basicConstraints are missing or say `cA=false`.
    #[error("not a certificate authority: basicConstraints lack cA")]
    NotAuthority,
    /// keyUsage is missing, not critical, or lacks keyCertSign.
    #[error("not a certificate authority: keyUsage must be critical and have keyCertSign")]
    KeyUsage,
    /// It carries a `spiffe:` URI SAN that is no SPIFFE ID.
    #[error("the URI SAN is not a SPIFFE ID")]
    Id(#[source] IdError),
    /// It carries a SPIFFE ID with a path.
    #[error("the SPIFFE ID of an authority has no path")]
    Path,
    /// An intermediate whose extendedKeyUsage leaves out serverAuth or clientAuth, and so cannot vouch for both.
    #[error("extendedKeyUsage lacks serverAuth or clientAuth")]
    ExtendedKeyUsage,
}

/// A leaf that obeys every rule that can be checked without its issuers.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) dns_names: Vec<String>,
    pub(crate) window: Window,
    pub(crate) serial: String,
    pub(crate) subject: String,
    pub(crate) public_key: Vec<u8>,
}

impl Leaf {
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Result<Self, LeafError> {
        let certificate = Certificate::from_der(der).map_err(LeafError::Malformed)?;
        let end_entity = webpki::EndEntityCert::try_from(der).map_err(LeafError::Unsupported)?;
        let (id, dns_names) = leaf_names(&certificate)?;
        check_leaf_usage(&certificate)?;
        let tbs = certificate.tbs_certificate();
        let window = dates(tbs.validity()).ok_or(LeafError::Validity)?;
        Ok(Self {
            id,
            dns_names,
            window,
            serial: hex(tbs.serial_number().as_bytes()),
            subject: tbs.subject().to_string(),
            public_key: end_entity.subject_public_key_info().to_vec(),
        })
    }
}

fn leaf_names(certificate: &Certificate) -> Result<(SpiffeId, Vec<String>), LeafError> {
    let tbs = certificate.tbs_certificate();
    let (critical, names) =
        tbs.get_extension::<SubjectAltName>().map_err(LeafError::Malformed)?.ok_or(LeafError::NoUriSan)?;
    let uris = uris(&names);
    let [uri] = uris.as_slice() else {
        return Err(if uris.is_empty() { LeafError::NoUriSan } else { LeafError::SeveralUriSans(uris.len()) });
    };
    let id = SpiffeId::parse(uri).map_err(LeafError::Id)?;
    if id.path().is_empty() {
        return Err(LeafError::NoPath);
    }
    if tbs.subject().is_empty() && !critical {
        return Err(LeafError::SanNotCritical);
    }
    Ok((id, dns_names(&names)))
}

fn check_leaf_usage(certificate: &Certificate) -> Result<(), LeafError> {
    let tbs = certificate.tbs_certificate();
    let constraints = tbs.get_extension::<BasicConstraints>().map_err(LeafError::Malformed)?;
    if constraints.is_some_and(|(_, constraints)| constraints.ca) {
        return Err(LeafError::IsAuthority);
    }
    let usage = tbs.get_extension::<KeyUsage>().map_err(LeafError::Malformed)?;
    let (critical, usage) = usage.ok_or(LeafError::KeyUsageMissing)?;
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(LeafError::MaySign);
    }
    if !usage.digital_signature() {
        return Err(LeafError::NoDigitalSignature);
    }
    if !critical {
        return Err(LeafError::KeyUsageNotCritical);
    }
    let extended = tbs.get_extension::<ExtendedKeyUsage>().map_err(LeafError::Malformed)?;
    match extended {
        Some((_, usages)) if !both_sides(&usages) => Err(LeafError::ExtendedKeyUsage),
        _ => Ok(()),
    }
}

fn both_sides(usages: &ExtendedKeyUsage) -> bool {
    usages.0.contains(&SERVER_AUTH) && usages.0.contains(&CLIENT_AUTH)
}

const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// What path validation needs of a signing certificate beyond its subject and key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) window: Window,
    pub(crate) max_intermediates: Option<u8>,
    narrow_usage: bool,
}

impl Authority {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, AuthorityError> {
        let certificate = Certificate::from_der(der).map_err(AuthorityError::Malformed)?;
        let tbs = certificate.tbs_certificate();
        let constraints = tbs.get_extension::<BasicConstraints>().map_err(AuthorityError::Malformed)?;
        let Some((_, BasicConstraints { ca: true, path_len_constraint })) = constraints else {
            return Err(AuthorityError::NotAuthority);
        };
        match tbs.get_extension::<KeyUsage>().map_err(AuthorityError::Malformed)? {
            Some((true, usage)) if usage.key_cert_sign() => {}
            _ => return Err(AuthorityError::KeyUsage),
        }
        let names = tbs.get_extension::<SubjectAltName>().map_err(AuthorityError::Malformed)?;
        for uri in names.iter().flat_map(|(_, names)| uris(names)).filter(|uri| uri.starts_with("spiffe:")) {
            let id = SpiffeId::parse(uri).map_err(AuthorityError::Id)?;
            if !id.path().is_empty() {
                return Err(AuthorityError::Path);
            }
        }
        let extended = tbs.get_extension::<ExtendedKeyUsage>().map_err(AuthorityError::Malformed)?;
        let window = dates(tbs.validity()).ok_or(AuthorityError::Validity)?;
        Ok(Self {
            window,
            max_intermediates: path_len_constraint,
            narrow_usage: extended.is_some_and(|(_, usages)| !both_sides(&usages) && !usages.0.contains(&ANY_USAGE)),
        })
    }

    /// What holds for an intermediate only: an anchor's extendedKeyUsage says nothing about whom it may sign, an intermediate's
    /// narrows it (CA/Browser Forum, and every TLS stack follows).
    pub(crate) fn check_intermediate(&self) -> Result<(), AuthorityError> {
        if self.narrow_usage { Err(AuthorityError::ExtendedKeyUsage) } else { Ok(()) }
    }
}

fn uris(names: &SubjectAltName) -> Vec<&str> {
    fn uri(name: &GeneralName) -> Option<&str> {
        match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
            _ => None,
        }
    }
    names.0.iter().filter_map(uri).collect()
}

fn dns_names(names: &SubjectAltName) -> Vec<String> {
    let dns = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        _ => None,
    };
    names.0.iter().filter_map(dns).collect()
}

fn dates(validity: &Validity) -> Option<Window> {
    let from = UnixTime::since_unix_epoch(validity.not_before.to_unix_duration());
    let until = UnixTime::since_unix_epoch(validity.not_after.to_unix_duration());
    (from <= until).then_some(Window { from, until })
}

/// Lower-case hex of a DER integer, without the zero byte that only keeps it positive.
fn hex(integer: &[u8]) -> String {
    let magnitude = match integer {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    magnitude.iter().map(|byte| format!("{byte:02x}")).collect()
}
