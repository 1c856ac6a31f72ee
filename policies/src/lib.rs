#![doc = include_str!("../README.md")]

mod authorization;
mod ca;
mod catalogue;
mod diagnostic;
pub mod json;
mod load;
mod locate;
mod mesh;
mod meta;
mod peer;
mod read;
mod registration;
pub mod registry;
mod request;
mod resources;
pub mod select;
mod service;
mod source;
mod suggest;
mod workload;
mod yaml;

pub use authorization::{Action, AuthorizationPolicy, Condition, Operation, Rule, Source, TargetRef};
pub use ca::{AdmissionSettings, CA_FILE, CaSettings, ExtraKey, KubernetesSettings, SettingsSource, X509PopSettings};
pub use catalogue::{Explanation, codes, explain};
pub use diagnostic::{Diagnostic, Severity};
pub use load::{MAX_DOCUMENTS, MAX_TEXT_BYTES, MAX_TOTAL_BYTES, MAX_TOTAL_VALUES, load};
pub use locate::Places;
pub use mesh::{CheckBody, ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, MeshConfig, PathNormalization, ProviderKind};
pub use meta::{Meta, Selector};
pub use peer::{MtlsMode, PeerAuthentication};
pub use read::{ReadError, Texts, read_each, read_paths};
pub use registration::{
    MAX_REGISTRATION_ITEMS, MAX_REGISTRATION_TEXT, PALISADE_GROUP, REGISTRATION_ENTRY, RegistrationEntry,
    SERVER_ACCOUNT, SERVER_DNS_NAMES, foreign_registrations, registration_dns_name, registration_id,
    registration_selector, registration_ttl,
};
pub use request::{ClaimToHeader, JwksSource, JwtRule, RequestAuthentication, TokenHeader};
pub use resources::{Document, Loaded, Resources};
pub use service::{AppProtocol, Location, Resolution, ServiceEntry, ServicePort};
pub use source::{Origin, SourceText};
pub use workload::{TLS_MODE_LABEL, Workload, WorkloadEntry};
