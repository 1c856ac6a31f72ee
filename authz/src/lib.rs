#![doc = include_str!("../README.md")]

mod compile;
mod compiled;
mod evaluation;
mod forwarded;
pub mod normalize;
mod permit;
mod predicate;
mod record;
mod request;

pub use compiled::CompiledSet;
pub use evaluation::{Evaluation, Outcome, Phase, PolicyRef, Shadow, ShadowResult};
pub use forwarded::remote_ip;
pub use permit::{Decision, Denial, Permit};
pub use predicate::is_joined_header;
pub use record::{
    DecisionRecord, DecisionSink, DestinationFacts, HttpFacts, RequestFacts, SourceFacts, Verdict, reason,
};
pub use request::{Attribute, Destination, Headers, HttpRequest, Known, NoHeaders, Peer, Request, Semantics};
