//! Readiness as a set of named conditions: ready means that every one of them holds, and the answer says which does not.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The conditions of one process. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    conditions: Arc<Mutex<Vec<Condition>>>,
}

struct Condition {
    name: &'static str,
    holds: watch::Receiver<bool>,
    why: Option<Why>,
}

/// Says why a condition does not hold just now.
type Why = Box<dyn Fn() -> String + Send + Sync>;

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Condition").field("name", &self.name).field("holds", &self.holds).finish_non_exhaustive()
    }
}

impl Health {
    /// Readiness now also needs `holds` to be true.
    pub(crate) fn require(&self, name: &'static str, holds: watch::Receiver<bool>) {
        self.lock().push(Condition { name, holds, why: None });
    }

    /// The same; while it is not, `why` says the reason.
    pub(crate) fn require_or_say(
        &self,
        name: &'static str,
        holds: watch::Receiver<bool>,
        why: impl Fn() -> String + Send + Sync + 'static,
    ) {
        self.lock().push(Condition { name, holds, why: Some(Box::new(why)) });
    }

    /// The conditions that do not hold, with their reasons as far as they say them; empty means ready.
    pub(crate) fn missing(&self) -> Vec<String> {
        let say = |condition: &Condition| match &condition.why {
            Some(why) => format!("{} ({})", condition.name, why()),
            None => condition.name.to_owned(),
        };
        self.lock().iter().filter(|condition| !*condition.holds.borrow()).map(say).collect()
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
        health.require_or_say("snapshot", holds, || "never".to_owned());
        assert_eq!(health.missing(), ["identity"]);
        let (_gone, holds) = watch::channel(false);
        health.require_or_say("disk", holds, || "it is full".to_owned());
        assert_eq!(health.missing(), ["identity", "disk (it is full)"]);
        identity.send_replace(true);
        assert_eq!(health.missing(), ["disk (it is full)"]);
    }
}
