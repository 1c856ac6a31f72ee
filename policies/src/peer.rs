//! PeerAuthentication as a checked type: which workloads insist on mutual TLS, and on which ports.

use std::{collections::BTreeMap, fmt};

use crate::{Meta, Selector};

/// An accepted PeerAuthentication (`security.istio.io/v1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Name, namespace, labels, annotations and position.
    pub meta: Meta,
    /// Which workloads it selects; `None` or empty means the namespace (or the mesh, in the root namespace).
    pub selector: Option<Selector>,
    /// `mtls.mode`; `None` where it is absent or `UNSET`, so that the wider scope decides.
    pub mode: Option<MtlsMode>,
    /// `portLevelMtls` by the application's port; `None` is `UNSET` and means `mode`.
    pub port_level: BTreeMap<u16, Option<MtlsMode>>,
}

/// What a port accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Mutual TLS and plaintext.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

impl MtlsMode {
    /// The text of the resource: `DISABLE`, `PERMISSIVE` or `STRICT`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
        }
    }
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
