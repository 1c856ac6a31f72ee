//! Why a token is refused, in the words of Envoy's `jwt_authn` (`source/common/jwt/status.cc`): they are the body of
//! the answer, and people search for them.

use crate::record::reason;

/// The outcome for one token, one provider, or the whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    Missed,
    NotYetValid,
    Expired,
    BadFormat,
    HeaderBase64,
    HeaderJson,
    HeaderAlg,
    AlgUnknown,
    HeaderKid,
    HeaderCrit,
    PayloadBase64,
    PayloadJson,
    IssNotString,
    SubNotString,
    IatNotInteger,
    IatRange,
    NbfNotInteger,
    NbfRange,
    ExpNotInteger,
    ExpRange,
    JtiNotString,
    AudNotString,
    SignatureBase64,
    UnknownIssuer,
    Audience,
    VerificationFails,
    Ed25519Length,
    MultipleTokens,
    NoValidKeys,
    KidAlgMismatch,
    FetchFails,
}

impl Status {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Missed => "Jwt is missing",
            Self::NotYetValid => "Jwt not yet valid",
            Self::Expired => "Jwt is expired",
            Self::BadFormat => "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            Self::HeaderBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderJson => "Jwt header is an invalid JSON",
            Self::HeaderAlg => "Jwt header [alg] field is required and must be a string",
            Self::AlgUnknown => "Jwt header [alg] is not supported",
            Self::HeaderKid => "Jwt header [kid] field is not a string",
            Self::HeaderCrit => "Jwt header [crit] field is not supported",
            Self::PayloadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadJson => "Jwt payload is an invalid JSON",
            Self::IssNotString => "Jwt payload [iss] field is not a string",
            Self::SubNotString => "Jwt payload [sub] field is not a string",
            Self::JtiNotString => "Jwt payload [jti] field is not a string",
            Self::AudNotString => "Jwt payload [aud] field is not a string or string list",
            _ => self.late_text(),
        }
    }

    const fn late_text(self) -> &'static str {
        match self {
            Self::IatNotInteger => "Jwt payload [iat] field is not an integer",
            Self::IatRange => "Jwt payload [iat] field is not a positive 64 bit integer",
            Self::NbfNotInteger => "Jwt payload [nbf] field is not an integer",
            Self::NbfRange => "Jwt payload [nbf] field is not a positive 64 bit integer",
            Self::ExpNotInteger => "Jwt payload [exp] field is not an integer",
            Self::ExpRange => "Jwt payload [exp] field is not a positive 64 bit integer",
            Self::SignatureBase64 => "Jwt signature is an invalid Base64url encoded",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::Audience => "Audiences in Jwt are not allowed",
            Self::Ed25519Length => "Jwt ED25519 signature is wrong length",
            Self::MultipleTokens => "Found multiple Jwt tokens",
            Self::NoValidKeys => "Jwks doesn't have any valid public key",
            Self::KidAlgMismatch => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::FetchFails => "Jwks remote fetch is failed",
            _ => "Jwt verification fails",
        }
    }

    /// Envoy answers an audience that is not allowed with 403, everything else with 401.
    pub(crate) const fn http(self) -> u16 {
        if matches!(self, Self::Audience) { 403 } else { 401 }
    }

    pub(crate) const fn reason(self) -> &'static str {
        if matches!(self, Self::Audience) { reason::TOKEN_AUDIENCE } else { reason::TOKEN_INVALID }
    }

    /// What several providers say together, one after the other: the last complaint that says more than that the
    /// token is another provider's (`AnyVerifierImpl`).
    pub(crate) fn and_then(self, next: Self) -> Self {
        if self == Self::Missed || !matches!(next, Self::Missed | Self::UnknownIssuer) { next } else { self }
    }
}
