//! From a leaf to an authority: RFC 5280 path validation by rustls-webpki, with the rules that it leaves out.
//!
//! webpki takes a trust anchor for a name and a key. Here an anchor is a certificate, with dates and a path length that count (a
//! root past its end must not vouch for anybody, and several roots may share one key), and every
//! intermediate must be a signing certificate in SPIFFE's sense.

use std::cell::RefCell;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath};

use crate::VerifyError;
use crate::certificate::Authority;
use crate::memo::Window;
use crate::tls;

/// The authorities that a path may end in: anchors, and beside each what its certificate says.
pub(crate) struct Anchors<'a> {
    pub(crate) anchors: &'a [TrustAnchor<'a>],
    pub(crate) rules: &'a [Authority],
}

impl Anchors<'_> {
    /// Builds and verifies a path from `leaf`, whose own dates the caller has checked, through some of `intermediates`. Returns the
    /// span of time in which all authorities of the path are within their dates.
    pub(crate) fn verify(
        &self,
        leaf: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Window, VerifyError> {
        // webpki's own error type has no room for our reasons, so the last judgement is kept beside it.
        let judgement = RefCell::new(Err(None));
        let judge = |path: &VerifiedPath<'_>| {
            let result = self.judge(path, now).map_err(Some);
            let answer = result.as_ref().map(|_| ()).map_err(|_| webpki::Error::CertDistrusted);
            drop(judgement.replace(result));
            answer
        };
        let algorithms = tls::provider().signature_verification_algorithms.all;
        let verified =
            leaf.verify_for_usage(algorithms, self.anchors, intermediates, now, AnyUsage, None, Some(&judge));
        match (verified, judgement.into_inner()) {
            (Ok(_), Ok(window)) => Ok(window),
            (_, Err(Some(reason))) => Err(reason),
            (Err(error), _) => Err(explain(error)),
            (Ok(_), Err(None)) => Err(VerifyError::UnknownAuthority),
        }
    }

    /// The rules that webpki leaves to its caller. A refused path is not the end: another one may be good.
    fn judge(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<Window, VerifyError> {
        // By address: two roots may have the same subject and key, but not the same dates.
        let index = self.anchors.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
        let anchor = index.and_then(|index| self.rules.get(index)).ok_or(VerifyError::UnknownAuthority)?;
        let (mut window, mut count) = (anchor.window, 0_u8);
        for intermediate in path.intermediate_certificates() {
            let rule = Authority::parse(&intermediate.der()).map_err(VerifyError::Intermediate)?;
            rule.check_intermediate().map_err(VerifyError::Intermediate)?;
            window = window.intersect(rule.window);
            count = count.saturating_add(1);
        }
        if !window.contains(now) {
            return Err(VerifyError::AuthorityDates);
        }
        match anchor.max_intermediates {
            Some(max) if count > max => Err(VerifyError::Path(webpki::Error::PathLenConstraintViolated)),
            _ => Ok(window),
        }
    }
}

fn explain(error: webpki::Error) -> VerifyError {
    match error {
        webpki::Error::UnknownIssuer => VerifyError::UnknownAuthority,
        webpki::Error::InvalidSignatureForPublicKey => VerifyError::Signature,
        // The leaf's own dates were checked before: these are an intermediate's.
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => VerifyError::AuthorityDates,
        other => VerifyError::Path(other),
    }
}

/// Lets webpki pass over extendedKeyUsage: it asks for one usage, and SPIFFE for two. The leaf's and the intermediates' are
/// checked in `certificate`.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, mut usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        usages.try_for_each(|usage| usage.map(drop))
    }
}
