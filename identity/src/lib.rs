#![doc = include_str!("../README.md")]

mod bundle;
mod certificate;
mod chain;
mod id;
mod key;
mod memo;
mod path;
mod source;
mod svid;
pub mod tls;
mod verify;

pub use bundle::{BundleError, TrustBundle, TrustBundles};
pub use certificate::{AuthorityError, LeafError};
pub use chain::error_chain;
pub use id::{IdError, SpiffeId, TrustDomain};
pub use key::{KeyError, PrivateKey};
pub use rustls_pki_types::{CertificateDer, UnixTime};
pub use source::{Clock, Identity, SvidSource};
pub use svid::{SvidError, X509Svid};
pub use verify::{Fault, VerifiedPeer, VerifyError, verify_peer};

/// The most certificates a chain may hold, leaf and root included. RFC 5280 sets no bound; real SPIFFE chains have two to four.
pub const MAX_CHAIN_CERTIFICATES: usize = 10;

/// The most bytes of DER a chain may hold in all. A TLS handshake message cannot carry more either.
pub const MAX_CHAIN_BYTES: usize = 64 * 1024;
