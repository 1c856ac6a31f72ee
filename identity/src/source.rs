//! Where an identity comes from, and what time it is: the two things that this crate must be told.
//!
//! The proxy takes an [`SvidSource`] and knows nothing of the agent behind it; whoever compares dates takes a [`Clock`], so
//! that a test decides what time it is.

use std::fmt::Debug;
use std::sync::Arc;

use rustls_pki_types::UnixTime;

use crate::{TrustBundles, X509Svid};

/// The wall clock.
pub trait Clock: Send + Sync + Debug {
    /// Seconds since 1970-01-01T00:00:00Z.
    fn now(&self) -> UnixTime;
}

/// What a workload authenticates with, and whom it can authenticate: one consistent state, replaced as a whole.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate chain and its key.
    pub svid: Arc<X509Svid>,
    /// The roots of every trust domain the workload trusts, its own included.
    pub bundles: Arc<TrustBundles>,
}

/// Something that keeps one identity fresh.
pub trait SvidSource: Send + Sync {
    /// The identity of this moment, or `None` before the first one has arrived. Never blocks.
    fn current(&self) -> Option<Arc<Identity>>;

    /// Registers `changed`, called after every change of what [`current`](Self::current) returns. The callback must be quick: it
    /// runs on the thread that made the change. It stays registered as long as the source lives.
    fn on_change(&self, changed: Box<dyn Fn() + Send + Sync>);
}
