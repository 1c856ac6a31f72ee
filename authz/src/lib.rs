#![doc = include_str!("../README.md")]

mod authn;
mod base64url;
mod compile;
mod compiled;
mod compiler;
mod edits;
mod evaluation;
mod explain;
mod forwarded;
pub mod gate;
pub mod head;
mod index;
mod jwks;
mod link;
mod method;
pub mod normalize;
mod permit;
mod predicate;
mod program;
pub mod provider;
mod record;
mod request;
mod strict_json;

pub use authn::{Accepted, Authenticator, Authn, Refusal, TokenRequest};
pub use compiled::{CompiledSet, Custom};
pub use compiler::Compiler;
pub use edits::{EditedHeaders, Edits};
pub use evaluation::{Evaluation, Outcome, Phase, PolicyRef, Shadow, ShadowResult};
pub use explain::{Explanation, Failed, Near, PhaseReport};
pub use forwarded::{remote_ip, remote_ip_behind};
pub use jwks::{FetchError, JwksCache, JwksConfig, JwksState, KeyError, KeySet, KeySetError, KeySource};
pub use method::HTTP1_METHODS;
pub use permit::{Approval, Decision, Denial, Permit};
pub use predicate::is_joined_header;
pub use record::{
    DecisionRecord, DecisionSink, DestinationFacts, HttpFacts, RequestFacts, SourceFacts, Verdict, is_credential,
    reason, recorded_headers,
};
pub use request::{Attribute, Destination, Headers, HttpRequest, Known, NoHeaders, Peer, Request, Semantics};
