//! What deciding needs from outside: keys to verify tokens, providers to ask, and the time. Handed in by whoever has
//! sockets and a clock; the workbench has neither.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use palisade_authz::provider::Providers;
use palisade_authz::{Authenticator, KeySet, KeySource};
use palisade_policies::JwtRule;

/// A wait for the keys of an authenticator.
pub type Preparing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The means of deciding.
pub trait World: Send + Sync {
    /// The providers of CUSTOM policies.
    fn providers(&self) -> Arc<Providers>;

    /// The keys of issuers that have to be fetched.
    fn keys(&self) -> Arc<dyn KeySource>;

    /// Called once for each set of token rules before the first request is decided by it; resolves when their keys
    /// are there, or known not to come.
    fn prepare<'a>(&'a self, authenticator: &'a Authenticator) -> Preparing<'a>;

    /// The time by which tokens are valid.
    fn now(&self) -> SystemTime;
}

/// No world at all: nobody is asked, so that what a CUSTOM policy matches is denied; tokens are verified with keys
/// that stand in the policies, as of the given time.
#[derive(Debug, Clone, Copy)]
pub struct Alone(pub SystemTime);

impl World for Alone {
    fn providers(&self) -> Arc<Providers> {
        Arc::new(Providers::none())
    }

    fn keys(&self) -> Arc<dyn KeySource> {
        Arc::new(NoKeys)
    }

    fn prepare<'a>(&'a self, _authenticator: &'a Authenticator) -> Preparing<'a> {
        Box::pin(std::future::ready(()))
    }

    fn now(&self) -> SystemTime {
        self.0
    }
}

struct NoKeys;

impl KeySource for NoKeys {
    fn keys(&self, _rule: &JwtRule) -> Option<Arc<KeySet>> {
        None
    }
}

/// The outcome of a future that has nothing to wait for; `None` if it waits all the same.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
