//! Settings of the certificate authority (`ca.yaml`): who is believed, which keys are signed, and how much one caller may ask.
//!
//! They are read here and not by the authority, so that `policy check` says the same about them as the server that starts.

mod parse;

use std::num::NonZeroU32;

/// Name of the settings' file inside a configuration directory.
pub const CA_FILE: &str = "ca.yaml";

/// The settings. The default is what holds without a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaSettings {
    /// Kinds of keys that are signed beside P-256, P-384 and RSA.
    pub extra_keys: Vec<ExtraKey>,
    /// Kubernetes' service account tokens; `None`: not believed.
    pub kubernetes: Option<KubernetesSettings>,
    /// Certificates of machines; `None`: not believed.
    pub x509pop: Option<X509PopSettings>,
    /// How much is served.
    pub admission: AdmissionSettings,
}

/// A kind of key that is signed only on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtraKey {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-521.
    P521,
}

/// How service account tokens are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// The token's `iss`, compared as it stands.
    pub issuer: String,
    /// Where the issuer's public keys are.
    pub jwks: SettingsSource,
    /// A token must be for one of these; `istio-ca` where none is written. Never empty.
    pub audiences: Vec<String>,
    /// Namespace and name of service accounts whose pods may ask for certificates of other workloads on their node.
    pub trusted_node_accounts: Vec<(String, String)>,
}

/// A file, or a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingsSource {
    /// A path; a relative one is seen from the directory of `ca.yaml`.
    File(String),
    /// An `http` or `https` URL.
    Url(String),
}

/// Whose certificates prove a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509PopSettings {
    /// PEM file of the certificate authorities; a relative path is seen from the directory of `ca.yaml`.
    pub ca: String,
}

/// How much is served to one caller, and how many may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// Certificates a second for one identity.
    pub rate: NonZeroU32,
    /// So many at once, when it has asked for none before.
    pub burst: NonZeroU32,
    /// Requests of all callers together that may wait for their turn.
    pub waiting: NonZeroU32,
}

impl Default for AdmissionSettings {
    /// 500 a second and 2,000 at once for one identity; 16,384 waiting.
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self { rate: number(500), burst: number(2_000), waiting: number(16_384) }
    }
}
