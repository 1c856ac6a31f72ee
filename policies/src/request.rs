//! RequestAuthentication as a checked type: which tokens a workload understands, where they stand in a request, and
//! what of a verified one is passed on. Whether a token is required is AuthorizationPolicy's business, not this one's.

use std::{fmt, time::Duration};

use crate::{Meta, Origin, Selector, TargetRef};

/// An accepted RequestAuthentication (`security.istio.io/v1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// Name, namespace, labels, annotations and position.
    pub meta: Meta,
    /// Which workloads it selects; `None` where the document has no selector. An empty one selects all, too.
    pub selector: Option<Selector>,
    /// `targetRefs` (or the one `targetRef`): such a policy applies to Gateway API proxies only.
    pub target_refs: Vec<TargetRef>,
    /// One rule for each issuer or place of tokens, in the order in which they are written. Empty changes nothing.
    pub rules: Vec<JwtRule>,
}

/// One kind of token: who issues it, which keys verify it, where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtRule {
    /// The `iss` claim that a token has to have, compared as it is. Empty: any issuer passes.
    pub issuer: String,
    /// The audiences, one of which the token's `aud` has to name. Empty: `aud` is not looked at.
    pub audiences: Vec<String>,
    /// Where the keys come from.
    pub jwks: JwksSource,
    /// Headers in which a token may stand. Where this list and the next two are empty, tokens are read from
    /// `Authorization: Bearer` and the query parameter `access_token`.
    pub from_headers: Vec<TokenHeader>,
    /// Query parameters in which a token may stand.
    pub from_params: Vec<String>,
    /// Cookies in which a token may stand.
    pub from_cookies: Vec<String>,
    /// The header that receives the verified payload, base64url-encoded.
    pub output_payload_to_header: Option<String>,
    /// Headers that receive single claims of a verified token.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Whether the token stays in the request; where not, it is removed after it was verified.
    pub forward_original_token: bool,
    /// How long fetching the keys may take; 5 seconds where nothing is written.
    pub timeout: Duration,
    /// Top-level claims whose text is a list with spaces between, beside `scope` and `permission`, which always are.
    pub space_delimited_claims: Vec<String>,
    /// The line at which the rule begins.
    pub origin: Origin,
}

impl JwtRule {
    /// How long fetching the keys may take where a rule says nothing: Istio's five seconds.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
}

/// Where the keys of an issuer come from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum JwksSource {
    /// `jwks`: the key set itself, in JSON (RFC 7517). It can hold private keys by mistake, so `Debug` hides it.
    Inline(String),
    /// `jwksUri`: an `http` or `https` URI that serves the key set.
    Uri(String),
    /// Neither: the `jwks_uri` of the issuer's OpenID configuration.
    Discovery,
}

impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(text) => write!(f, "Inline({} bytes)", text.len()),
            Self::Uri(uri) => f.debug_tuple("Uri").field(uri).finish(),
            Self::Discovery => f.write_str("Discovery"),
        }
    }
}

/// A header in which a token may stand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenHeader {
    /// The header's name; letter case does not matter.
    pub name: String,
    /// What stands before the token, for example `Bearer `; empty where the header holds nothing else.
    pub prefix: String,
}

/// A header that receives a claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimToHeader {
    /// The header's name: letters, digits, `-` and `_`.
    pub header: String,
    /// The claim's name; a claim within a claim is written with dots.
    pub claim: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_keys_are_not_printed() {
        let source = JwksSource::Inline("{\"keys\":[{\"d\":\"secret\"}]}".to_owned());
        assert_eq!(format!("{source:?}"), "Inline(25 bytes)");
        assert_eq!(format!("{:?}", JwksSource::Uri("https://a".into())), "Uri(\"https://a\")");
    }
}
