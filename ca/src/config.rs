//! What an operator decides about the authority, checked before anything is touched.

use std::path::PathBuf;
use std::time::Duration;

use palisade_identity::TrustDomain;
use rustls_pki_types::DnsName;

use crate::csr::ExtraKeys;
use crate::custody::Passphrase;
use crate::jwt::{JwtConfig, JwtConfigError};
use crate::signer;

/// The authority's settings.
#[derive(Clone, Debug)]
pub struct CaConfig {
    /// Where keys and records are kept; made if missing, and used for nothing else.
    pub dir: PathBuf,
    /// The trust domain whose IDs are issued.
    pub trust_domain: TrustDomain,
    /// Lifetime of a leaf whose request names none; one hour by default.
    pub leaf_ttl: Duration,
    /// A request for more gets this much; 24 hours by default, 30 days at most.
    pub max_ttl: Duration,
    /// DNS names of the server's own certificate besides the built-in ones.
    pub dns_names: Vec<String>,
    /// Lifetime of a root made here; ten years by default.
    pub root_ttl: Duration,
    /// A root made here gets a successor after this long; three quarters of its lifetime by default.
    pub rotate_every: Option<Duration>,
    /// A prepared authority signs after this long though somebody who follows has not acknowledged it; by default it waits until an
    /// eighth of the active one's time is left.
    pub activate_after: Option<Duration>,
    /// Directory with a signing certificate of the operator's, in the place of roots made here.
    pub cacerts: Option<PathBuf>,
    /// Encrypts the keys made here from now on, and opens those that are encrypted.
    pub passphrase: Option<Passphrase>,
    /// Tokens and the bundle's refresh hint.
    pub jwt: JwtConfig,
    /// Keys that are signed beside P-256, P-384 and RSA; none by default.
    pub extra_keys: ExtraKeys,
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A lifetime below one second or with a fraction that a certificate cannot carry.
    #[error("a leaf lifetime must be at least one second, not {0:?}")]
    LifetimeTooShort(Duration),
    /// The default exceeds the maximum.
    #[error("the default leaf lifetime {leaf_ttl:?} exceeds the maximum {max_ttl:?}")]
    DefaultOverMaximum {
        /// The default asked for.
        leaf_ttl: Duration,
        /// The maximum asked for.
        max_ttl: Duration,
    },
    /// A leaf would regularly outlive its signer.
    #[error("the maximum leaf lifetime {0:?} exceeds the 30 days an intermediate is sure to have left")]
    MaximumTooLong(Duration),
    /// A root that would end before its successor could take over.
    #[error(
        "a root is replaced after {rotate_every:?}, which must be at least a second and at most 7/8 of its lifetime {root_ttl:?}"
    )]
    Rotation {
        /// The interval asked for.
        rotate_every: Duration,
        /// The lifetime asked for.
        root_ttl: Duration,
    },
    /// Not a DNS name.
    #[error("`{0}` is not a DNS name")]
    DnsName(String),
    /// Tokens.
    #[error("the settings of tokens are refused")]
    Jwt(#[from] JwtConfigError),
}

impl CaConfig {
    /// Defaults for `trust_domain`, kept in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, trust_domain: TrustDomain) -> Self {
        Self {
            dir: dir.into(),
            trust_domain,
            leaf_ttl: Duration::from_secs(3_600),
            max_ttl: Duration::from_secs(24 * 3_600),
            dns_names: Vec::new(),
            root_ttl: Duration::from_secs(10 * 365 * 86_400),
            rotate_every: None,
            activate_after: None,
            cacerts: None,
            passphrase: None,
            jwt: JwtConfig::default(),
            extra_keys: ExtraKeys::default(),
        }
    }

    pub(crate) fn rotate_every(&self) -> Duration {
        self.rotate_every.unwrap_or(self.root_ttl / 4 * 3)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if let Some(short) = [self.leaf_ttl, self.max_ttl].into_iter().find(|ttl| ttl.as_secs() == 0) {
            return Err(ConfigError::LifetimeTooShort(short));
        }
        if self.leaf_ttl > self.max_ttl {
            return Err(ConfigError::DefaultOverMaximum { leaf_ttl: self.leaf_ttl, max_ttl: self.max_ttl });
        }
        if self.max_ttl > signer::INTERMEDIATE_RENEWED_BEFORE {
            return Err(ConfigError::MaximumTooLong(self.max_ttl));
        }
        let (rotate_every, root_ttl) = (self.rotate_every(), self.root_ttl);
        if rotate_every.as_secs() == 0 || rotate_every > root_ttl / 8 * 7 {
            return Err(ConfigError::Rotation { rotate_every, root_ttl });
        }
        self.jwt.check()?;
        match self.dns_names.iter().find(|name| DnsName::try_from(name.as_str()).is_err()) {
            Some(bad) => Err(ConfigError::DnsName(bad.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_are_named() {
        let good = CaConfig::new("/nowhere", TrustDomain::parse("cluster.local").unwrap());
        assert!(good.check().is_ok());
        let refused = |change: fn(&mut CaConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(refused(|c| c.leaf_ttl = Duration::from_millis(900)).contains("one second"));
        assert!(refused(|c| c.leaf_ttl = c.max_ttl * 2).contains("exceeds the maximum"));
        assert!(refused(|c| c.max_ttl = Duration::from_secs(40 * 86_400)).contains("30 days"));
        assert!(refused(|c| c.rotate_every = Some(c.root_ttl)).contains("7/8"));
        assert!(refused(|c| c.root_ttl = Duration::ZERO).contains("at least a second"));
        assert!(refused(|c| c.dns_names = vec!["a b".into()]).contains("`a b`"));
    }
}
