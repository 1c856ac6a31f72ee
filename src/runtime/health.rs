//! Readiness as a set of named conditions: ready means that every one of them holds, and the answer says which does not.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The conditions of one process. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    conditions: Arc<Mutex<Vec<Condition>>>,
}

#[derive(Debug)]
struct Condition {
    name: &'static str,
    holds: watch::Receiver<bool>,
}

impl Health {
    /// Readiness now also needs `holds` to be true.
    pub(crate) fn require(&self, name: &'static str, holds: watch::Receiver<bool>) {
        self.lock().push(Condition { name, holds });
    }

    /// Names of the conditions that do not hold; empty means ready.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        self.lock().iter().filter(|condition| !*condition.holds.borrow()).map(|condition| condition.name).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Condition>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Health;
    use tokio::sync::watch;

    #[test]
    fn ready_only_when_every_condition_holds() {
        let health = Health::default();
        let (identity, holds) = watch::channel(false);
        health.require("identity", holds);
        let (_snapshot, holds) = watch::channel(true);
        health.require("snapshot", holds);
        assert_eq!(health.missing(), ["identity"]);
        identity.send_replace(true);
        assert!(health.missing().is_empty());
    }
}
