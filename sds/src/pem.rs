//! Certificates in PEM, read strictly: an element that holds something else is refused, not skipped.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject, SectionKind};

/// Most certificates accepted in one text.
const MAX_CERTIFICATES: usize = 64;

/// Why a text is not a list of certificates.
#[derive(Debug, thiserror::Error)]
pub enum ReadPemError {
    /// The PEM armour or its base64 is broken.
    #[error("the PEM is damaged")]
    Damaged(#[source] pem::Error),
    /// A block that is no certificate.
    #[error("it holds something other than certificates")]
    NotACertificate,
    /// No certificate at all.
    #[error("it holds no certificate")]
    Empty,
    /// More than anybody needs.
    #[error("it holds more than {MAX_CERTIFICATES} certificates")]
    TooMany,
}

/// The certificates of a PEM text, at least one, in order.
pub(crate) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, ReadPemError> {
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) = section.map_err(ReadPemError::Damaged)?;
        if kind != SectionKind::Certificate {
            return Err(ReadPemError::NotACertificate);
        }
        if certificates.len() == MAX_CERTIFICATES {
            return Err(ReadPemError::TooMany);
        }
        certificates.push(CertificateDer::from(der));
    }
    // The reader passes over blocks whose label it does not know.
    if text.matches("-----BEGIN").count() != certificates.len() {
        return Err(ReadPemError::NotACertificate);
    }
    if certificates.is_empty() { Err(ReadPemError::Empty) } else { Ok(certificates) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    #[test]
    fn only_certificates_pass() {
        assert_eq!(certificates(&ONE.repeat(2)).unwrap().len(), 2);
        assert!(matches!(certificates(""), Err(ReadPemError::Empty)));
        assert!(matches!(certificates("hello"), Err(ReadPemError::Empty)));
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(certificates(&format!("{ONE}{key}")), Err(ReadPemError::NotACertificate)));
        let unknown = ONE.replace("CERTIFICATE", "NOVELTY");
        assert!(matches!(certificates(&format!("{ONE}{unknown}")), Err(ReadPemError::NotACertificate)));
        let cut = ONE.replace("-----END CERTIFICATE-----", "");
        assert!(matches!(certificates(&cut), Err(ReadPemError::Damaged(_))));
        assert!(matches!(certificates(&ONE.repeat(65)), Err(ReadPemError::TooMany)));
    }
}
