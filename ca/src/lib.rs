#![doc = include_str!("../README.md")]

pub mod attest;
mod authority;
mod config;
mod csr;
mod directory;
mod document;
mod jwt;
mod leaf;
mod metrics;
mod service;
mod signer;
mod store;

pub use attest::join_token::{JoinToken, JoinTokenError};
pub use authority::{Authority, OpenError, ServerIdentityError};
pub use config::{CaConfig, ConfigError};
pub use csr::{Csr, CsrError};
pub use directory::DirectoryError;
pub use document::Documents;
pub use jwt::{JwtConfig, JwtConfigError, JwtError, JwtKeyError, JwtSvid, RingError};
pub use service::CaService;
pub use signer::SignerError;
pub use store::{IssuanceRow, StoreError};
