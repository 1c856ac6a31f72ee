//! Wall time in nanoseconds, passed in so that tests can own it.
//!
//! The certificate clock of `palisade-identity` counts whole seconds. That is too coarse here: two starts of an enforcer within
//! one second must not share an epoch, or the store would take the second one's events for duplicates of the first's.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers the present as Unix nanoseconds; cheap to clone.
#[derive(Clone)]
pub struct NanoClock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl NanoClock {
    /// The machine's clock; a time before 1970 reads as 0.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|| {
            let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
        })
    }

    /// Any other source of time.
    #[must_use]
    pub fn new(now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Unix nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for NanoClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NanoClock").field(&self.now()).finish()
    }
}
