//! SPIFFE IDs and trust domains.
//!
//! They have a grammar of their own, far narrower than a URI's, and every authorization decision rests on comparing them
//! byte by byte. A general URL parser would let `%2f`, `..`, a port or an upper-case letter through, and two spellings of one
//! name are two names to a policy. So the grammar is checked here once, on the bytes, and nothing is ever normalised.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

const SCHEME: &str = "spiffe://";
const MAX_ID_BYTES: usize = 2048;
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// Why a text is no SPIFFE ID or trust domain (SPIFFE-ID, sections 2.1 to 2.4).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text does not begin with `spiffe://`, in lower case.
    #[error("a SPIFFE ID begins with `spiffe://` in lower case")]
    Scheme,
    /// The ID is longer than 2048 bytes.
    #[error("a SPIFFE ID has at most 2048 bytes, this one has {0}")]
    TooLong(usize),
    /// Nothing stands between the scheme and the path.
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    /// The trust domain is longer than 255 bytes.
    #[error("a trust domain has at most 255 bytes, this one has {0}")]
    TrustDomainTooLong(usize),
    /// A character outside `a-z 0-9 . - _`: upper case, a port, user information, percent-encoding and the like.
    #[error("`{0}` is not allowed in a trust domain: only a-z, 0-9, `.`, `-` and `_` are")]
    TrustDomainCharacter(char),
    /// A character outside `a-z A-Z 0-9 . - _` in a path segment: percent-encoding, a query, a fragment and the like.
    #[error("`{0}` is not allowed in a path: only a-z, A-Z, 0-9, `.`, `-` and `_` are")]
    PathCharacter(char),
    /// Two slashes in a row, or an empty namespace or service account.
    #[error("a path segment is empty")]
    EmptySegment,
    /// The path ends with a slash (also a lone one).
    #[error("the path ends with `/`")]
    TrailingSlash,
    /// A segment is `.` or `..`.
    #[error("a path segment is `.` or `..`")]
    DotSegment,
}

/// The name of a trust domain, such as `cluster.local`: 1 to 255 bytes of `a-z 0-9 . - _`.
///
/// Names that look like DNS names or IP addresses get no special treatment (SPIFFE-ID 2.1). Cheap to clone.
#[derive(Clone)]
pub struct TrustDomain {
    // The whole ID it was cut from, or the ID `spiffe://name`: sharing it makes `SpiffeId::trust_domain` free.
    text: Arc<str>,
    end: usize,
}

impl TrustDomain {
    /// Parses a bare trust domain name (no scheme).
    ///
    /// # Errors
    /// An [`IdError`] that names the rule which `name` breaks.
    pub fn parse(name: &str) -> Result<Self, IdError> {
        check_trust_domain(name)?;
        let text: Arc<str> = format!("{SCHEME}{name}").into();
        let end = text.len();
        Ok(Self { text, end })
    }

    /// The name, without a scheme.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.get(SCHEME.len()..self.end).unwrap_or_default()
    }

    /// The trust domain's own ID, `spiffe://name`: what its signing authority carries. It has no path.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        let text = match self.text.get(..self.end) {
            Some(own) if own.len() < self.text.len() => own.into(),
            _ => Arc::clone(&self.text),
        };
        SpiffeId { text, domain_end: self.end }
    }
}

/// A SPIFFE ID: `spiffe://` trust domain, and a path that may be empty. At most 2048 bytes. Cheap to clone.
///
/// Parsing accepts exactly the spellings that SPIFFE-ID allows and changes nothing, so equality of IDs is equality of bytes.
#[derive(Clone)]
pub struct SpiffeId {
    text: Arc<str>,
    domain_end: usize,
}

impl SpiffeId {
    /// Parses an ID, `spiffe://domain/segment/..`.
    ///
    /// # Errors
    /// An [`IdError`] that names the rule which `text` breaks.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.len() > MAX_ID_BYTES {
            return Err(IdError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
        let (domain, path) = rest.split_once('/').map_or((rest, None), |(d, p)| (d, Some(p)));
        check_trust_domain(domain)?;
        if let Some(path) = path {
            check_path(path)?;
        }
        Ok(Self { text: text.into(), domain_end: SCHEME.len() + domain.len() })
    }

    /// The ID of a workload in Istio's shape, `spiffe://domain/ns/namespace/sa/service-account`.
    ///
    /// # Errors
    /// An [`IdError`] if a name is not exactly one valid path segment, or the ID grows too long.
    pub fn workload(domain: &TrustDomain, namespace: &str, service_account: &str) -> Result<Self, IdError> {
        check_segment(namespace)?;
        check_segment(service_account)?;
        Self::parse(&format!("{SCHEME}{}/ns/{namespace}/sa/{service_account}", domain.as_str()))
    }

    /// The whole ID, with `spiffe://`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The ID without `spiffe://`: what Istio's policies call a principal.
    #[must_use]
    pub fn principal(&self) -> &str {
        self.text.get(SCHEME.len()..).unwrap_or_default()
    }

    /// The trust domain. Allocates nothing.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain { text: Arc::clone(&self.text), end: self.domain_end }
    }

    /// The name of the trust domain.
    #[must_use]
    pub fn trust_domain_name(&self) -> &str {
        self.text.get(SCHEME.len()..self.domain_end).unwrap_or_default()
    }

    /// The path with its leading slash, or an empty text for a trust domain's own ID.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(self.domain_end..).unwrap_or_default()
    }

    /// Namespace and service account, if the path is exactly `/ns/../sa/..`.
    #[must_use]
    pub fn namespace_and_service_account(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
    }
}

fn check_trust_domain(name: &str) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::EmptyTrustDomain);
    }
    if name.len() > MAX_TRUST_DOMAIN_BYTES {
        return Err(IdError::TrustDomainTooLong(name.len()));
    }
    let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
    name.chars().find(|c| !allowed(*c)).map_or(Ok(()), |c| Err(IdError::TrustDomainCharacter(c)))
}

/// Checks what follows the first slash after the trust domain.
fn check_path(path: &str) -> Result<(), IdError> {
    if path.is_empty() || path.ends_with('/') {
        return Err(IdError::TrailingSlash);
    }
    path.split('/').try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), IdError> {
    let allowed = |c: char| matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_');
    match segment {
        "" => Err(IdError::EmptySegment),
        "." | ".." => Err(IdError::DotSegment),
        _ => segment.chars().find(|c| !allowed(*c)).map_or(Ok(()), |c| Err(IdError::PathCharacter(c))),
    }
}

/// Both types are their text: identity, order, hash and print all come from `as_str`.
macro_rules! as_text {
    ($type:ty) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                self.as_str().cmp(other.as_str())
            }
        }
        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    };
}

as_text!(TrustDomain);
as_text!(SpiffeId);

#[cfg(test)]
mod tests;
