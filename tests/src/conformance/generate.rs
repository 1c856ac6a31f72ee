//! Random workloads and requests. Values are drawn from small vocabularies, and requests from the policies that they
//! meet, so that rules match often and miss by little.

mod aim;
mod authn;
mod claims;
mod policy;
mod request;
mod scene;
mod text;
mod value;
mod world;

pub(super) use authn::Keys;
pub(super) use scene::{Shared, Sizes, question};
