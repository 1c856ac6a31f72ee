#![doc = include_str!("../README.md")]

mod admission;
pub mod attest;
mod authority;
mod config;
mod csr;
mod directory;
mod entries;
mod impersonation;
mod leaf;
mod metrics;
mod service;
mod signer;
mod store;

pub use admission::{Admission, AdmissionLimits};
pub use attest::join_token::{JoinToken, JoinTokenError};
pub use authority::{Authority, DATABASE, OpenError, ServerIdentityError};
pub use config::{CaConfig, ConfigError};
pub use csr::{Csr, CsrError, ExtraKeys};
pub use directory::DirectoryError;
pub use entries::{Entries, EntriesError, Entry, EntryError, EntryMap};
pub use impersonation::{Impersonation, NodeWorkloads};
pub use service::CaService;
pub use signer::SignerError;
pub use store::{IssuanceRow, StoreError};
