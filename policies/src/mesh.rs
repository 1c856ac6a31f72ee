//! The mesh configuration: the few keys of Istio's MeshConfig that steer policy decisions.

pub(crate) mod parse;
mod provider;
mod providers;

use std::fmt;

use ipnet::IpNet;
use palisade_identity::TrustDomain;

pub use provider::{CheckBody, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, ProviderKind};

/// What of Istio's MeshConfig decides anything here. The default is Istio's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    /// The mesh's own trust domain; `cluster.local` by default.
    pub trust_domain: TrustDomain,
    /// Other names under which the mesh's identities are known; a `*` at one end is possible.
    pub trust_domain_aliases: Vec<String>,
    /// The namespace whose policies concern the whole mesh; `istio-system` by default.
    pub root_namespace: String,
    /// How a request's path is normalised before it is decided and forwarded.
    pub path_normalization: PathNormalization,
    /// Whom CUSTOM policies can ask, in the order in which they are written; names are unique.
    pub extension_providers: Vec<ExtensionProvider>,
    /// `palisade.jwksAllow`: private addresses from which key sets may be fetched all the same.
    pub jwks_allow: Vec<IpNet>,
}

/// How a request's path is normalised, as Istio's `pathNormalization.normalization` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PathNormalization {
    /// Not at all.
    None,
    /// RFC 3986 dot segments and percent encoding, `\` to `/`: the default.
    #[default]
    Base,
    /// `BASE`, then adjacent slashes become one.
    MergeSlashes,
    /// `%2F` and `%5C` are decoded, then as `MERGE_SLASHES`.
    DecodeAndMergeSlashes,
}

impl PathNormalization {
    /// The text of the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Base => "BASE",
            Self::MergeSlashes => "MERGE_SLASHES",
            Self::DecodeAndMergeSlashes => "DECODE_AND_MERGE_SLASHES",
        }
    }
}

impl fmt::Display for PathNormalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: default_trust_domain(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".to_owned(),
            path_normalization: PathNormalization::Base,
            extension_providers: Vec::new(),
            jwks_allow: Vec::new(),
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant; a test parses it")]
fn default_trust_domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("cluster.local is a trust domain")
}
