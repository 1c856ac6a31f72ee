//! The keys behind request authentication: key sets as they stand in a policy or at an issuer, and the cache that
//! fetches the latter. The only part of request authentication that opens sockets; verifying a token never waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use palisade_policies::JwtRule;

mod algorithm;
mod cache;
mod entry;
mod fetch;
mod guard;
mod key;
mod key_set;

pub(crate) use algorithm::Algorithm;
pub use cache::{JwksCache, JwksConfig, JwksState};
pub use fetch::FetchError;
pub(crate) use key_set::Mismatch;
pub use key_set::{KeyError, KeySet, KeySetError};

/// Where [`crate::Authenticator`] gets the keys of rules from that do not hold them themselves.
pub trait KeySource: Send + Sync {
    /// The current keys of a rule, without waiting. `None`: there is no usable key set, and tokens of that rule are
    /// refused (401).
    fn keys(&self, rule: &JwtRule) -> Option<Arc<KeySet>>;

    /// A token named a key that the rule's set does not have: the issuer may have begun to sign with a new one.
    fn unknown_key(&self, _rule: &JwtRule) {}

    /// While nobody can say yet whether the rule's keys can be had: resolves as soon as somebody can, at the latest
    /// after the rule's timeout. `None` when that is known.
    fn first_outcome<'a>(&'a self, _rule: &'a JwtRule) -> Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>> {
        None
    }
}
