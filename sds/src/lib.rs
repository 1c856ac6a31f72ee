#![doc = include_str!("../README.md")]

pub use agent::{Agent, Health, IdentityState, NewAgentError, RenewError, RunError};
pub use answer::AnswerError;
pub use authority::CallError;
pub use config::{AgentConfig, CheckConfigError, FirstTrust, JoinTokenSource};
pub use files::{BUNDLE_FILE, CERTIFICATE_FILE, FilesConfig, KEY_FILE, OnChange};
pub use pem::ReadPemError;
pub use serve::ServeError;
pub use storage::{DecodeIdentityError, FORMAT, LoadIdentityError, OpenStorageError};
pub use token::{JoinToken, ParseTokenError};

mod admin;
mod agent;
mod answer;
mod attest;
mod authority;
mod config;
mod discovery;
mod files;
mod jwt;
mod metrics;
mod pem;
mod roster;
pub mod schedule;
mod secrets;
mod serve;
mod storage;
mod token;
mod tokens;
mod workload;

#[cfg(test)]
mod fixtures;
