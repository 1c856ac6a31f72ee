#![doc = include_str!("../README.md")]

mod admission;
mod agents;
pub mod attest;
mod authority;
mod cacerts;
mod config;
mod csr;
pub mod custody;
mod directory;
mod document;
mod encode;
mod entries;
mod impersonation;
mod journal;
mod jwt;
mod leaf;
mod metrics;
mod root;
mod rotation;
mod service;
mod signer;
mod store;

pub use admission::{Admission, AdmissionLimits};
pub use agents::{AgentsService, EntryChanges, EntrySource, NoEntries};
pub use attest::join_token::{JoinToken, JoinTokenError};
pub use authority::{
    Authority, AuthorityStatus, DATABASE, FollowerStatus, OpenError, RevokeError, RotateError, ServerIdentityError,
    Status,
};
pub use cacerts::CacertsError;
pub use config::{CaConfig, ConfigError};
pub use csr::{Csr, CsrError, ExtraKeys};
pub use directory::DirectoryError;
pub use document::Documents;
pub use entries::{Entries, EntriesError, Entry, EntryError, EntryMap};
pub use impersonation::{Impersonation, NodeWorkloads};
pub use journal::{JournalError, Origin, State};
pub use jwt::{JwtConfig, JwtConfigError, JwtError, JwtKeyError, JwtSvid, RingError};
pub use rotation::Next;
pub use service::CaService;
pub use signer::SignerError;
pub use store::{IssuanceQuery, IssuanceRow, Revocation, StoreError, Target};
