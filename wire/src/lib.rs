#![doc = include_str!("../README.md")]

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::too_many_lines,
    missing_docs,
    reason = "generated code carries its own attributes; the protos document each field"
)]
mod proto;

mod caller;
pub mod channel;
pub mod ext_authz;
mod refusal;
pub mod serve;

pub use caller::{Caller, UnixCaller};
pub use refusal::{revoked, revoked_serial};

#[doc(inline)]
pub use proto::istio::v1::auth as istio_ca;
#[doc(inline)]
pub use proto::palisade::admin::v1 as admin;
#[doc(inline)]
pub use proto::palisade::agents::v1 as agents;
#[doc(inline)]
pub use proto::palisade::audit::v1 as audit;
#[doc(inline)]
pub use proto::palisade::control::v1 as control;
#[doc(inline)]
pub use proto::palisade::node::v1 as node;
#[doc(inline)]
pub use proto::unpackaged as workload;

/// Envoy's xDS and SDS messages and services.
pub use envoy_types::pb as envoy;

/// Type URL of [`control::Snapshot`], the one resource type of the delta xDS stream.
pub const SNAPSHOT_TYPE_URL: &str = "type.googleapis.com/palisade.control.v1.Snapshot";

/// Type URL of Envoy's SDS secret.
pub const SECRET_TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
